"""The clipped policy-gradient loss, and the losses that go with it.

Schulman et al. 2017, "Proximal Policy Optimization Algorithms" (PPO), arXiv 1707.06347. Terms [...] are tokens, time
steps or the rows of a minibatch; a mask says which of them count.
"""

import chex
import jax
import jax.numpy as jnp

Info = dict[str, jax.Array]
AGGREGATIONS = ("token_mean", "sequence_mean")


def aggregate(terms: jax.Array, mask: jax.Array, aggregation: str | float) -> jax.Array:
    """One number of the terms that count; 0 where none does.

    Args:
      terms, mask: [...], the mask 1 where a term counts and 0 elsewhere. A term that does not count may be anything.
      aggregation: "token_mean" is the mean over all terms, so that a long sequence weighs more. "sequence_mean" is the
        mean over the last axis, then over the sequences that have a term. A number divides the sum of all terms, so
        that no length acts at all.

    Raises:
      ValueError: the aggregation is unknown, or there are no sequences to take a mean of.

    Source: the two means are PPO's and GRPO's (Shao et al. 2024, arXiv 2402.03300); the constant is Dr. GRPO's (Liu et
    al. 2025, arXiv 2503.20783).
    """
    chex.assert_equal_shape([terms, mask])
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


def policy_gradient_loss(
    log_prob: jax.Array,
    old_log_prob: jax.Array,
    advantages: jax.Array,
    mask: jax.Array,
    *,
    clip_low: float,
    clip_high: float,
    dual_clip: float | None = None,
    aggregation: str | float = "token_mean",
) -> tuple[jax.Array, Info]:
    """-min(r A, clip(r, 1 - clip_low, 1 + clip_high) A) with r = exp(log_prob - old_log_prob), aggregated.

    Args:
      log_prob: [...], log pi(a|s) of the policy that learns; the gradient goes through it alone.
      old_log_prob: [...], of the policy that acted.
      advantages: [...].
      mask: [...], see `aggregate`.
      clip_low, clip_high: how far r may fall below and rise above 1 and still be rewarded; infinity for no clip.
      dual_clip: above 1; at a negative advantage a term is at most dual_clip |A|, whatever r is. None for no bound.
      aggregation: see `aggregate`.

    Returns:
      (loss, info): `actor/loss`; `actor/approx_kl`, the mean of r - 1 - log r, which estimates KL(old || new);
      `actor/clip_fraction`, the share of terms whose r lies outside the clip.

    Source: PPO, equation 7; the two clips are DAPO's (Yu et al. 2025, arXiv 2503.14476), the dual clip Ye et al.'s 2020
    (arXiv 1912.09729); the estimate of the divergence is Schulman's k3.
    """
    chex.assert_equal_shape([log_prob, old_log_prob, advantages, mask])
    old_log_prob, advantages = jax.lax.stop_gradient((old_log_prob, advantages))
    # What lies under the mask may overflow, and infinity times zero is not zero.
    log_ratio = jnp.where(mask > 0, log_prob - old_log_prob, 0.0)
    ratio = jnp.exp(log_ratio)
    clipped = jnp.clip(ratio, 1.0 - clip_low, 1.0 + clip_high)
    objective = jnp.minimum(ratio * advantages, clipped * advantages)
    if dual_clip is not None:
        objective = jnp.where(advantages < 0, jnp.maximum(objective, dual_clip * advantages), objective)
    loss = aggregate(-objective, mask, aggregation)
    outside = (ratio < 1.0 - clip_low) | (ratio > 1.0 + clip_high)
    return loss, {
        "actor/loss": loss,
        "actor/approx_kl": jax.lax.stop_gradient(aggregate(ratio - 1.0 - log_ratio, mask, "token_mean")),
        "actor/clip_fraction": aggregate(outside.astype(jnp.float32), mask, "token_mean"),
    }


def entropy_loss(
    entropy: jax.Array, mask: jax.Array, aggregation: str | float = "token_mean"
) -> tuple[jax.Array, Info]:
    """Minus the aggregated entropy of the policy, [...] in nats: what keeps it from becoming deterministic too soon.

    Returns:
      (loss, info): `actor/entropy`, the mean over all terms.
    """
    info = {"actor/entropy": jax.lax.stop_gradient(aggregate(entropy, mask, "token_mean"))}
    return -aggregate(entropy, mask, aggregation), info


def clipped_value_loss(
    values: jax.Array,
    old_values: jax.Array,
    returns: jax.Array,
    mask: jax.Array,
    *,
    clip: float,
    aggregation: str | float = "token_mean",
) -> tuple[jax.Array, Info]:
    """max((V - R)^2, (clip(V, V_old - clip, V_old + clip) - R)^2), aggregated; not halved.

    Args:
      values: [...], of the network that learns.
      old_values: [...], of the network when the data were collected.
      returns: [...], the targets.
      mask: [...], see `aggregate`.
      clip: in the unit of the values; infinity for no clip, which leaves the squared error.

    Returns:
      (loss, info): `value/loss`; `value/mean`, the mean over all terms.

    Source: OpenAI's baselines, `ppo2`, which PPO's paper does not describe; Engstrom et al. 2020 (arXiv 2005.12729),
    section 3.
    """
    chex.assert_equal_shape([values, old_values, returns, mask])
    old_values, returns = jax.lax.stop_gradient((old_values, returns))
    clipped = jnp.clip(values, old_values - clip, old_values + clip)
    errors = jnp.maximum(jnp.square(values - returns), jnp.square(clipped - returns))
    loss = aggregate(errors, mask, aggregation)
    return loss, {"value/loss": loss, "value/mean": jax.lax.stop_gradient(aggregate(values, mask, "token_mean"))}
