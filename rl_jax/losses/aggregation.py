"""One number from unreduced terms, by a mask and a named aggregation."""

import chex
import jax
import jax.numpy as jnp

AGGREGATIONS = ("token_mean", "sequence_mean")


def aggregate(terms: jax.Array, mask: jax.Array, aggregation: str | float) -> jax.Array:
    """Reduces the terms that count to a scalar, which is 0 where none does.

    Args:
      terms: [...], tokens, time steps or rows of a minibatch. A term that does not count may be anything, NaN too.
      mask: [...], 1 where a term counts and 0 elsewhere.
      aggregation: "token_mean" is the mean over all terms, so that a long sequence weighs more. "sequence_mean" is the
        mean over the last axis, then over the sequences that have a term. A number divides the sum of all terms, so
        that no length acts at all.

    Raises:
      ValueError: the aggregation is unknown, or there are no sequences to take a mean of.

    Source: the mean over tokens is DAPO's (Yu et al. 2025, arXiv 2503.14476), the mean over sequences GRPO's (Shao et
    al. 2024, arXiv 2402.03300), the constant Dr. GRPO's (Liu et al. 2025, arXiv 2503.20783).
    """
    chex.assert_equal_shape([terms, mask])
    chex.assert_type([terms, mask], float)
    terms = jnp.where(mask > 0, terms, 0.0)
    if isinstance(aggregation, str) and aggregation not in AGGREGATIONS:
        raise ValueError(f"aggregation is {aggregation!r}: choose {', '.join(AGGREGATIONS)} or a number")
    if aggregation == "token_mean":
        return jnp.sum(terms) / jnp.maximum(jnp.sum(mask), 1.0)
    if aggregation == "sequence_mean":
        if terms.ndim < 2:
            raise ValueError(f"aggregation 'sequence_mean' of terms {terms.shape}: the last axis must be a sequence's")
        lengths = jnp.sum(mask, -1)
        means = jnp.sum(terms, -1) / jnp.maximum(lengths, 1.0)
        return jnp.sum(means) / jnp.maximum(jnp.sum(lengths > 0), 1.0)
    return jnp.sum(terms) / aggregation
