"""Policies over actions in [-1, 1]."""

from collections.abc import Sequence

import flax.linen as nn
import jax
import jax.numpy as jnp

from rl_jax.networks.mlp import MLP


class DeterministicPolicy(nn.Module):
    """tanh(MLP(s)): observations [..., O] -> actions [..., A]."""

    hidden_dims: Sequence[int]
    action_dim: int
    initializer: str = "orthogonal"

    @nn.compact
    def __call__(self, observations: jax.Array) -> jax.Array:
        return jnp.tanh(MLP((*self.hidden_dims, self.action_dim), initializer=self.initializer)(observations))


class GaussianPolicy(nn.Module):
    """A Gaussian with mean tanh(MLP(s)) and one learned log standard deviation an action dimension.

    observations [..., O] -> (mean [..., A], log_std [A]). The density is not squashed: a sample can leave the box and
    is clipped by whoever acts. Source: IQL's authors' code.
    """

    hidden_dims: Sequence[int]
    action_dim: int
    log_std_min: float = -5.0
    log_std_max: float = 2.0
    initializer: str = "orthogonal"

    @nn.compact
    def __call__(self, observations: jax.Array) -> tuple[jax.Array, jax.Array]:
        mean = jnp.tanh(MLP((*self.hidden_dims, self.action_dim), initializer=self.initializer)(observations))
        log_std = self.param("log_std", nn.initializers.zeros, (self.action_dim,))
        return mean, jnp.clip(log_std, self.log_std_min, self.log_std_max)


class SquashedGaussianPolicy(nn.Module):
    """The Gaussian of a policy that squashes its samples by tanh (`losses.maximum_entropy`); the mode is tanh(mean).

    observations [..., O] -> (mean [..., A], log_std [..., A]), both functions of the observation and unsquashed.
    Source: soft actor-critic (Haarnoja et al. 2018, arXiv 1812.05905), appendix C.
    """

    hidden_dims: Sequence[int]
    action_dim: int
    log_std_min: float = -20.0
    log_std_max: float = 2.0
    initializer: str = "orthogonal"

    @nn.compact
    def __call__(self, observations: jax.Array) -> tuple[jax.Array, jax.Array]:
        heads = MLP((*self.hidden_dims, 2 * self.action_dim), initializer=self.initializer)(observations)
        mean, log_std = jnp.split(heads, 2, axis=-1)
        return mean, jnp.clip(log_std, self.log_std_min, self.log_std_max)
