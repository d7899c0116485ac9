"""Advantages of actions that were taken, from rewards and values along the way."""

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
