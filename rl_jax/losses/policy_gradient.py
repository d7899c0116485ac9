"""The clipped policy-gradient loss, and the two losses that go with it; all reduce by a mask and return (loss, info).

Schulman et al. 2017, "Proximal Policy Optimization Algorithms" (PPO), arXiv 1707.06347. Terms [...] are tokens, time
steps or the rows of a minibatch; a mask says which of them count, `losses.aggregation` how they become one number. A
divergence from a reference policy is a loss of its own, which the caller adds.
"""

import chex
import jax
import jax.numpy as jnp

from rl_jax.losses.aggregation import aggregate

Info = dict[str, jax.Array]  # scalars by the names of metrics; no gradient flows through them


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
    """Aggregates -min(r A, clip(r, 1 - clip_low, 1 + clip_high) A) with r = exp(log_prob - old_log_prob).

    Where the data are those of the policy that learns, and make one update, r is 1 and no clip acts.

    Args:
      log_prob: [...], log pi(a|s) of the policy that learns; the gradient goes through it alone. Of an action with
        many dimensions it is their sum, or their mean where the ratio is to be one of mean log-densities (DDPO, arXiv
        2305.13301; RLCM, arXiv 2404.03673).
      old_log_prob: [...], of the policy that acted.
      advantages: [...].
      mask: [...], see `aggregate`.
      clip_low: how far r may fall below 1 and still be rewarded; infinity for no clip.
      clip_high: how far r may rise above 1 and still be rewarded; infinity for no clip.
      dual_clip: above 1; at a negative advantage a term is at most dual_clip |A|, whatever r is. None for no bound.
      aggregation: see `aggregate`.

    Returns:
      (scalar loss, info): `actor/loss`; `actor/approx_kl`, the mean of r - 1 - log r, which estimates KL(old || new);
      `actor/clip_fraction`, the share of terms whose r lies outside the clip.

    Source: PPO, equation 7; the two clips are DAPO's (Yu et al. 2025, arXiv 2503.14476), the dual clip Ye et al.'s 2020
    (arXiv 1912.09729); the estimate of the divergence is Schulman's k3.
    """
    chex.assert_equal_shape([log_prob, old_log_prob, advantages, mask])
    chex.assert_type([log_prob, old_log_prob, advantages, mask], float)
    old_log_prob, advantages = jax.lax.stop_gradient((old_log_prob, advantages))
    # What lies under the mask may overflow, and infinity times zero is not zero.
    log_ratio = jnp.where(mask > 0, log_prob - old_log_prob, 0.0)
    ratio = jnp.exp(log_ratio)
    clipped = jnp.clip(ratio, 1.0 - clip_low, 1.0 + clip_high)
    objective = jnp.minimum(ratio * advantages, clipped * advantages)  # PPO, equation 7
    if dual_clip is not None:  # Ye et al., equation 5
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
    """Aggregates minus the policy's entropy, which keeps the policy from becoming deterministic too soon.

    Args:
      entropy: [...], in nats.
      mask: [...], see `aggregate`.
      aggregation: see `aggregate`.

    Returns:
      (scalar loss, info): `actor/entropy`, the mean over all terms.

    Source: PPO, S in equation 9.
    """
    chex.assert_equal_shape([entropy, mask])
    chex.assert_type([entropy, mask], float)
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
    """Aggregates max((V - R)^2, (clip(V, V_old - clip, V_old + clip) - R)^2); it is not halved.

    Args:
      values: [...], of the network that learns; the gradient goes through them alone.
      old_values: [...], of the network when the data were collected.
      returns: [...], the targets.
      mask: [...], see `aggregate`.
      clip: in the unit of the values; infinity for no clip, which leaves the squared error.
      aggregation: see `aggregate`.

    Returns:
      (scalar loss, info): `value/loss`; `value/mean`, the mean over all terms.

    Source: PPO, the squared error in equation 9. Its clip is of OpenAI's baselines, `ppo2`, and not in the paper:
    Engstrom et al. 2020 (arXiv 2005.12729), section 3.
    """
    chex.assert_equal_shape([values, old_values, returns, mask])
    chex.assert_type([values, old_values, returns, mask], float)
    old_values, returns = jax.lax.stop_gradient((old_values, returns))
    clipped = jnp.clip(values, old_values - clip, old_values + clip)
    errors = jnp.maximum(jnp.square(values - returns), jnp.square(clipped - returns))
    loss = aggregate(errors, mask, aggregation)
    return loss, {"value/loss": loss, "value/mean": jax.lax.stop_gradient(aggregate(values, mask, "token_mean"))}
