"""What learns in pure-JAX environments: an agent whose step collects and updates, all of it on the device.

The environments' states, the observations under way and the episodes' statistics are part of `TrainState.extra`, so
that seeds, checkpoints and an exact resume are those of every other program.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from rl_jax.core.program import Key, Metrics, PyTree, TrainState
from rl_jax.envs.environment import Environment, TimeStep, restarted


class OnlineAgent(NamedTuple):
    """A control algorithm for one training run in one environment, made by `ppo(config, environment)` and its like.

    Making one computes nothing. So an environment with large tables can be made of `Program.resident` inside
    `Program.step`, and the tables come as an argument of the compiled step.

    Attributes:
      init: key -> TrainState, with the environments at the start of their first episodes.
      step: (state, key) -> (state, metrics): collects in all copies of the environment and updates.
      act: (params, observations [B, ...], key, temperature) -> actions [B] int32 (continuous ones [B, A] float32, not
        clipped); temperature 0 is the mode.
      learn: (state, Steps [T, N, ...], key) -> (state, metrics): the update of `step` alone, on steps that the agent's
        own policy took elsewhere, as in a simulator; None where there is no such thing.
    """

    init: Callable[[Key], TrainState]
    step: Callable[[TrainState, Key], tuple[TrainState, Metrics]]
    act: Callable[[PyTree, jax.Array, Key, jax.Array | float], jax.Array]
    learn: Callable[[TrainState, Any, Key], tuple[TrainState, Metrics]] | None = None


class Copies(NamedTuple):
    """N copies of an environment in the middle of their episodes.

    Attributes:
      states: leaves [N, ...].
      observations: [N, ...], to act on next.
      returns: [N] float32, undiscounted, of the episodes under way.
      lengths: [N] int32, likewise.
      last_return, last_length: float32 scalars, means over the episodes that ended in the last step in which one did;
        0 before.
    """

    states: PyTree
    observations: jax.Array
    returns: jax.Array
    lengths: jax.Array
    last_return: jax.Array
    last_length: jax.Array


class Steps(NamedTuple):
    """Steps of environments: leaves [T, N, ...] of a roll-out of N copies, [B, ...] of a batch or a buffer.

    Attributes:
      observations: what was acted on.
      actions: int32, or float32 where they are continuous.
      rewards: float32.
      masks: float32, 0 where `next_observations` is terminal and 1 elsewhere, also at a time-out.
      ends: bool, whether the episode ended.
      next_observations: what the step led to; at an end the episode's last and not the next one's first.
    """

    observations: jax.Array
    actions: jax.Array
    rewards: jax.Array
    masks: jax.Array
    ends: jax.Array
    next_observations: jax.Array


def start(environment: Environment, num_envs: int, key: Key) -> Copies:
    """Copies of an environment, each at the start of an episode."""
    states, observations = jax.vmap(environment.reset)(jax.random.split(key, num_envs))
    # Arrays of their own: the core donates the state, and two leaves in one buffer would be an error.
    observations = jnp.copy(observations)
    return Copies(
        states, observations, jnp.zeros(num_envs), jnp.zeros(num_envs, jnp.int32), jnp.zeros(()), jnp.zeros(())
    )


def collect(
    environment: Environment,
    copies: Copies,
    choose: Callable[[jax.Array, PyTree], jax.Array],
    draws: PyTree,
    key: Key,
) -> tuple[Copies, Steps, Metrics]:
    """T steps of all copies, each starting its next episode where one ends.

    Args:
      choose: (observations [N, ...], draws of this step) -> actions [N, ...].
      draws: leaves [T, ...], the policy's random numbers.

    Returns:
      (copies, steps, metrics): `episode/return` and `episode/length`, means over the episodes that ended in these
      steps and, where none did, what they were the last time; `episode/count`, how many ended.
    """
    num_steps, num_envs = len(jax.tree.leaves(draws)[0]), len(copies.lengths)
    step_keys, reset_keys = jax.random.split(key, (2, num_steps, num_envs))
    # The starts of all episodes that may begin, and the policy's draws, are made ahead in one call: random bits made
    # inside the loop over time, a few at a time, would take longer than all else in it.
    starts = jax.vmap(jax.vmap(environment.reset))(reset_keys)

    def one_step(carry: Any, inputs: Any) -> tuple[Any, Any]:
        states, observations, returns, lengths = carry
        draws, keys, fresh = inputs
        actions = choose(observations, draws)
        stepped, time_step = jax.vmap(environment.step)(states, actions, keys)
        ends = time_step.terminated | time_step.truncated
        returns, lengths = returns + time_step.reward, lengths + 1
        after = jax.vmap(restarted)(ends, fresh, (stepped, time_step.observation))
        carry = (*after, jnp.where(ends, 0.0, returns), jnp.where(ends, 0, lengths))
        return carry, (_row(observations, actions, time_step), returns, lengths)

    carry = (copies.states, copies.observations, copies.returns, copies.lengths)
    carry, (steps, returns, lengths) = jax.lax.scan(one_step, carry, (draws, step_keys, starts))
    count = jnp.sum(steps.ends)

    def mean_or_last(values: jax.Array, last: jax.Array) -> jax.Array:
        total = jnp.sum(jnp.where(steps.ends, values.astype(jnp.float32), 0.0))
        return jnp.where(count > 0, total / jnp.maximum(count, 1), last)

    last = mean_or_last(returns, copies.last_return), mean_or_last(lengths, copies.last_length)
    metrics = {"episode/return": last[0], "episode/length": last[1], "episode/count": count.astype(jnp.float32)}
    return Copies(*carry, *last), steps, metrics


def _row(observations: jax.Array, actions: jax.Array, time_step: TimeStep) -> Steps:
    masks = 1.0 - time_step.terminated.astype(jnp.float32)
    ends = time_step.terminated | time_step.truncated
    return Steps(observations, actions, time_step.reward, masks, ends, time_step.observation)
