"""Policies: over actions in [-1, 1], and categorical ones over a number of actions."""

import functools
from collections.abc import Sequence
from typing import NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp

from rl_jax.core.program import Key, PyTree
from rl_jax.networks.encoders import encode
from rl_jax.networks.mlp import MLP, orthogonal

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


class Categorical(NamedTuple):
    """A distribution over A actions, int32 in [0, A).

    Attributes:
      logits: [..., A], log probabilities up to a constant.
    """

    logits: jax.Array

    def log_prob(self, actions: jax.Array) -> jax.Array:
        """log p(a), [...], of actions [...]."""
        # A product with a one-hot vector: the gradient of an index is a scatter, which is slow everywhere.
        chosen = jax.nn.one_hot(actions, self.logits.shape[-1], dtype=self.logits.dtype)
        return jnp.sum(chosen * jax.nn.log_softmax(self.logits), -1)

    def entropy(self) -> jax.Array:
        """In nats, [...]; logits of minus infinity, actions that never happen, add nothing."""
        log_probs = jax.nn.log_softmax(self.logits)
        return -jnp.sum(jnp.exp(log_probs) * jnp.where(jnp.isfinite(log_probs), log_probs, 0.0), -1)

    def mode(self) -> jax.Array:
        """The likeliest action, the first of equals: [...] int32."""
        return jnp.argmax(self.logits, -1).astype(jnp.int32)

    def sample(self, noise: jax.Array) -> jax.Array:
        """A draw by standard Gumbel noise [..., A]; by noise times a temperature, of softmax(logits / temperature)."""
        return Categorical(self.logits + noise).mode()


class ActorCritic(nn.Module):
    """A categorical policy and V(s): observations -> (logits [..., num_actions], values [...]).

    Both have hidden layers of their own on one encoder. Kernels are orthogonal with gain sqrt(2), of the policy's last
    layer 0.01 and of the value's 1; biases are zero (stable-baselines3's, and OpenAI's baselines before it).

    Attributes:
      encoder: of `networks.encoders.encode`; "none" reads vectors [..., O].
      activation: "relu" or "tanh", of the hidden layers.
    """

    hidden_dims: Sequence[int]
    num_actions: int
    encoder: str = "none"
    activation: str = "relu"

    @nn.compact
    def __call__(self, observations: jax.Array) -> tuple[jax.Array, jax.Array]:
        if self.activation not in ("relu", "tanh"):
            raise ValueError(f"activation is {self.activation!r}: choose relu or tanh")
        activate = {"relu": nn.relu, "tanh": nn.tanh}[self.activation]
        features = encode(observations, self.encoder, "orthogonal")

        def head(name: str, width: int, gain: float) -> jax.Array:
            x = features
            for i, hidden in enumerate(self.hidden_dims):
                x = activate(nn.Dense(hidden, kernel_init=orthogonal, name=f"{name}_Dense_{i}")(x))
            last = functools.partial(orthogonal, gain=gain)
            return nn.Dense(width, kernel_init=last, name=f"{name}_Dense_{len(self.hidden_dims)}")(x)

        return head("policy", self.num_actions, 0.01), jnp.squeeze(head("value", 1, 1.0), -1)
