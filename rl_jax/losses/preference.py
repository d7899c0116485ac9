"""Losses of preferences: which of two answers or segments is better, or whether one answer is good, unreduced.

A log-prob is that of a whole answer: the sum over its tokens or, where a loss says so, their mean. "w" is the chosen
(better) answer of a pair and "l" the rejected one. An implicit reward is r = beta (log pi - log pi_ref) (Rafailov et
al. 2023, equation 5, without the partition function). No gradient flows through a reference.
"""

import chex
import jax
import jax.numpy as jnp

log_sigmoid = jax.nn.log_sigmoid


def bradley_terry_loss(chosen: jax.Array, rejected: jax.Array, margin: jax.Array | float = 0.0) -> jax.Array:
    """-log sigmoid(r_w - r_l - m), the loss of a reward model.

    Args:
      chosen, rejected: [P], rewards.
      margin: [P] or a number, by how much the better one should lead.

    Returns:
      [P].

    Source: Bradley and Terry 1952; the margin is of Llama 2 (Touvron et al. 2023, arXiv 2307.09288, equation 2).
    """
    chex.assert_equal_shape([chosen, rejected])
    return -log_sigmoid(chosen - rejected - margin)


def preference_labels(first: jax.Array, second: jax.Array, temperature: float = 0.0) -> jax.Array:
    """The probability that the second of a pair is preferred, [P], of scores [P]: sigmoid((S_2 - S_1) / temperature).

    At a temperature of 0 it is 1 where the second has the larger score, 0 where the first has, and 0.5 for a tie.

    Source: CPL (Hejna et al. 2023), arXiv 2310.13639, equation 2; the authors' data have the limit at 0.
    """
    chex.assert_equal_shape([first, second])
    if temperature == 0.0:
        return 0.5 * (1.0 + jnp.sign(second - first))
    return jax.nn.sigmoid((second - first) / temperature)


def preferred(labels: jax.Array) -> tuple[jax.Array, jax.Array]:
    """(1 where the first of a pair is not the worse one, 1 where the second is not), two [P], of labels [P]."""
    return (labels <= 0.5).astype(jnp.float32), (labels >= 0.5).astype(jnp.float32)


def cpl_loss(first: jax.Array, second: jax.Array, labels: jax.Array, bias: float = 1.0) -> jax.Array:
    """-y log sigmoid(S_2 - bias S_1) - (1 - y) log sigmoid(S_1 - bias S_2).

    With a bias of 1 it is the cross-entropy of Bradley and Terry's model with soft labels: the loss of a reward model
    where S is a segment's sum of rewards.

    Args:
      first, second: [P], S of both segments of a pair: `segment_scores`.
      labels: y, [P] in [0, 1], the probability that the second one is preferred; 0.5 is a tie.
      bias: lambda in (0, 1], of the segment that is not preferred alone: below 1 a policy that makes both segments
        less likely by as much loses, since both S are below 0.

    Returns:
      [P].

    Source: Hejna et al. 2023 (CPL), arXiv 2310.13639, equations 5 and 6; soft labels and ties are the authors' code's.
    """
    chex.assert_equal_shape([first, second, labels])
    chex.assert_type([first, second, labels], float)
    as_second = bradley_terry_loss(second, bias * first)
    return labels * as_second + (1.0 - labels) * bradley_terry_loss(first, bias * second)


def segment_scores(terms: jax.Array, mask: jax.Array, scale: float = 1.0, discount: float = 1.0) -> jax.Array:
    """S = scale sum_t discount^t x_t over the steps of each segment, [B].

    Args:
      terms: x, [B, K]: log pi(a|s) in CPL, log pi - log pi_ref in CPL-KL, rewards in a reward model.
      mask: [B, K], 1 for a step and 0 for padding.
      scale: alpha, the temperature of the maximum-entropy problem; 1 for rewards.
      discount: gamma of the paper's sum; the authors' code has none within a segment.

    Source: CPL, equation 5.
    """
    chex.assert_rank(terms, 2)
    chex.assert_equal_shape([terms, mask])
    return scale * jnp.sum(mask * terms * discount ** jnp.arange(terms.shape[1]), -1)


def win_probability(first: jax.Array, second: jax.Array) -> jax.Array:
    """(q(a > b | a, b) + 1 - q(b > a | b, a)) / 2, the probability that a beats b, by a judge that reads both orders.

    Args:
      first: q(a > b | a, b), the probability of the answer that is read first, where that is a; any shape.
      second: q(b > a | b, a), that of the first one where it is b.

    Returns:
      The same shape, in [0, 1]; 1/2 where a is b, and 1 less it where they change places.

    Source: Pairwise-RL (Xu et al. 2025), arXiv 2504.04950.
    """
    chex.assert_equal_shape([first, second])
    return 0.5 * (first + 1.0 - second)


def judge_loss(chosen_first: jax.Array, rejected_first: jax.Array, consistency: float = 0.0) -> jax.Array:
    """The cross-entropy of the right label in both orders, and how far the orders are from saying the same.

    -(log q_wl + log(1 - q_lw)) / 2 + c (q_wl - (1 - q_lw))^2, where q_ab is the probability of the first label when
    the judge reads a and then b.

    Args:
      chosen_first: [P], log odds of q_wl, of the first label over the second.
      rejected_first: [P], log odds of q_lw.
      consistency: c.

    Returns:
      [P].

    Source: Pairwise-RL (Xu et al. 2025), arXiv 2504.04950; the exact form is not published, and this is ours.
    """
    chex.assert_equal_shape([chosen_first, rejected_first])
    crossed = -0.5 * (log_sigmoid(chosen_first) + log_sigmoid(-rejected_first))
    gap = jax.nn.sigmoid(chosen_first) - jax.nn.sigmoid(-rejected_first)
    return crossed + consistency * jnp.square(gap)


