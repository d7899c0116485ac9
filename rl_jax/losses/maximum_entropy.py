"""Policies squashed into the box, and the temperature that holds their entropy (soft actor-critic and its kin).

Haarnoja et al. 2018, "Soft Actor-Critic Algorithms and Applications", arXiv 1812.05905. Everything here is unreduced.
"""

import math

import chex
import jax
import jax.numpy as jnp


def squashed_log_prob(unsquashed: jax.Array, mean: jax.Array, log_std: jax.Array) -> jax.Array:
    """Log density at a = tanh(u) of the squashed Gaussian, [...]: unsquashed (u), mean and log_std [..., A].

    Source: arXiv 1812.05905, appendix C, equation 26. log(1 - tanh(u)^2) is computed as 2 (log 2 - u - softplus(-2u)),
    which is exact where 1 - a^2 rounds to 0; codes that write log(1 - a^2 + 1e-6) differ from it near the box's faces.
    """
    chex.assert_equal_shape([unsquashed, mean, log_std])
    chex.assert_type([unsquashed, mean, log_std], float)
    standardised = (unsquashed - mean) * jnp.exp(-log_std)
    gaussian = -0.5 * jnp.square(standardised) - log_std - 0.5 * math.log(2.0 * math.pi)
    log_slope = 2.0 * (math.log(2.0) - unsquashed - jax.nn.softplus(-2.0 * unsquashed))
    return jnp.sum(gaussian - log_slope, -1)


def sample_squashed(noise: jax.Array, mean: jax.Array, log_std: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Reparameterised actions tanh(mean + std * noise) and their log densities.

    Args:
      noise: [..., A], standard normal draws.
      mean: [..., A], of the Gaussian before it is squashed; it broadcasts against the noise.
      log_std: [..., A], of the same Gaussian; it broadcasts too.

    Returns:
      (actions [..., A] in (-1, 1), log_probs [...]); both carry gradients to mean and log_std.
    """
    mean, log_std = jnp.broadcast_to(mean, noise.shape), jnp.broadcast_to(log_std, noise.shape)
    unsquashed = mean + jnp.exp(log_std) * noise
    return jnp.tanh(unsquashed), squashed_log_prob(unsquashed, mean, log_std)


def temperature_loss(log_alpha: jax.Array, log_probs: jax.Array, target_entropy: float) -> jax.Array:
    """-log_alpha (log pi + target entropy), [B]: its descent raises alpha while the entropy is below its target.

    Args:
      log_alpha: scalar; the gradient goes through it alone.
      log_probs: [B], log pi(a|s) of the policy's actions.
      target_entropy: in nats.

    Source: arXiv 1812.05905, equation 18, with log alpha for alpha as in the authors' code.
    """
    chex.assert_rank([log_alpha, log_probs], [0, 1])
    chex.assert_type([log_alpha, log_probs], float)
    return -log_alpha * jax.lax.stop_gradient(log_probs + target_entropy)
