"""Probe environments: the smallest tasks that each ask one thing of an agent, with known answers.

Each has two actions and observations [1] of -1, 0 or 1. V is the optimal value at a discount gamma.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp

from rl_jax.envs.environment import Environment, Key, TimeStep


def constant_reward() -> Environment:
    """One step worth 1, whatever is done: V(0) = 1."""
    return _one_step(lambda key: jnp.zeros(()), lambda place, action: jnp.ones(()))


def observed_reward() -> Environment:
    """One step worth its observation, -1 or 1 by chance: V(s) = s."""
    return _one_step(_sign, lambda place, action: place)


def chosen_reward() -> Environment:
    """One step, action 1 worth 1 and action 0 worth -1: V(0) = 1."""
    return _one_step(lambda key: jnp.zeros(()), lambda place, action: 2.0 * action - 1.0)


def matched_reward() -> Environment:
    """One step, worth 1 where the action is as the observation (0 at -1, 1 at 1) and -1 elsewhere: V(s) = 1."""
    return _one_step(_sign, lambda place, action: place * (2.0 * action - 1.0))


def late_reward() -> Environment:
    """Two steps, at 0 and then at 1, the second worth 1: V(0) = gamma and V(1) = 1."""

    def reset(key: Key) -> tuple[jax.Array, jax.Array]:
        del key
        place = jnp.zeros(())
        return place, place[None]

    def step(state: jax.Array, action: jax.Array, key: Key) -> tuple[jax.Array, TimeStep]:
        del action, key
        place = jnp.ones(())
        return place, TimeStep(place[None], state, terminated=state == 1, truncated=jnp.zeros((), bool))

    return Environment(reset, step, num_actions=2, horizon=2)


def time_out() -> Environment:
    """Every step at 0 is worth 1, none is a terminal, and the time is out after three: V(0) = 1 / (1 - gamma)."""

    def reset(key: Key) -> tuple[jax.Array, jax.Array]:
        del key
        return jnp.zeros((), jnp.int32), jnp.zeros(1)

    def step(state: jax.Array, action: jax.Array, key: Key) -> tuple[jax.Array, TimeStep]:
        del action, key
        truncated = state + 1 >= 3
        return state + 1, TimeStep(jnp.zeros(1), jnp.ones(()), jnp.zeros((), bool), truncated)

    return Environment(reset, step, num_actions=2, horizon=3)


def _sign(key: Key) -> jax.Array:
    return jnp.where(jax.random.bernoulli(key), 1.0, -1.0)


def _one_step(
    place_of: Callable[[Key], jax.Array], reward_of: Callable[[jax.Array, jax.Array], jax.Array]
) -> Environment:
    """Episodes of one step at the place that `place_of(key)` draws, worth `reward_of(place, action)`."""

    def reset(key: Key) -> tuple[jax.Array, jax.Array]:
        place = place_of(key)
        return place, place[None]

    def step(state: jax.Array, action: jax.Array, key: Key) -> tuple[jax.Array, TimeStep]:
        del key
        reward = reward_of(state, action).astype(jnp.float32)
        return state, TimeStep(state[None], reward, terminated=jnp.ones((), bool), truncated=jnp.zeros((), bool))

    return Environment(reset, step, num_actions=2, horizon=1)
