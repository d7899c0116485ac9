"""Advantages of actions that were taken: from rewards and values along the way, or from rewards of the same prompt."""

from typing import NamedTuple

import chex
import jax
import jax.numpy as jnp

UNROLL = 16  # steps of time in one iteration of the loop: an iteration's work is small beside its own cost


def generalized_advantages(
    rewards: jax.Array,
    masks: jax.Array,
    ends: jax.Array,
    values: jax.Array,
    next_values: jax.Array,
    discount: float,
    gae_lambda: float,
) -> jax.Array:
    """Generalised advantage estimates, [T, ...]; no gradient flows through them.

    A_t = delta_t + discount * gae_lambda * A_{t+1}, and A_t = delta_t at the end of an episode or of the data, with
    delta_t = r_t + discount * mask_t * V(s_{t+1}) - V(s_t).

    Args:
      rewards: [T, ...], time first.
      masks: [T, ...], 0 where s_{t+1} is terminal, 1 elsewhere (also at a time-out).
      ends: [T, ...] bool, whether the episode ended after step t, by a terminal or by time.
      values: [T, ...], V(s_t).
      next_values: [T, ...], V(s_{t+1}) of the state that step t led to: at an end the final one, and not the next
        episode's first, so that the values bootstrap through time-outs.
      discount: gamma in [0, 1].
      gae_lambda: in [0, 1]; 0 gives delta, 1 the return minus the value.

    Source: Schulman et al. 2016, "High-Dimensional Continuous Control Using Generalized Advantage Estimation", arXiv
    1506.02438, equation 16.
    """
    chex.assert_equal_shape([rewards, masks, ends, values, next_values])
    deltas = rewards + discount * masks * next_values - values
    decays = discount * gae_lambda * (1.0 - ends.astype(deltas.dtype))

    def backwards(later: jax.Array, step: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, jax.Array]:
        delta, decay = step
        advantage = delta + decay * later
        return advantage, advantage

    start = jnp.zeros_like(deltas[0])
    _, advantages = jax.lax.scan(backwards, start, (deltas, decays), reverse=True, unroll=UNROLL)
    return jax.lax.stop_gradient(advantages)


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
        return cls(jnp.zeros((num_prompts, size)), jnp.zeros(num_prompts, jnp.int32))


def per_prompt_advantages(
    statistics: PromptStatistics, prompts: jax.Array, rewards: jax.Array, *, min_count: int, clip: float
) -> tuple[PromptStatistics, jax.Array]:
    """Rewards less their prompt's mean, over its standard deviation, after they have been added to the statistics.

    A prompt of fewer than `min_count` rewards is normalised by mean and deviation of all of this batch. Where all
    rewards are equal advantages are 0.

    Args:
      prompts: [N] int32.
      rewards: [N].
      clip: advantages are cut to [-clip, clip].

    Returns:
      (statistics, advantages [N]).

    Source: DDPO, arXiv 2305.13301, section 4.3, and its code (`PerPromptStatTracker`).
    """
    chex.assert_equal_shape([prompts, rewards])
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
