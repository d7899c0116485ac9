"""Policies over actions in [-1, 1]."""

from collections.abc import Sequence

import flax.linen as nn
import jax
import jax.numpy as jnp

from rl_jax.core.program import Key, PyTree
from rl_jax.networks.mlp import MLP

OUTPUT_BOUND = 1e-3  # of initializer "small_output"; a policy's is a third of a value's


class DeterministicPolicy(nn.Module):
    """tanh(MLP(s)): observations [..., O] -> actions [..., A]."""

    hidden_dims: Sequence[int]
    action_dim: int
    initializer: str = "orthogonal"

    @nn.compact
    def __call__(self, observations: jax.Array) -> jax.Array:
        features = (*self.hidden_dims, self.action_dim)
        return jnp.tanh(MLP(features, initializer=self.initializer, output_bound=OUTPUT_BOUND)(observations))


class GaussianPolicy(nn.Module):
    """A Gaussian with mean tanh(MLP(s)) and one learned log standard deviation an action dimension.

    observations [..., O] -> (mean [..., A], log_std [A]). The density is not squashed: a sample can leave the box and
    is clipped by whoever acts. Source: IQL's authors' code.

    Attributes:
      squash_mean: whether tanh keeps the mean in the box; without it the mean is MLP(s), as in CORL's AWAC.
    """

    hidden_dims: Sequence[int]
    action_dim: int
    log_std_min: float = -5.0
    log_std_max: float = 2.0
    initializer: str = "orthogonal"
    squash_mean: bool = True

    @nn.compact
    def __call__(self, observations: jax.Array) -> tuple[jax.Array, jax.Array]:
        features = (*self.hidden_dims, self.action_dim)
        mean = MLP(features, initializer=self.initializer, output_bound=OUTPUT_BOUND)(observations)
        mean = jnp.tanh(mean) if self.squash_mean else mean
        log_std = self.param("log_std", nn.initializers.zeros, (self.action_dim,))
        return mean, jnp.clip(log_std, self.log_std_min, self.log_std_max)

    @nn.nowrap
    def act(self, params: PyTree, observations: jax.Array, key: Key, temperature: jax.Array | float) -> jax.Array:
        """A sample clipped to the box, its deviation times `temperature`: actions [..., A]; 0 is the mode."""
        mean, log_std = self.apply(params, observations)
        noise = jax.random.normal(key, mean.shape)
        return jnp.clip(mean + temperature * jnp.exp(log_std) * noise, -1.0, 1.0)


class SquashedGaussianPolicy(nn.Module):
    """The Gaussian of a policy that squashes its samples by tanh (`losses.maximum_entropy`); the mode is tanh(mean).

    observations [..., O] -> (mean [..., A], log_std [..., A]), both functions of the observation and unsquashed.
    Source: soft actor-critic (Haarnoja et al. 2018, arXiv 1812.05905), appendix C.

    Attributes:
      affine_log_std: whether log_std is scaled and shifted before its clip, by two learned numbers that start at 1 and
        -1 (CORL's CQL); the parameters are what has been added to those.
    """

    hidden_dims: Sequence[int]
    action_dim: int
    log_std_min: float = -20.0
    log_std_max: float = 2.0
    initializer: str = "orthogonal"
    affine_log_std: bool = False

    @nn.compact
    def __call__(self, observations: jax.Array) -> tuple[jax.Array, jax.Array]:
        features = (*self.hidden_dims, 2 * self.action_dim)
        heads = MLP(features, initializer=self.initializer, output_bound=OUTPUT_BOUND)(observations)
        mean, log_std = jnp.split(heads, 2, axis=-1)
        if self.affine_log_std:
            scale, shift = self.param("log_std", nn.initializers.zeros, (2,))
            log_std = (1.0 + scale) * log_std + shift - 1.0
        return mean, jnp.clip(log_std, self.log_std_min, self.log_std_max)
