"""Losses that fit a policy to data, weighted or constrained. All are unreduced: the mean over rows is the caller's."""

import chex
import jax
import jax.numpy as jnp


def squared_distance(predicted: jax.Array, actions: jax.Array) -> jax.Array:
    """|pi(s) - a|^2, [B], summed over action dimensions: predicted and actions [B, A]."""
    chex.assert_rank([predicted, actions], 2)
    chex.assert_equal_shape([predicted, actions])
    chex.assert_type([predicted, actions], float)
    return jnp.sum(jnp.square(predicted - actions), -1)


def behavioural_cloning_loss(predicted: jax.Array, actions: jax.Array) -> jax.Array:
    """Squared error of the actions, averaged over action dimensions.

    Args:
      predicted: [B, A] or, of sequences, [B, K, A].
      actions: [B, A] or [B, K, A], of the data.

    Returns:
      [B] or [B, K].
    """
    chex.assert_rank([predicted, actions], {2, 3})
    chex.assert_equal_shape([predicted, actions])
    chex.assert_type([predicted, actions], float)
    return jnp.mean(jnp.square(predicted - actions), -1)


def advantage_weights(advantages: jax.Array, temperature: float, max_weight: float) -> jax.Array:
    """min(exp(temperature * A), max_weight), [B], of advantages [B]; no gradient flows through it.

    Args:
      advantages: [B].
      temperature: IQL's beta, at least 0; 0 gives weights of 1.
      max_weight: the largest weight.

    Source: IQL (Kostrikov et al. 2021, arXiv 2110.06169), the weights in equation 7; the bound is its code's.
    """
    chex.assert_rank(advantages, 1)
    chex.assert_type(advantages, float)
    return jax.lax.stop_gradient(jnp.minimum(jnp.exp(temperature * advantages), max_weight))


def advantage_weighted_loss(log_probs: jax.Array, weights: jax.Array) -> jax.Array:
    """-weight * log pi(a|s), [B]: log_probs and weights [B].

    Source: advantage-weighted regression (Peng et al. 2019, arXiv 1910.00177); IQL, equation 7.
    """
    chex.assert_rank(log_probs, 1)
    chex.assert_equal_shape([log_probs, weights])
    chex.assert_type([log_probs, weights], float)
    return -weights * log_probs


def td3_bc_loss(q: jax.Array, predicted: jax.Array, actions: jax.Array, alpha: float) -> jax.Array:
    """-lambda Q(s, pi(s)) + (pi(s) - a)^2, [B], with lambda = alpha / mean |Q|, a constant for the gradient.

    Args:
      q: [B], Q(s, pi(s)).
      predicted: [B, A], pi(s).
      actions: [B, A], of the data.
      alpha: weight of Q; 2.5 in the paper.

    Source: TD3+BC (Fujimoto and Gu 2021, arXiv 2106.06860), equations 4 and 5; the square is averaged over action
    dimensions, as in the authors' code.
    """
    chex.assert_rank([q, predicted], [1, 2])
    chex.assert_equal_shape_prefix([q, predicted], 1)
    chex.assert_type(q, float)
    scale = jax.lax.stop_gradient(alpha / jnp.mean(jnp.abs(q)))  # equation 5
    return behavioural_cloning_loss(predicted, actions) - scale * q


def rebrac_loss(q: jax.Array, predicted: jax.Array, actions: jax.Array, penalty: float) -> jax.Array:
    """penalty |pi(s) - a|^2 - lambda Q(s, pi(s)), [B], with lambda = 1 / mean |Q|, a constant for the gradient.

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
    chex.assert_type(q, float)
    scale = jax.lax.stop_gradient(1.0 / jnp.mean(jnp.abs(q)))
    return penalty * squared_distance(predicted, actions) - scale * q
