"""Advantages of actions that were taken: from rewards and values along the way, or from rewards of the same prompt.

None is reduced, and no gradient flows through any. A step leads from s_{t-1} to s_t: `r_t` is its reward, `mask_t` is 0
where s_t is terminal, `end_t` says whether the episode ended there, `v_tm1` and `v_t` are the values of its two states.
"""

from typing import NamedTuple

import chex
import jax
import jax.numpy as jnp

UNROLL = 16  # steps of time in one iteration of the loop: an iteration's work is small beside its own cost


def generalized_advantages(
    r_t: jax.Array, mask_t: jax.Array, end_t: jax.Array, v_tm1: jax.Array, v_t: jax.Array, discount: float,
    gae_lambda: float,
) -> jax.Array:
    """Generalised advantage estimates, [T, ...].

    A_t = delta_t + discount * gae_lambda * A_{t+1}, and A_t = delta_t at the end of an episode or of the data, with
    delta_t = r_t + discount * mask_t * v_t - v_tm1.

    Args:
      r_t: [T, ...], time first.
      mask_t: [T, ...], 0 where s_t is terminal, 1 elsewhere (also at a time-out).
      end_t: [T, ...] bool, whether the episode ended with the step, by a terminal or by time.
      v_tm1: [T, ...], V(s_{t-1}).
      v_t: [T, ...], V(s_t) of the state that the step led to: at an end the final one, and not the next episode's
        first, so that the values bootstrap through time-outs.
      discount: gamma in [0, 1].
      gae_lambda: in [0, 1]; 0 gives delta, 1 the return minus the value.

    Source: Schulman et al. 2016, "High-Dimensional Continuous Control Using Generalized Advantage Estimation", arXiv
    1506.02438, equation 16.
    """
    chex.assert_equal_shape([r_t, mask_t, end_t, v_tm1, v_t])
    chex.assert_type([r_t, mask_t, end_t, v_tm1, v_t], [float, float, bool, float, float])
    deltas = r_t + discount * mask_t * v_t - v_tm1
    decays = discount * gae_lambda * (1.0 - end_t.astype(deltas.dtype))

    def backwards(later: jax.Array, step: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, jax.Array]:
        delta, decay = step
        advantage = delta + decay * later
        return advantage, advantage

    start = jnp.zeros_like(deltas[0])
    _, advantages = jax.lax.scan(backwards, start, (deltas, decays), reverse=True, unroll=UNROLL)
    return jax.lax.stop_gradient(advantages)


def group_advantages(rewards: jax.Array, valid: jax.Array | None = None) -> jax.Array:
    """(r - mean) / standard deviation within each group, [..., G]; 0 in a group of equal rewards.

    Args:
      rewards: [..., G], of G responses to the same prompt, G at least 2.
      valid: [..., G] bool, the rewards that are known; the others count nowhere, and their advantage is 0. All by
        default.

    Source: GRPO (Shao et al. 2024, arXiv 2402.03300), section 4.1. The deviation is the sample's (over G - 1) and 1e-6
    is added to it, as in verl; the paper says neither.
    """
    rewards, valid, number = _checked_group(rewards, valid)
    centred = rewards - _group_mean(rewards, valid, number)
    variance = jnp.sum(jnp.square(centred) * valid, -1, keepdims=True) / jnp.maximum(number - 1.0, 1.0)
    # The mean of equal rewards is rounded, and the small deviation blows the rest up.
    known = valid & ~zero_variance(rewards, valid)[..., None]
    return jax.lax.stop_gradient(jnp.where(known, centred / (jnp.sqrt(variance) + 1e-6), 0.0))


def centred_advantages(rewards: jax.Array, valid: jax.Array | None = None) -> jax.Array:
    """r - mean within each group, [..., G]; 0 in a group of equal rewards. Arguments as `group_advantages`.

    Source: Dr. GRPO (Liu et al. 2025, arXiv 2503.20783), section 3.2: dividing by the deviation would weigh prompts
    that are nearly always or nearly never solved more.
    """
    rewards, valid, number = _checked_group(rewards, valid)
    known = valid & ~zero_variance(rewards, valid)[..., None]
    return jax.lax.stop_gradient(jnp.where(known, rewards - _group_mean(rewards, valid, number), 0.0))


