"""Losses over the members of an ensemble, unreduced over the batch."""

import chex
import jax
import jax.numpy as jnp


def gradient_similarity(gradients: jax.Array) -> jax.Array:
    """Cosines between all pairs of members' gradients, summed over pairs i != j and divided by N - 1, [B].

    It is N where all members agree, 0 where they are orthogonal on the average, and -N / (N - 1) at its least.

    Args:
      gradients: [N, B, A], of Q_i(s, a) in a; N is 2 or more.

    Source: EDAC (An et al. 2021, arXiv 2110.01548), section 4: J_ES is its mean over the batch.
    """
    chex.assert_rank(gradients, 3)
    chex.assert_type(gradients, float)
    num_members = gradients.shape[0]
    # No norm: its slope at a gradient of zero is not finite.
    squares = jnp.sum(jnp.square(gradients), -1, keepdims=True)
    units = gradients * jax.lax.rsqrt(jnp.maximum(squares, 1e-20))
    # The sum over pairs i != j is that over all pairs less that of each member with itself.
    pairs = jnp.sum(jnp.square(units.sum(0)), -1) - jnp.sum(jnp.square(units), (0, 2))
    return pairs / (num_members - 1)
