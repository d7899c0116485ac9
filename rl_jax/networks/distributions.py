"""Distributions over actions, which policies return: all have `mode` and `sample`, those with a density `log_prob`.

`sample` takes a temperature that scales the noise: 1 draws from the distribution, 0 gives the mode.
"""

import math
from typing import NamedTuple

import chex
import jax
import jax.numpy as jnp

from rl_jax.core.program import Key

LARGEST = 1.0 - 2.0**-24  # float32's largest number below 1, where arctanh is finite


class Deterministic(NamedTuple):
    """One action for certain.

    Attributes:
      actions: [..., A].
    """

    actions: jax.Array

    def mode(self) -> jax.Array:
        """The action, [..., A]."""
        return self.actions

    def sample(self, key: Key, temperature: jax.Array | float = 1.0) -> jax.Array:
        """The action, [..., A], whatever the key and the temperature."""
        del key, temperature
        return self.actions


class Draws(NamedTuple):
    """M equally likely actions, such as samples of a policy that were drawn ahead.

    Attributes:
      actions: [..., M, A].
    """

    actions: jax.Array

    def mode(self) -> jax.Array:
        """The first of them, [..., A]."""
        return self.actions[..., 0, :]

    def sample(self, key: Key, temperature: jax.Array | float = 1.0) -> jax.Array:
        """One of them, [..., A], whatever the temperature."""
        del temperature
        count = self.actions.shape[-2]
        chosen = jax.nn.one_hot(jax.random.randint(key, self.actions.shape[:-2], 0, count), count)
        return jnp.sum(self.actions * chosen[..., None], -2)


class UnitGaussian(NamedTuple):
    """A Gaussian of a constant variance, of which the mean alone is learned and acted upon: regression as likelihood.

    Attributes:
      mean: [..., A].
    """

    mean: jax.Array

    def mode(self) -> jax.Array:
        """The mean, [..., A]."""
        return self.mean

    def sample(self, key: Key, temperature: jax.Array | float = 1.0) -> jax.Array:
        """The mean, [..., A], whatever the key and the temperature: the variance is a device of the loss alone."""
        del key, temperature
        return self.mean

    def log_prob(self, actions: jax.Array) -> jax.Array:
        """-|a - mean|^2, [...], at actions [..., A]: without the constants of a density.

        Source: CPL (Hejna et al. 2023), arXiv 2310.13639, the authors' code.
        """
        chex.assert_equal_shape([actions, self.mean])
        return -jnp.sum(jnp.square(actions - self.mean), -1)


class Gaussian(NamedTuple):
    """A diagonal Gaussian whose samples are clipped to the box [-1, 1], as IQL's authors do.

    Attributes:
      mean: [..., A].
      log_std: [..., A] or [A], logarithm of the standard deviation.
    """

    mean: jax.Array
    log_std: jax.Array

    def mode(self) -> jax.Array:
        """The mean, clipped to the box: [..., A]."""
        return jnp.clip(self.mean, -1.0, 1.0)

    def sample(self, key: Key, temperature: jax.Array | float = 1.0) -> jax.Array:
        """A draw, its deviation times `temperature`, clipped to the box: [..., A]."""
        return jnp.clip(self.from_noise(temperature * jax.random.normal(key, self.mean.shape)), -1.0, 1.0)

    def from_noise(self, noise: jax.Array) -> jax.Array:
        """The draw before the clip, [..., A], that belongs to standard normal noise [..., A]: what `log_prob` is of."""
        return self.mean + jnp.exp(self.log_std) * noise

    def log_prob(self, actions: jax.Array) -> jax.Array:
        """Log density before the clip, [...], at actions [..., A]."""
        chex.assert_equal_shape([actions, self.mean])
        return jnp.sum(_gaussian_log_density(actions, self.mean, self.log_std), -1)

    def entropy(self) -> jax.Array:
        """Entropy before the clip in nats, [...]."""
        log_std = jnp.broadcast_to(self.log_std, self.mean.shape)
        return jnp.sum(log_std + 0.5 * math.log(2.0 * math.pi * math.e), -1)


