"""Encoders of histories: what was seen and done so far -> one vector a step, and heads that read it.

A history is observations [B, T, O], the actions taken there [B, T, A], the number of each step in its episode,
timesteps [B, T] int32, and mask [B, T], 0 for padding. Step t sees o_0 .. o_t and a_0 .. a_{t-1} of its own episode: a
step whose number is 0 begins anew, so several episodes may stand in one row.
"""

from collections.abc import Sequence

import flax.linen as nn
import jax
import jax.numpy as jnp

from rl_jax.networks.encoders import NatureCNN
from rl_jax.networks.initializers import orthogonal
from rl_jax.networks.mlp import MLP
from rl_jax.networks.transformer import INITIALIZER, Transformer, causal_mask

KINDS = ("none", "gru", "transformer")
LOG_STD = (-5.0, 2.0)  # of a predicted latent


class GRU(nn.Module):
    """Gated recurrent units over time: x [B, T, I], resets [B, T] bool, carry [B, features] -> outputs, last carry.

    The memory is zero before a step that resets. Gates of the inputs are one product for all steps; the loop over time
    has the recurrent product alone. Source: Cho et al. 2014, arXiv 1406.1078, in the form of cuDNN and of flax's
    GRUCell: n = tanh(W x + r (U h + b)).
    """

    features: int

    @nn.compact
    def __call__(
        self, x: jax.Array, resets: jax.Array, carry: jax.Array | None = None
    ) -> tuple[jax.Array, jax.Array]:
        size = self.features
        gates = nn.Dense(3 * size, **orthogonal(1.0)(x.shape[-1]), name="inputs")(x)
        kernel = self.param("recurrent", nn.initializers.orthogonal(), (size, 3 * size))
        bias = self.param("bias", nn.initializers.zeros, (size,))

        def step(h: jax.Array, inputs: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, jax.Array]:
            gates, reset = inputs
            h = jnp.where(reset[:, None], 0.0, h)
            own = h @ kernel
            r, u = jnp.split(jax.nn.sigmoid(gates[:, : 2 * size] + own[:, : 2 * size]), 2, -1)
            n = jnp.tanh(gates[:, 2 * size :] + r * (own[:, 2 * size :] + bias))
            h = (1.0 - u) * n + u * h
            return h, h

        start = jnp.zeros((x.shape[0], size), x.dtype) if carry is None else carry
        last, outputs = jax.lax.scan(step, start, (gates.swapaxes(0, 1), resets.swapaxes(0, 1)))
        return outputs.swapaxes(0, 1), last


class HistoryEncoder(nn.Module):
    """A history -> latents [B, T, latent_dim], by a last layer without a bias.

    Losses of the distances of latents leave a shift of all of them undetermined: a bias there would have rounding for
    a gradient, of which Adam makes full steps.

    Attributes:
      kind: "gru", "transformer" (causal, with learnt positions), or "none", which sees the observation of now alone.
      hidden_dim: of the memory and of what is put into it.
      num_layers, num_heads, max_timesteps: of the transformer; later steps share the last position.
      picture: height and width of grey pictures, whose rows observations are, and which convolutions look at first;
        empty where there are none.

    Raises:
      ValueError: there is no such kind, or the pictures are too small.
    """

    kind: str
    latent_dim: int
    hidden_dim: int
    num_layers: int = 2
    num_heads: int = 2
    max_timesteps: int = 128
    picture: tuple[int, ...] = ()

    @nn.compact
    def __call__(
        self, observations: jax.Array, actions: jax.Array, timesteps: jax.Array, mask: jax.Array
    ) -> jax.Array:
        if self.kind not in KINDS:
            raise ValueError(f"encoder is {self.kind!r}: choose one of {', '.join(KINDS)}")
        if self.picture:
            observations = NatureCNN()(observations.reshape(*observations.shape[:-1], *self.picture, 1))
        if self.kind == "none":
            hidden = MLP((self.hidden_dim,), activate_final=True)(observations)
            return nn.Dense(self.latent_dim, use_bias=False)(hidden)
        before = jnp.pad(actions, ((0, 0), (1, 0), (0, 0)))[:, :-1] * (timesteps > 0)[..., None]
        x = jnp.concatenate([observations, before], -1)
        if self.kind == "gru":
            hidden, _ = GRU(self.hidden_dim)(MLP((self.hidden_dim,), activate_final=True)(x), timesteps == 0)
        else:
            position = nn.Embed(self.max_timesteps, self.hidden_dim, embedding_init=INITIALIZER)
            x = nn.Dense(self.hidden_dim, kernel_init=INITIALIZER)(x)
            x = x + position(jnp.minimum(timesteps, self.max_timesteps - 1))
            episode = jnp.cumsum(timesteps == 0, -1)
            seen = causal_mask(mask) & (episode[:, :, None] == episode[:, None, :])
            hidden = Transformer(self.num_layers, self.num_heads)(x, seen)
        return nn.Dense(self.latent_dim, use_bias=False)(hidden)


class OnHistory(nn.Module):
    """An encoder with heads on it: a history -> (latents [B, T, Z], {name: head's numbers [B, T, width]}).

    Attributes:
      heads: widths by name; each is an MLP of `hidden_dims` of its own.
    """

    encoder: HistoryEncoder
    hidden_dims: Sequence[int]
    heads: dict[str, int]

    @nn.compact
    def __call__(
        self, observations: jax.Array, actions: jax.Array, timesteps: jax.Array, mask: jax.Array
    ) -> tuple[jax.Array, dict[str, jax.Array]]:
        latents = self.encoder(observations, actions, timesteps, mask)
        return latents, {
            name: MLP((*self.hidden_dims, width), output_initializer=orthogonal(0.01), name=name)(nn.relu(latents))
            for name, width in self.heads.items()
        }


class LatentModel(nn.Module):
    """What a step brings: latents [..., Z], actions [..., A] -> reward [...], next latent's mean and std [..., Z]."""

    hidden_dims: Sequence[int]

    @nn.compact
    def __call__(self, latents: jax.Array, actions: jax.Array) -> tuple[jax.Array, jax.Array, jax.Array]:
        size = latents.shape[-1]
        x = MLP(self.hidden_dims, activate_final=True)(jnp.concatenate([latents, actions], -1))
        reward, mean, log_std = jnp.split(nn.Dense(1 + 2 * size)(x), [1, 1 + size], -1)
        return jnp.squeeze(reward, -1), mean, jnp.exp(jnp.clip(log_std, *LOG_STD))
