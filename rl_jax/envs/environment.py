"""Pure-JAX environments: one environment as two pure functions, which callers vmap over copies and scan over time.

A time-out (`truncated`) is not a terminal (`terminated`): values bootstrap through the first and stop at the second,
so a step always hands out the observation that it led to, also where the next episode begins at once.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

Key = jax.Array
PyTree = Any


class TimeStep(NamedTuple):
    """What one step gave.

    Attributes:
      observation: what it led to, before any restart.
      reward: float32 scalar.
      terminated: bool scalar, the episode ended in a terminal state.
      truncated: bool scalar, the episode ended by its time limit alone.
    """

    observation: jax.Array
    reward: jax.Array
    terminated: jax.Array
    truncated: jax.Array


class Environment(NamedTuple):
    """One environment, of discrete actions unless its maker says otherwise.

    Attributes:
      reset: key -> (state, observation), the start of an episode.
      step: (state, action, key) -> (state, TimeStep).
      num_actions: how many actions there are; of continuous ones, the numbers in one.
      horizon: most steps an episode has.
    """

    reset: Callable[[Key], tuple[PyTree, jax.Array]]
    step: Callable[[PyTree, jax.Array, Key], tuple[PyTree, TimeStep]]
    num_actions: int
    horizon: int


def step_or_restart(
    environment: Environment, state: PyTree, action: jax.Array, key: Key
) -> tuple[PyTree, jax.Array, TimeStep]:
    """One step with `action`, a scalar int32, and the start of the next episode where it ended this one.

    Returns:
      (state, observation [*O] to act on next, the TimeStep with the observation [*O] that the step led to).
    """
    step_key, reset_key = jax.random.split(key)
    stepped, time_step = environment.step(state, action, step_key)
    done = time_step.terminated | time_step.truncated
    fresh = environment.reset(reset_key)
    return *restarted(done, fresh, (stepped, time_step.observation)), time_step


def restarted(end: jax.Array, fresh: PyTree, stepped: PyTree) -> PyTree:
    """`fresh`, the start of an episode, where `end`, a bool scalar, and `stepped` elsewhere."""
    return jax.tree.map(lambda new, old: jnp.where(end, new, old), fresh, stepped)


def ending_at_the_horizon(environment: Environment) -> Environment:
    """The same environment where a time-out is a terminal: the horizon is part of the problem, and nothing is earned
    after it, so a learner that bootstraps through time-outs does not do so here."""

    def step(state: PyTree, action: jax.Array, key: Key) -> tuple[PyTree, TimeStep]:
        state, stepped = environment.step(state, action, key)
        ends = stepped.terminated | stepped.truncated
        return state, stepped._replace(terminated=ends, truncated=jnp.zeros_like(ends))

    return environment._replace(step=step)


def check_sticky(sticky: float) -> None:
    """Raises ValueError where `sticky` is not a probability below 1."""
    if not 0.0 <= sticky < 1.0:
        raise ValueError(f"sticky is {sticky}: give a probability, at least 0 and below 1")


def sticky_action(
    action: jax.Array, previous_action: jax.Array, time: jax.Array, sticky: float, key: Key
) -> jax.Array:
    """The action that is executed, an int32 scalar: with probability `sticky` the previous one, but never at an
    episode's first step (Laidlaw et al. 2023, arXiv 2312.08369, section 4)."""
    repeats = (jax.random.uniform(key) < sticky) & (time > 0)
    return jnp.where(repeats, previous_action, jnp.asarray(action, jnp.int32))