def leave_one_out_advantages(rewards: jax.Array, valid: jax.Array | None = None) -> jax.Array:
    """r less the mean of the others in its group, [..., G]; 0 where there is no other, and in a group of equal rewards.

    Arguments as `group_advantages`.

    Source: RLOO (Ahmadian et al. 2024, arXiv 2402.14740); Kool et al. 2019.
    """
    rewards, valid, number = _checked_group(rewards, valid)
    others = (jnp.sum(rewards, -1, keepdims=True) - rewards) / jnp.maximum(number - 1.0, 1.0)
    known = valid & ~zero_variance(rewards, valid)[..., None]
    return jax.lax.stop_gradient(jnp.where(known, rewards - others, 0.0))


def greedy_baseline_advantages(rewards: jax.Array, greedy: jax.Array) -> jax.Array:
    """r less the reward of the most likely response to the same prompt, [..., G].

    Args:
      rewards: [..., G], of G responses to the same prompt; G may be 1.
      greedy: [...], of the response that takes the most likely token everywhere.

    Source: ReMax (Li et al. 2024, arXiv 2310.10505), algorithm 1.
    """
    chex.assert_type([rewards, greedy], float)
    chex.assert_equal_shape([rewards[..., 0], greedy])
    return jax.lax.stop_gradient(rewards - greedy[..., None])


def zero_variance(rewards: jax.Array, valid: jax.Array | None = None) -> jax.Array:
    """Whether the known rewards of each group are all equal, [...] bool of [..., G]: such a group teaches nothing.

    They are compared with each other, for the deviation of equal rewards is not always 0 in float32.
    """
    valid = jnp.ones(rewards.shape, bool) if valid is None else valid
    largest = jnp.max(jnp.where(valid, rewards, -jnp.inf), -1)
    return largest <= jnp.min(jnp.where(valid, rewards, jnp.inf), -1)


