"""Ratios of two policies over the tokens of sequences: corrections for who sampled them, and GSPO's.

The policy that sampled (the behaviour) is never quite the one that trains: its parameters are older, or its kernels and
precision are others. The clipped objective is linear in the advantage, so a correction is a factor of the advantages or
of the mask, and no loss of its own. Arrays are [B, T], a row a sequence; ratios are of log-probs, and none but the one
of `sequence_log_ratio` has a gradient.
"""

import chex
import jax
import jax.numpy as jnp

LEVELS = ("token", "sequence")
LARGEST = 20.0  # of a log-ratio before exp


def truncated_weights(
    log_prob: jax.Array, behaviour_log_prob: jax.Array, mask: jax.Array, cap: float, level: str = "token"
) -> jax.Array:
    """min(pi / pi_behaviour, cap), what multiplies advantages, [B, T]; 0 where the mask is.

    Args:
      log_prob: of the policy that trains, before the update.
      behaviour_log_prob: of the policy that sampled.
      mask: 1 where it did.
      cap: above 0; infinity for the untruncated weight.
      level: "token", or "sequence" for the ratio of the whole sequence at each of its tokens.

    Raises:
      ValueError: the level is unknown.

    Source: truncated importance sampling (Ionides 2008); of sampler and trainer, Yao et al. 2025, "Your Efficient RL
    Framework Secretly Brings You Off-Policy RL Training".
    """
    total, _ = _log_ratio(log_prob, behaviour_log_prob, mask, level)
    weights = jnp.minimum(jnp.exp(jnp.clip(total, -LARGEST, LARGEST)), cap)
    return jax.lax.stop_gradient(jnp.where(mask > 0, weights, 0.0))


def kept_mask(
    log_prob: jax.Array, behaviour_log_prob: jax.Array, mask: jax.Array, low: float, high: float, level: str = "token"
) -> jax.Array:
    """The mask without what the two policies disagree about, [B, T]: ratios outside [low, high] are rejected.

    Args:
      low, high: bounds of the ratio of a token, or of the geometric mean of a sequence's.
      level: "token", or "sequence", which rejects whole sequences.

    Raises:
      ValueError: the level is unknown.

    Source: "token" is IcePop (Ling team 2025), "sequence" the geometric mask of Liu et al. 2025, "When Speed Kills
    Stability".
    """
    total, lengths = _log_ratio(log_prob, behaviour_log_prob, mask, level)
    ratio = jnp.exp(jnp.clip(total / lengths, -LARGEST, LARGEST))
    return jax.lax.stop_gradient(mask * ((ratio >= low) & (ratio <= high)))


def sequence_log_ratio(log_prob: jax.Array, old_log_prob: jax.Array, mask: jax.Array) -> jax.Array:
    """log s of each token, [B, T]: the mean log-ratio of its sequence in value, and its own log-prob in gradient.

    s_t = sg[s] pi(y_t) / sg[pi(y_t)] with s = exp(mean over the sequence of log pi - log pi_old); 0 where the mask is.

    Source: GSPO (Zheng et al. 2025, arXiv 2507.18071), equation 14 (GSPO-token), which has the gradient of equation 5
    where a sequence has one advantage.
    """
    total, lengths = _log_ratio(log_prob, old_log_prob, mask, "sequence")
    own = log_prob - jax.lax.stop_gradient(log_prob)
    return jnp.where(mask > 0, jax.lax.stop_gradient(total / lengths) + own, 0.0)


def _log_ratio(
    log_prob: jax.Array, other_log_prob: jax.Array, mask: jax.Array, level: str
) -> tuple[jax.Array, jax.Array]:
    """The log-ratio of each token or of its sequence, and of how many tokens it is the sum."""
    chex.assert_equal_shape([log_prob, other_log_prob, mask])
    chex.assert_type([log_prob, other_log_prob, mask], float)
    if level not in LEVELS:
        raise ValueError(f"the level of the ratio is {level!r}: choose {' or '.join(LEVELS)}")
    own = jnp.where(mask > 0, log_prob - other_log_prob, 0.0)
    if level == "token":
        return own, jnp.ones_like(own)
    shape = own.shape
    lengths = jnp.maximum(jnp.sum(mask > 0, -1, keepdims=True), 1).astype(own.dtype)
    return jnp.broadcast_to(jnp.sum(own, -1, keepdims=True), shape), jnp.broadcast_to(lengths, shape)
