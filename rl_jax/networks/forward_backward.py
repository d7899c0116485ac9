"""The networks of a forward-backward representation: F(s, a, z), B(s) and pi(s, z).

Source: Touati, Rapin and Ollivier 2023, arXiv 2209.14935, and the authors' code: LayerNorm and tanh behind each first
layer; F and pi read (s, a) or s, and (s, z), by two streams of their own.
"""

import flax.linen as nn
import jax
import jax.numpy as jnp

from rl_jax.networks.distributions import Deterministic
from rl_jax.networks.initializers import torch_default
from rl_jax.networks.mlp import MLP


def with_waves(observations: jax.Array, frequencies: int) -> jax.Array:
    """Observations [..., O] in [-1, 1] beside sin and cos of pi 2^k times them, k < `frequencies`: [..., O (1 + 2 n)].

    An MLP of few inputs is smooth, and takes two sides of a thin wall for one place (Fourier features: Tancik et al.
    2020, arXiv 2006.10739). With 0, as the authors, they are left as they are.
    """
    angles = [jnp.pi * 2.0**k * observations for k in range(frequencies)]
    return jnp.concatenate([observations, *map(jnp.sin, angles), *map(jnp.cos, angles)], -1)


def tanh_layer(x: jax.Array, width: int) -> jax.Array:
    """tanh(LayerNorm(Dense(x))), [..., width]; to be called inside a module.

    Its biases are drawn, not 0 as the authors': LayerNorm of a layer without a bias sees the direction of its input
    alone, which is little where an input has two numbers.
    """
    return jnp.tanh(nn.LayerNorm(epsilon=1e-5)(nn.Dense(width, **torch_default(x.shape[-1]))(x)))


class Stream(nn.Module):
    """An embedding of its input: [..., I] -> [..., width // 2]."""

    width: int

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        return MLP((self.width // 2,), activate_final=True)(tanh_layer(x, self.width))


class TwoStreams(nn.Module):
    """Two inputs, each embedded by itself, and an MLP of both: -> [..., output_dim].

    Attributes:
      hidden_dim: width of every layer; the embeddings are half as wide.
    """

    hidden_dim: int
    output_dim: int

    @nn.compact
    def __call__(self, one: jax.Array, other: jax.Array) -> jax.Array:
        embedded = Stream(self.hidden_dim, name="first")(one), Stream(self.hidden_dim, name="second")(other)
        return MLP((self.hidden_dim, self.output_dim))(jnp.concatenate(embedded, -1))


class ForwardMap(nn.Module):
    """F(s, a, z) of two networks: observations [..., O], actions [..., A], latents [..., D] -> [2, ..., D]."""

    hidden_dim: int
    frequencies: int = 0

    @nn.compact
    def __call__(self, observations: jax.Array, actions: jax.Array, latents: jax.Array) -> jax.Array:
        observations = with_waves(observations, self.frequencies)
        one = jnp.concatenate([observations, actions], -1)
        other = jnp.concatenate([observations, latents], -1)
        return jnp.stack([
            TwoStreams(self.hidden_dim, latents.shape[-1], name=f"member_{i}")(one, other) for i in range(2)
        ])


class BackwardMap(nn.Module):
    """B(s) before it is brought to length sqrt(D): observations [..., O] -> [..., latent_dim]."""

    hidden_dim: int
    latent_dim: int
    frequencies: int = 0

    @nn.compact
    def __call__(self, observations: jax.Array) -> jax.Array:
        observations = with_waves(observations, self.frequencies)
        return MLP((self.hidden_dim, self.latent_dim))(tanh_layer(observations, self.hidden_dim))


class LatentPolicy(nn.Module):
    """pi(s, z): observations [..., O], latents [..., D] -> Deterministic over actions [..., action_dim] in (-1, 1)."""

    hidden_dim: int
    action_dim: int
    frequencies: int = 0

    @nn.compact
    def __call__(self, observations: jax.Array, latents: jax.Array) -> Deterministic:
        observations = with_waves(observations, self.frequencies)
        other = jnp.concatenate([observations, latents], -1)
        return Deterministic(jnp.tanh(TwoStreams(self.hidden_dim, self.action_dim)(observations, other)))
