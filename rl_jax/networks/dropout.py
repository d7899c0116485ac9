"""Dropout whose random bits are few and whose rate may be traced."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np


class Dropout(nn.Module):
    """Zeros entries with probability `rate` and scales the others by 1 / (1 - rate), from the key stream "dropout".

    Unlike flax.linen's, its rate may be a traced number (a plain 0 draws nothing), and an entry takes 16 random bits:
    on a CPU, where drawing them is a good part of a small transformer's time, that is several times faster. x [...] ->
    [...].
    """

    rate: float

    @nn.compact
    def __call__(self, x: jax.Array, deterministic: bool) -> jax.Array:
        if deterministic or isinstance(self.rate, int | float) and self.rate == 0:
            return x
        words = jax.random.bits(self.make_rng("dropout"), (-(-x.size // 2),), np.uint32)
        draws = jax.lax.bitcast_convert_type(words, np.uint16).reshape(-1)[: x.size].reshape(x.shape)
        return jnp.where(draws >= self.rate * 2**16, x / (1.0 - self.rate), 0.0)
