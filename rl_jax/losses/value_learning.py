"""Regression targets and losses of value functions."""

import chex
import jax
import jax.numpy as jnp


def td_target(rewards: jax.Array, masks: jax.Array, next_values: jax.Array, discount: float) -> jax.Array:
    """One-step bootstrapped target r + discount * mask * V(s'), [B]; no gradient flows through it.

    Args:
      rewards: [B].
      masks: [B], 0 where s' is terminal, 1 elsewhere (also at a time-out).
      next_values: [B], V(s') or a backup over Q(s', .).
      discount: gamma in [0, 1].
    """
    chex.assert_rank(rewards, 1)
    chex.assert_equal_shape([rewards, masks, next_values])
    return jax.lax.stop_gradient(rewards + discount * masks * next_values)


def values_of_actions(q: jax.Array, actions: jax.Array) -> jax.Array:
    """Q(s, a), [...], of the values of all actions [..., A] and of actions [...] that broadcast to it."""
    # A product with a one-hot vector: the gradient of an index is a scatter, which is slow everywhere.
    return jnp.sum(q * jax.nn.one_hot(actions, q.shape[-1]), -1)


def squared_error(predictions: jax.Array, targets: jax.Array) -> jax.Array:
    """Mean over the batch of the squared error, summed over an ensemble: predictions [B] or [N, B], targets [B]."""
    chex.assert_rank(targets, 1)
    chex.assert_equal_shape_suffix([predictions, targets], 1)
    return jnp.mean(jnp.square(predictions - targets)) * (predictions.size // targets.size)


def expectile_loss(errors: jax.Array, expectile: float) -> jax.Array:
    """Mean of |expectile - 1(u < 0)| u^2 over errors u = target - prediction, [B] -> scalar.

    Its minimiser in the prediction is the expectile of the targets; 0.5 gives half the squared error.
    Source: IQL (Kostrikov et al. 2021, arXiv 2110.06169), equation 5 in section 4.1.
    """
    chex.assert_rank(errors, 1)
    weights = jnp.where(errors > 0, expectile, 1.0 - expectile)
    return jnp.mean(weights * jnp.square(errors))


def gumbel_loss(errors: jax.Array, beta: float, max_clip: float, scaled: bool = True) -> jax.Array:
    """Mean of exp(-m) (exp(z) - z - 1), z = min(u / beta, max_clip), errors u = target - prediction: [B] -> scalar.

    Where nothing is clipped its gradient vanishes at the prediction beta log mean exp(target / beta): the mean of the
    targets for a large beta, their maximum for a small one. Two stabilisers keep exp(z) from overflowing:

    - m = max(max z, -1) over the batch, a constant for the gradient. The whole gradient is scaled by exp(-m): its
      direction stays and its size changes from batch to batch, so losses of different batches do not compare.
    - max_clip. An error above beta * max_clip has no gradient at all: it no longer pulls the prediction up, which
      settles lower, where the other errors alone put it. If every error is that large, nothing moves.

    Args:
      errors: [B].
      beta: temperature above 0, in the unit of the errors.
      max_clip: the largest u / beta that still counts; infinity for no clip.
      scaled: whether exp(-m) stands before the loss; without it exp(z) overflows in float32 above z = 88.

    Source: XQL (Garg et al. 2023, arXiv 2301.02328), equation 11 and the appendix on numeric stability. The paper's
    listing clips at -max_clip too; the authors' code, which is followed here, does not.
    """
    chex.assert_rank(errors, 1)
    z = jnp.minimum(errors / beta, max_clip)
    if not scaled:
        return jnp.mean(jnp.exp(z) - z - 1.0)
    m = jax.lax.stop_gradient(jnp.maximum(jnp.max(z), -1.0))
    return jnp.mean(jnp.exp(z - m) - z * jnp.exp(-m) - jnp.exp(-m))
