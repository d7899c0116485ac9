"""Losses that fit a policy to data, weighted or constrained."""

import math

import chex
import jax
import jax.numpy as jnp


def gaussian_log_prob(actions: jax.Array, mean: jax.Array, log_std: jax.Array) -> jax.Array:
    """Log density of a diagonal Gaussian: actions and mean [B, A], log_std [A] or [B, A] -> [B]."""
    chex.assert_rank([actions, mean], 2)
    chex.assert_equal_shape([actions, mean])
    chex.assert_equal_shape_suffix([mean, log_std], 1)
    standardised = (actions - mean) * jnp.exp(-log_std)
    return jnp.sum(-0.5 * jnp.square(standardised) - log_std - 0.5 * math.log(2.0 * math.pi), -1)


def behavioural_cloning_loss(predicted: jax.Array, actions: jax.Array) -> jax.Array:
    """Mean squared error over batch and action dimensions: predicted and actions [B, A] -> scalar."""
    chex.assert_rank([predicted, actions], 2)
    chex.assert_equal_shape([predicted, actions])
    return jnp.mean(jnp.square(predicted - actions))


def masked_cloning_loss(predicted: jax.Array, actions: jax.Array, mask: jax.Array) -> jax.Array:
    """Mean squared error over batch, steps and action dimensions, the error of a masked step counting as zero.

    Args:
      predicted, actions: [B, K, A].
      mask: [B, K], 1 for a step and 0 for padding.
    """
    chex.assert_rank([predicted, actions, mask], [3, 3, 2])
    chex.assert_equal_shape([predicted, actions])
    chex.assert_equal_shape_prefix([predicted, mask], 2)
    return jnp.mean(mask[:, :, None] * jnp.square(predicted - actions))


def advantage_weights(advantages: jax.Array, temperature: float, max_weight: float) -> jax.Array:
    """min(exp(temperature * A), max_weight), [B]; no gradient flows through it. `temperature` is IQL's beta."""
    chex.assert_rank(advantages, 1)
    return jax.lax.stop_gradient(jnp.minimum(jnp.exp(temperature * advantages), max_weight))


def advantage_weighted_loss(log_probs: jax.Array, weights: jax.Array) -> jax.Array:
    """-mean(weight * log pi(a|s)): log_probs and weights [B] -> scalar.

    Source: advantage-weighted regression (Peng et al. 2019, arXiv 1910.00177); IQL, equation 7.
    """
    chex.assert_rank(log_probs, 1)
    chex.assert_equal_shape([log_probs, weights])
    return -jnp.mean(weights * log_probs)


def td3_bc_loss(q: jax.Array, predicted: jax.Array, actions: jax.Array, alpha: float) -> jax.Array:
    """-lambda * mean Q(s, pi(s)) + mean (pi(s) - a)^2 with lambda = alpha / mean |Q|, a constant for the gradient.

    Args:
      q: [B], Q(s, pi(s)).
      predicted: [B, A], pi(s).
      actions: [B, A], of the data.
      alpha: weight of Q; 2.5 in the paper.

    Source: TD3+BC (Fujimoto and Gu 2021, arXiv 2106.06860), equations 4 and 5.
    """
    chex.assert_rank(q, 1)
    chex.assert_equal_shape_prefix([q, predicted], 1)
    scale = jax.lax.stop_gradient(alpha / jnp.mean(jnp.abs(q)))
    return -scale * jnp.mean(q) + behavioural_cloning_loss(predicted, actions)


def squared_distance(predicted: jax.Array, actions: jax.Array) -> jax.Array:
    """|pi(s) - a|^2, summed over action dimensions: predicted and actions [B, A] -> [B]."""
    chex.assert_rank([predicted, actions], 2)
    chex.assert_equal_shape([predicted, actions])
    return jnp.sum(jnp.square(predicted - actions), -1)


def rebrac_loss(q: jax.Array, predicted: jax.Array, actions: jax.Array, penalty: float) -> jax.Array:
    """mean(penalty * |pi(s) - a|^2 - lambda * Q(s, pi(s))) with lambda = 1 / mean |Q|, a constant for the gradient.

    Args:
      q: [B], Q(s, pi(s)).
      predicted: [B, A], pi(s).
      actions: [B, A], of the data.
      penalty: beta_1 of the paper.

    Source: ReBRAC (Tarasov et al. 2023, arXiv 2305.09836); lambda, which the paper takes over from TD3+BC, and the sum
    over action dimensions, where TD3+BC has the mean, are the authors' code's.
    """
    chex.assert_rank(q, 1)
    chex.assert_equal_shape_prefix([q, predicted], 1)
    scale = jax.lax.stop_gradient(1.0 / jnp.mean(jnp.abs(q)))
    return jnp.mean(penalty * squared_distance(predicted, actions) - scale * q)
