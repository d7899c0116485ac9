"""Losses over the members of an ensemble."""

import chex
import jax
import jax.numpy as jnp


def gradient_similarity(gradients: jax.Array) -> jax.Array:
    """Cosines between all pairs of members' gradients, summed over pairs i != j and divided by N - 1, batch mean.

    It is N where all members agree, 0 where they are orthogonal on the average, and -N/(N-1) at its least.

    Args:
      gradients: [N, B, A], of Q_i(s, a) in a; N is 2 or more.

    Source: EDAC (An et al. 2021, arXiv 2110.01548), section 4, the ensemble similarity J_ES.
    """
    chex.assert_rank(gradients, 3)
    num_members = gradients.shape[0]
    # No norm: its slope at a gradient of zero is not finite.
    squares = jnp.sum(jnp.square(gradients), -1, keepdims=True)
    units = gradients * jax.lax.rsqrt(jnp.maximum(squares, 1e-20))
    # The sum over pairs i != j is that over all pairs less that of each member with itself.
    pairs = jnp.sum(jnp.square(units.sum(0)), -1) - jnp.sum(jnp.square(units), (0, 2))
    return jnp.mean(pairs) / (num_members - 1)
