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


def group_advantages(rewards: jax.Array) -> jax.Array:
    """(r - mean) / standard deviation within each group, [..., G]; 0 in a group of equal rewards.

    Args:
      rewards: [..., G], of G responses to the same prompt, G at least 2.

    Source: GRPO (Shao et al. 2024, arXiv 2402.03300), section 4.1. The deviation is the sample's (over G - 1) and 1e-6
    is added to it, as in verl; the paper says neither.
    """
    chex.assert_type(rewards, float)
    _check_group(rewards)
    advantages = (rewards - rewards.mean(-1, keepdims=True)) / (rewards.std(-1, ddof=1, keepdims=True) + 1e-6)
    # The mean of equal rewards is rounded, and the small deviation blows the rest up.
    equal = rewards.max(-1, keepdims=True) == rewards.min(-1, keepdims=True)
    return jax.lax.stop_gradient(jnp.where(equal, 0.0, advantages))


def leave_one_out_advantages(rewards: jax.Array) -> jax.Array:
    """r less the mean of the others in its group, [..., G].

    Args:
      rewards: [..., G], of G responses to the same prompt, G at least 2.

    Source: RLOO (Ahmadian et al. 2024, arXiv 2402.14740), equation 9; Kool et al. 2019.
    """
    chex.assert_type(rewards, float)
    _check_group(rewards)
    others = (rewards.sum(-1, keepdims=True) - rewards) / (rewards.shape[-1] - 1)
    return jax.lax.stop_gradient(rewards - others)


def _check_group(rewards: jax.Array) -> None:
    if rewards.ndim < 1 or rewards.shape[-1] < 2:
        raise ValueError(f"rewards have shape {rewards.shape}: the last axis is a group, give two or more of a prompt")


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
