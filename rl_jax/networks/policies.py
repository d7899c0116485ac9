"""Policies: modules that map observations to distributions over actions (rl_jax.networks.distributions).

`policy.apply(params, observations)` has `mode()`, `sample(key, temperature)` and, but for a deterministic one,
`log_prob(actions)`.
"""

from collections.abc import Sequence

import flax.linen as nn
import jax
import jax.numpy as jnp

from rl_jax.networks.dense import Dense
from rl_jax.networks.distributions import Categorical, Deterministic, Gaussian, SquashedGaussian, UnitGaussian
from rl_jax.networks.encoders import encode
from rl_jax.networks.initializers import Initializer, orthogonal
from rl_jax.networks.mlp import MLP


class DeterministicPolicy(nn.Module):
    """The action tanh(MLP(s)): observations [..., O] -> Deterministic over [..., action_dim]."""

    hidden_dims: Sequence[int]
    action_dim: int
    initializer: Initializer = orthogonal()
    output_initializer: Initializer | None = None

    @nn.compact
    def __call__(self, observations: jax.Array) -> Deterministic:
        mlp = MLP(
            (*self.hidden_dims, self.action_dim), initializer=self.initializer,
            output_initializer=self.output_initializer,
        )
        return Deterministic(jnp.tanh(mlp(observations)))


class RegressionPolicy(nn.Module):
    """The action tanh(MLP(s)), whose log_prob is the negative squared distance: observations -> UnitGaussian.

    Source: CPL (Hejna et al. 2023), arXiv 2310.13639, the authors' code.

    Attributes:
      dropout: of the hidden layers, where the call is not `deterministic`.
      encoder: of `networks.encoders.encode`; "none" reads vectors [..., O].
    """

    hidden_dims: Sequence[int]
    action_dim: int
    dropout: float = 0.0
    encoder: str = "none"
    initializer: Initializer = orthogonal(1.0)

    @nn.compact
    def __call__(self, observations: jax.Array, deterministic: bool = True) -> UnitGaussian:
        features = encode(observations, self.encoder, self.initializer)
        mlp = MLP((*self.hidden_dims, self.action_dim), initializer=self.initializer, dropout=self.dropout)
        return UnitGaussian(jnp.tanh(mlp(features, deterministic)))


class GaussianPolicy(nn.Module):
    """A Gaussian with mean tanh(MLP(s)) and one learned log standard deviation an action dimension.

    observations [..., O] -> Gaussian over [..., action_dim]. Source: IQL's authors' code.

    Attributes:
      squash_mean: whether tanh keeps the mean in the box; without it the mean is MLP(s), as in CORL's AWAC.
    """

    hidden_dims: Sequence[int]
    action_dim: int
    log_std_min: float = -5.0
    log_std_max: float = 2.0
    initializer: Initializer = orthogonal()
    output_initializer: Initializer | None = None
    squash_mean: bool = True

    @nn.compact
    def __call__(self, observations: jax.Array) -> Gaussian:
        mlp = MLP(
            (*self.hidden_dims, self.action_dim), initializer=self.initializer,
            output_initializer=self.output_initializer,
        )
        mean = mlp(observations)
        mean = jnp.tanh(mean) if self.squash_mean else mean
        log_std = self.param("log_std", nn.initializers.zeros, (self.action_dim,))
        return Gaussian(mean, jnp.clip(log_std, self.log_std_min, self.log_std_max))


class SquashedGaussianPolicy(nn.Module):
    """A Gaussian squashed by tanh, whose mean and deviation are functions of the observation.

    observations [..., O] -> SquashedGaussian over [..., action_dim]. Source: soft actor-critic (Haarnoja et al. 2018,
    arXiv 1812.05905), appendix C.

    Attributes:
      affine_log_std: whether log_std is scaled and shifted before its clip, by two learned numbers that start at 1 and
        -1 (CORL's CQL); the parameters are what has been added to those.
    """

    hidden_dims: Sequence[int]
    action_dim: int
    log_std_min: float = -20.0
    log_std_max: float = 2.0
    initializer: Initializer = orthogonal()
    output_initializer: Initializer | None = None
    affine_log_std: bool = False

    @nn.compact
    def __call__(self, observations: jax.Array) -> SquashedGaussian:
        mlp = MLP(
            (*self.hidden_dims, 2 * self.action_dim), initializer=self.initializer,
            output_initializer=self.output_initializer,
        )
        heads = mlp(observations)
        mean, log_std = jnp.split(heads, 2, axis=-1)
        if self.affine_log_std:
            scale, shift = self.param("log_std", nn.initializers.zeros, (2,))
            log_std = (1.0 + scale) * log_std + shift - 1.0
        return SquashedGaussian(mean, jnp.clip(log_std, self.log_std_min, self.log_std_max))


class ActorCritic(nn.Module):
    """A policy and V(s): observations -> (Categorical or Gaussian [..., num_actions], values [...]).

    Both have hidden layers of their own on one encoder. Kernels are orthogonal with gain sqrt(2), of the policy's last
    layer 0.01 and of the value's 1; biases are zero (stable-baselines3's, and OpenAI's baselines before it).

    Attributes:
      encoder: of `networks.encoders.encode`; "none" reads vectors [..., O].
      activation: "relu" or "tanh", of the hidden layers.
      continuous: whether the policy is a Gaussian, with one learned log standard deviation an action, 0 at first.
    """

    hidden_dims: Sequence[int]
    num_actions: int
    encoder: str = "none"
    activation: str = "relu"
    continuous: bool = False

    @nn.compact
    def __call__(self, observations: jax.Array) -> tuple[Categorical | Gaussian, jax.Array]:
        if self.activation not in ("relu", "tanh"):
            raise ValueError(f"activation is {self.activation!r}: choose relu or tanh")
        activate = {"relu": nn.relu, "tanh": nn.tanh}[self.activation]
        features = encode(observations, self.encoder, orthogonal())

        def head(name: str, width: int, gain: float) -> jax.Array:
            x = features
            for i, hidden in enumerate(self.hidden_dims):
                x = activate(Dense(hidden, **orthogonal()(x.shape[-1]), name=f"{name}_Dense_{i}")(x))
            last = orthogonal(gain)(x.shape[-1])
            return Dense(width, **last, name=f"{name}_Dense_{len(self.hidden_dims)}")(x)

        heads = head("policy", self.num_actions, 0.01), jnp.squeeze(head("value", 1, 1.0), -1)
        if self.continuous:
            return Gaussian(heads[0], self.param("log_std", nn.initializers.zeros, (self.num_actions,))), heads[1]
        return Categorical(heads[0]), heads[1]