def _checked_group(rewards: jax.Array, valid: jax.Array | None) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Rewards [..., G], 0 where they are not known; which are; how many of each group [..., 1]."""
    chex.assert_type(rewards, float)
    rewards = jnp.asarray(rewards)
    if rewards.ndim < 1 or rewards.shape[-1] < 2:
        raise ValueError(f"rewards have shape {rewards.shape}: the last axis is a group, give two or more of a prompt")
    valid = jnp.ones(rewards.shape, bool) if valid is None else jnp.asarray(valid)
    chex.assert_equal_shape([rewards, valid])
    return jnp.where(valid, rewards, 0.0), valid, jnp.sum(valid, -1, keepdims=True).astype(rewards.dtype)


def _group_mean(rewards: jax.Array, valid: jax.Array, number: jax.Array) -> jax.Array:
    return jnp.sum(rewards * valid, -1, keepdims=True) / jnp.maximum(number, 1.0)


def returns_to_go(rewards: jax.Array, mask: jax.Array, discount: float = 1.0) -> jax.Array:
    """G_t = r_t + discount * G_{t+1} over the tokens that count, [B, T]; 0 at the others.

    Args:
      rewards: [B, T], of tokens; what stands where the mask is 0 is left out.
      mask: [B, T], 1 where the policy acted. The tokens between are another's, such as what a tool answers: a return
        passes over them undiscounted.
      discount: gamma in [0, 1].

    Source: Williams 1992, REINFORCE; the return of a token is that of REINFORCE++ (below) and verl.
    """
    chex.assert_equal_shape([rewards, mask])
    chex.assert_type([rewards, mask], float)

    def backwards(later: jax.Array, step: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, jax.Array]:
        reward, acted = step
        here = jnp.where(acted > 0, reward + discount * later, later)
        return here, jnp.where(acted > 0, here, 0.0)

    start = jnp.zeros_like(rewards[:, 0])
    _, returns = jax.lax.scan(backwards, start, (rewards.T, mask.T), reverse=True, unroll=UNROLL)
    return jax.lax.stop_gradient(returns.T)


def token_generalized_advantages(
    rewards: jax.Array, values: jax.Array, mask: jax.Array, discount: float, gae_lambda: float
) -> jax.Array:
    """Generalised advantage estimates of the tokens that count, [B, T]; 0 at the others.

    `generalized_advantages` over the tokens that the policy sampled: A_t = r_t + discount * V_u - V_t + discount *
    gae_lambda * A_u with u the next of them. After the last one both V_u and A_u are 0: a response that was cut off
    ends there too, as in verl and TRL.

    Args:
      rewards: [B, T], of tokens; what stands where the mask is 0 is left out.
      values: [B, T], of what stands before each token.
      mask: [B, T], 1 where the policy acted; tokens between are another's, and are passed over.
      discount: gamma in [0, 1].
      gae_lambda: in [0, 1].
    """
    chex.assert_equal_shape([rewards, values, mask])
    chex.assert_type([rewards, values, mask], float)

    def backwards(later: tuple, step: tuple) -> tuple[tuple, jax.Array]:
        reward, value, acted = step
        next_value, next_advantage = later
        here = reward + discount * next_value - value + discount * gae_lambda * next_advantage
        later = jnp.where(acted, value, next_value), jnp.where(acted, here, next_advantage)
        return later, jnp.where(acted, here, 0.0)

    start = (jnp.zeros_like(rewards[:, 0]),) * 2
    _, found = jax.lax.scan(backwards, start, (rewards.T, values.T, mask.T > 0), reverse=True, unroll=UNROLL)
    return jax.lax.stop_gradient(found.T)


def whitened_advantages(returns: jax.Array, mask: jax.Array) -> jax.Array:
    """(G - mean) / standard deviation over all tokens of the global batch that count, [B, T]; 0 at the others.

    Args:
      returns: [B, T], see `returns_to_go`.
      mask: [B, T].

    Source: REINFORCE++ (Hu et al. 2025, arXiv 2501.03262); the variance is the sample's, and 1e-8 is added
    to it, as in verl.
    """
    chex.assert_equal_shape([returns, mask])
    chex.assert_type([returns, mask], float)
    counted = mask > 0
    number = jnp.sum(counted)
    mean = jnp.sum(jnp.where(counted, returns, 0.0)) / jnp.maximum(number, 1)
    centred = jnp.where(counted, returns - mean, 0.0)
    variance = jnp.sum(jnp.square(centred)) / jnp.maximum(number - 1, 1)
    equal = zero_variance(returns.reshape(-1), counted.reshape(-1))
    return jax.lax.stop_gradient(jnp.where(equal, 0.0, centred * jax.lax.rsqrt(variance + 1e-8)))


class PromptStatistics(NamedTuple):
    """The last rewards of each of P prompts.

    Attributes:
      rewards: float32 [P, size], a ring for each prompt.
      counts: int32 [P], how many rewards a prompt had.
    """

    rewards: jax.Array
    counts: jax.Array

    @classmethod
    def empty(cls, num_prompts: int, size: int) -> "PromptStatistics":
        """Statistics of `num_prompts` prompts that had no reward yet, of which the last `size` will be kept."""
        return cls(jnp.zeros((num_prompts, size)), jnp.zeros(num_prompts, jnp.int32))


def per_prompt_advantages(
    statistics: PromptStatistics, prompts: jax.Array, rewards: jax.Array, *, min_count: int, clip: float
) -> tuple[PromptStatistics, jax.Array]:
    """Adds rewards to the statistics, and gives them less their prompt's mean and over its standard deviation.

    A prompt of fewer than `min_count` rewards is normalised by mean and deviation of all of this batch. Where all
    rewards are equal advantages are 0.

    Args:
      statistics: of the batches before.
      prompts: [N] int32, numbers of prompts.
      rewards: [N].
      min_count: rewards that a prompt needs for statistics of its own.
      clip: advantages are cut to [-clip, clip].

    Returns:
      (statistics, advantages [N]).

    Source: DDPO, arXiv 2305.13301, section 4.3, and its code (`PerPromptStatTracker`).
    """
    chex.assert_rank([prompts, rewards], 1)
    chex.assert_equal_shape([prompts, rewards])
    chex.assert_type([prompts, rewards], [int, float])
    size = statistics.rewards.shape[1]
    same = prompts[:, None] == prompts[None, :]
    earlier = jnp.sum(jnp.tril(same, -1), 1)  # rows before this one of the same prompt
    total = jnp.sum(same, 1)
    places = jnp.where(total - earlier > size, size, (statistics.counts[prompts] + earlier) % size)
    kept = statistics.rewards.at[prompts, places].set(rewards, mode="drop")
    counts = statistics.counts.at[prompts].add(1)
    filled = (jnp.arange(size) < counts[:, None]).astype(jnp.float32)
    number = jnp.maximum(jnp.sum(filled, 1), 1.0)
    means = jnp.sum(kept * filled, 1) / number
    stds = jnp.sqrt(jnp.sum(jnp.square(kept - means[:, None]) * filled, 1) / number)
    enough = jnp.minimum(counts, size)[prompts] >= min_count
    mean = jnp.where(enough, means[prompts], jnp.mean(rewards))
    std = jnp.where(enough, stds[prompts], jnp.std(rewards))
    advantages = jnp.clip((rewards - mean) / (std + 1e-6), -clip, clip)
    return PromptStatistics(kept, counts), jax.lax.stop_gradient(advantages)