def log_ratios(log_probs: jax.Array, reference_log_probs: jax.Array) -> jax.Array:
    """log pi - log pi_ref of answers, any shape; times beta they are implicit rewards."""
    chex.assert_equal_shape([log_probs, reference_log_probs])
    return log_probs - jax.lax.stop_gradient(reference_log_probs)


def dpo_loss(chosen: jax.Array, rejected: jax.Array, label_smoothing: float = 0.0) -> jax.Array:
    """-(1 - e) log sigmoid(r_w - r_l) - e log sigmoid(r_l - r_w).

    Args:
      chosen, rejected: [P], implicit rewards.
      label_smoothing: e, the share of labels that are taken to be wrong: above 0 it is conservative DPO (cDPO).

    Returns:
      [P].

    Source: Rafailov et al. 2023, arXiv 2305.18290, equation 7; e is of Mitchell 2023, "A note on DPO with noisy
    preferences & relationship to IPO", equation 3.
    """
    chex.assert_equal_shape([chosen, rejected])
    margins = chosen - rejected
    return -(1.0 - label_smoothing) * log_sigmoid(margins) - label_smoothing * log_sigmoid(-margins)


def ipo_loss(chosen: jax.Array, rejected: jax.Array, beta: float) -> jax.Array:
    """(h_w - h_l - 1 / (2 beta))^2.

    Args:
      chosen, rejected: [P], log ratios h, of mean log-probs: the authors say that their results are of means, which
        the paper does not.
      beta: tau of the paper.

    Returns:
      [P].

    Source: Azar et al. 2023, arXiv 2310.12036, equation 17.
    """
    chex.assert_equal_shape([chosen, rejected])
    return jnp.square(chosen - rejected - 0.5 / beta)


def nca_loss(chosen: jax.Array, rejected: jax.Array) -> jax.Array:
    """-log sigmoid(r_w) - (log sigmoid(-r_w) + log sigmoid(-r_l)) / 2: the likelihood of the chosen does not fall.

    Args:
      chosen, rejected: [P], implicit rewards.

    Returns:
      [P].

    Source: Chen et al. 2024, arXiv 2402.05369, for two answers of which one is chosen.
    """
    chex.assert_equal_shape([chosen, rejected])
    return -log_sigmoid(chosen) - 0.5 * (log_sigmoid(-chosen) + log_sigmoid(-rejected))


def odds_ratio_loss(chosen: jax.Array, rejected: jax.Array) -> jax.Array:
    """-log sigmoid(log odds_w - log odds_l) with odds = p / (1 - p): ORPO's term beside the likelihood of the chosen.

    Args:
      chosen, rejected: [P], mean log-probs log p.

    Returns:
      [P].

    Source: Hong et al. 2024, arXiv 2403.07691, equations 4 and 7.
    """
    chex.assert_equal_shape([chosen, rejected])

    def log_odds(log_prob: jax.Array) -> jax.Array:
        log_prob = jnp.minimum(log_prob, -1e-6)  # an answer that is certain has infinite odds
        return log_prob - jnp.log(-jnp.expm1(log_prob))

    return -log_sigmoid(log_odds(chosen) - log_odds(rejected))


def simpo_loss(chosen: jax.Array, rejected: jax.Array, beta: float, gamma: float) -> jax.Array:
    """-log sigmoid(beta (log p_w - log p_l) - gamma), which needs no reference.

    Args:
      chosen, rejected: [P], mean log-probs.
      gamma: the margin by which the chosen one should lead.

    Returns:
      [P].

    Source: Meng et al. 2024, arXiv 2405.14734, equation 6.
    """
    return bradley_terry_loss(beta * chosen, beta * rejected, gamma)


def kto_loss(
    rewards: jax.Array,
    desirable: jax.Array,
    baseline: jax.Array,
    *,
    desirable_weight: float = 1.0,
    undesirable_weight: float = 1.0,
) -> jax.Array:
    """w_D (1 - sigmoid(r - z)) of a good answer and w_U (1 - sigmoid(z - r)) of a bad one.

    Args:
      rewards: [B], implicit.
      desirable: [B] bool.
      baseline: z, beta times `kto_divergence`.
      desirable_weight, undesirable_weight: w_D and w_U, for sets with more of one than of the other.

    Returns:
      [B].

    Source: Ethayarajh et al. 2024, arXiv 2402.01306, equations 7 and 8.
    """
    chex.assert_equal_shape([rewards, desirable])
    gains = jnp.where(desirable, 1.0, -1.0) * (rewards - jax.lax.stop_gradient(baseline))
    return jnp.where(desirable, desirable_weight, undesirable_weight) * jax.nn.sigmoid(-gains)


def kto_divergence(log_probs: jax.Array, reference_log_probs: jax.Array) -> jax.Array:
    """max(0, mean(log pi - log pi_ref)), a scalar without a gradient, which stands for KL(pi || pi_ref) in KTO.

    Args:
      log_probs, reference_log_probs: [B], of answers that belong to other prompts: those of the same batch, shifted.

    Source: Ethayarajh et al. 2024, section 4.2.
    """
    return jax.lax.stop_gradient(jnp.maximum(jnp.mean(log_ratios(log_probs, reference_log_probs)), 0.0))