class SquashedGaussian(NamedTuple):
    """tanh(u) of a diagonal Gaussian u, the policy of soft actor-critic.

    Source: Haarnoja et al. 2018, arXiv 1812.05905, appendix C.

    Attributes:
      mean, log_std: [..., A], of u.
    """

    mean: jax.Array
    log_std: jax.Array

    def mode(self) -> jax.Array:
        """tanh(mean), [..., A]: what a sample is without noise. It is the median, and the mode of a narrow Gaussian."""
        return jnp.tanh(self.mean)

    def sample(self, key: Key, temperature: jax.Array | float = 1.0) -> jax.Array:
        """A draw, the deviation of u times `temperature`: [..., A]."""
        noise = jax.random.normal(key, self.mean.shape)
        return jnp.tanh(self.mean + temperature * jnp.exp(self.log_std) * noise)

    def sample_and_log_prob(self, key: Key, shape: tuple[int, ...] = ()) -> tuple[jax.Array, jax.Array]:
        """Draws and their log densities, which carry gradients to mean and log_std.

        Args:
          shape: of independent draws for each row.

        Returns:
          actions [*shape, ..., A] in (-1, 1), log_probs [*shape, ...].
        """
        noise = jax.random.normal(key, (*shape, *self.mean.shape))
        unsquashed = self.mean + jnp.exp(self.log_std) * noise
        return jnp.tanh(unsquashed), self._log_prob(unsquashed)

    def log_prob(self, actions: jax.Array) -> jax.Array:
        """Log density, [...], at actions [..., A] in [-1, 1]. The faces of the box, where u is infinite, count as the
        numbers next to them."""
        chex.assert_equal_shape_suffix([actions, self.mean], self.mean.ndim)
        return self._log_prob(jnp.arctanh(jnp.clip(actions, -LARGEST, LARGEST)))

    def _log_prob(self, unsquashed: jax.Array) -> jax.Array:
        """Equation 26 at tanh(u). log(1 - tanh(u)^2) is computed as 2 (log 2 - u - softplus(-2u)), which is exact where
        1 - tanh(u)^2 rounds to 0; codes that write log(1 - a^2 + 1e-6) differ from it near the box's faces."""
        log_slope = 2.0 * (math.log(2.0) - unsquashed - jax.nn.softplus(-2.0 * unsquashed))
        return jnp.sum(_gaussian_log_density(unsquashed, self.mean, self.log_std) - log_slope, -1)


def _gaussian_log_density(x: jax.Array, mean: jax.Array, log_std: jax.Array) -> jax.Array:
    """Of each dimension by itself, [..., A]."""
    standardised = (x - mean) * jnp.exp(-log_std)
    return -0.5 * jnp.square(standardised) - log_std - 0.5 * math.log(2.0 * math.pi)


class Categorical(NamedTuple):
    """A distribution over A actions, int32 in [0, A).

    Attributes:
      logits: [..., A], log probabilities up to a constant.
    """

    logits: jax.Array

    def mode(self) -> jax.Array:
        """The likeliest action, the first of equals: [...] int32."""
        return jnp.argmax(self.logits, -1).astype(jnp.int32)

    def sample(self, key: Key, temperature: jax.Array | float = 1.0) -> jax.Array:
        """A draw of softmax(logits / temperature): [...] int32."""
        return self.from_noise(temperature * jax.random.gumbel(key, self.logits.shape))

    def from_noise(self, noise: jax.Array) -> jax.Array:
        """The draw, [...] int32, that belongs to standard Gumbel noise [..., A]: for noise that is drawn ahead."""
        return Categorical(self.logits + noise).mode()

    def log_prob(self, actions: jax.Array) -> jax.Array:
        """log p(a), [...], of actions [...]."""
        # A product with a one-hot vector: the gradient of an index is a scatter, which is slow everywhere.
        chosen = jax.nn.one_hot(actions, self.logits.shape[-1], dtype=self.logits.dtype)
        return jnp.sum(chosen * jax.nn.log_softmax(self.logits), -1)

    def entropy(self) -> jax.Array:
        """Entropy in nats, [...]; logits of minus infinity, actions that never happen, add nothing."""
        log_probs = jax.nn.log_softmax(self.logits)
        return -jnp.sum(jnp.exp(log_probs) * jnp.where(jnp.isfinite(log_probs), log_probs, 0.0), -1)
