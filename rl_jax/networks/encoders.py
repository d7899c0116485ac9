"""Encoders: what turns an observation into the vector that a head reads."""

from collections.abc import Callable

import flax.linen as nn
import jax
import jax.numpy as jnp

from rl_jax.networks.mlp import fan_in_uniform, orthogonal

ENCODERS = ("none", "nature_cnn", "one_hot_<N>")


class NatureCNN(nn.Module):
    """The convolutions of DQN's Nature paper: screens [..., H, W, C] -> features [..., 512].

    8x8 / 4, 4x4 / 2 and 3x3 / 1 without padding, of 32, 64 and 64 channels, and a dense layer, each with a ReLU. Bytes
    are divided by 255; other screens are taken as they are. Source: Mnih et al. 2015, "Human-level control through
    deep reinforcement learning", Nature 518, methods.

    Attributes:
      initializer: "orthogonal" (gain sqrt(2), zero bias) or "torch" (PyTorch's default for such layers).

    Raises:
      ValueError: the screen is below 36x36, which leaves nothing after the third convolution.
    """

    initializer: str = "orthogonal"

    @nn.compact
    def __call__(self, screens: jax.Array) -> jax.Array:
        *leading, height, width, channels = screens.shape
        if min(height, width) < 36:
            raise ValueError(f"screens of {height}x{width}: NatureCNN needs 36x36 at least, scale them up")
        scale = 255.0 if screens.dtype == jnp.uint8 else 1.0
        x = screens.reshape(-1, height, width, channels).astype(jnp.float32) / scale
        for features, size, stride in ((32, 8, 4), (64, 4, 2), (64, 3, 1)):
            initializers = self._initializers(size * size * x.shape[-1])
            x = nn.relu(nn.Conv(features, (size, size), stride, padding="VALID", **initializers)(x))
        x = x.reshape(*leading, -1)
        return nn.relu(nn.Dense(512, **self._initializers(x.shape[-1]))(x))

    def _initializers(self, fan_in: int) -> dict[str, Callable[..., jax.Array]]:
        """Of one layer's kernel and bias."""
        if self.initializer == "torch":
            return {"kernel_init": fan_in_uniform(fan_in), "bias_init": fan_in_uniform(fan_in)}
        if self.initializer == "orthogonal":
            return {"kernel_init": orthogonal, "bias_init": nn.initializers.zeros}
        raise ValueError(f"initializer is {self.initializer!r}: choose orthogonal or torch")


def num_states(encoder: str) -> int:
    """N of an encoder "one_hot_<N>"; ValueError for another."""
    number = encoder.removeprefix("one_hot_")
    if number == encoder or not number.isdecimal() or int(number) < 1:
        raise ValueError(f"encoder is {encoder!r}: for state numbers it is one_hot_<how many states there are>")
    return int(number)


def encode(observations: jax.Array, encoder: str, initializer: str) -> jax.Array:
    """Features [..., F] of observations, by an encoder's name; to be called inside a module.

    Args:
      encoder: "none" hands vectors [..., O] through, as float32; "nature_cnn" reads screens [..., H, W, C];
        "one_hot_<N>" reads state numbers [...] below N, so that a buffer holds a number a state.
      initializer: see NatureCNN.

    Raises:
      ValueError: there is no such encoder.
    """
    if encoder == "none":
        return observations.astype(jnp.float32)
    if encoder == "nature_cnn":
        return NatureCNN(initializer)(observations)
    if encoder.startswith("one_hot_"):
        return jax.nn.one_hot(observations, num_states(encoder))
    raise ValueError(f"encoder is {encoder!r}: choose one of {', '.join(ENCODERS)}")
