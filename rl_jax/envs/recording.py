"""Data made in pure-JAX environments by scripted behaviours or policies, and environments with a history or a limit."""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.tree_util import Partial

from rl_jax.data.episodes import Episodes
from rl_jax.data.sequences import Sequences
from rl_jax.envs.environment import Environment, Key, PyTree, TimeStep


class Behaviour(NamedTuple):
    """Acts by the true state of an environment, and by what it remembers of the episode.

    Attributes:
      init: key -> memory at an episode's start.
      act: (memory, state, key) -> (memory, action, a scalar int32).
    """

    init: Callable[[Key], PyTree]
    act: Callable[[PyTree, PyTree, Key], tuple[PyTree, jax.Array]]


class Limited(NamedTuple):
    """A state of `limited`: the environment's own, what is seen of it [*O], and the steps that were done, int32."""

    inner: PyTree
    observation: jax.Array
    time: jax.Array


def limited(environment: Environment, steps: int) -> Environment:
    """The same environment with a time-out after so many steps, if it does not end before; its states are `Limited`."""

    def reset(key: Key) -> tuple[Limited, jax.Array]:
        inner, observation = environment.reset(key)
        return Limited(inner, observation, jnp.zeros((), jnp.int32)), observation

    def step(state: Limited, action: jax.Array, key: Key) -> tuple[Limited, TimeStep]:
        inner, given = environment.step(state.inner, action, key)
        time = state.time + 1
        truncated = given.truncated | (time >= steps) & ~given.terminated
        return Limited(inner, given.observation, time), given._replace(truncated=truncated)

    return environment._replace(reset=reset, step=step, horizon=min(steps, environment.horizon))


def following(policy: Partial) -> Behaviour:
    """Draws the actions of a policy, observation [*O] -> Categorical, in an environment whose states are `Limited`."""
    return Behaviour(Partial(_nothing), Partial(_drawn, policy))


def _nothing(key: Key) -> PyTree:
    del key
    return ()


def _drawn(policy: Partial, memory: PyTree, state: Limited, key: Key) -> tuple[PyTree, jax.Array]:
    return memory, policy(state.observation).sample(key)


def record(environment: Environment, behaviour: Behaviour, num_episodes: int, key: Key) -> Episodes:
    """Episodes of a behaviour, each to its end; actions are one-hot, [N, num_actions] float32.

    Observations are those of the environment, [N, O] float32, with the true successors. Behaviours that are `Partial`
    of the same functions are compiled once.
    """
    parts = Behaviour(*(part if isinstance(part, Partial) else Partial(part) for part in behaviour))
    rows = jax.device_get(_rows(environment, parts, jax.random.split(key, num_episodes)))
    active = rows[-1]
    observations, actions, rewards, terminated, truncated, following, _ = (x[active] for x in rows)
    lengths = active.sum(1)
    return Episodes(
        observations=observations.astype(np.float32),
        actions=np.eye(environment.num_actions, dtype=np.float32)[actions],
        rewards=rewards.astype(np.float32), terminated=terminated, truncated=truncated,
        next_observations=following.astype(np.float32), starts=np.cumsum([0, *lengths[:-1]]).astype(np.int64),
    )


@functools.partial(jax.jit, static_argnums=0)
def _rows(environment: Environment, behaviour: Behaviour, keys: Key) -> tuple[jax.Array, ...]:
    """Leaves [episodes, horizon, ...]; the last says which steps are an episode's."""

    def one(key: Key) -> tuple[jax.Array, ...]:
        reset_key, memory_key, steps_key = jax.random.split(key, 3)
        state, observation = environment.reset(reset_key)

        def step(carry: Any, key: Key) -> tuple[Any, tuple[jax.Array, ...]]:
            memory, state, observation, active = carry
            act_key, step_key = jax.random.split(key)
            memory, action = behaviour.act(memory, state, act_key)
            state, given = environment.step(state, action, step_key)
            row = (observation, action, given.reward, given.terminated, given.truncated, given.observation, active)
            ended = given.terminated | given.truncated
            return (memory, state, given.observation, active & ~ended), row

        carry = behaviour.init(memory_key), state, observation, jnp.ones((), bool)
        return jax.lax.scan(step, carry, jax.random.split(steps_key, environment.horizon))[1]

    return jax.vmap(one)(keys)


def remembering(environment: Environment) -> Environment:
    """The same environment, whose observation is all that has been seen and done since the episode began.

    It is `Sequences` of K = horizon + 1 steps without a batch axis, which end now: padding stands before them, and the
    last action and all returns-to-go are zero. Its actions are one-hot.
    """
    length = environment.horizon + 1

    def shown(observations: jax.Array, actions: jax.Array, time: jax.Array) -> Sequences:
        timesteps = time - length + 1 + jnp.arange(length, dtype=jnp.int32)
        return Sequences(
            observations, actions, jnp.zeros(length), jnp.maximum(timesteps, 0), (timesteps >= 0).astype(jnp.float32)
        )

    def reset(key: Key) -> tuple[PyTree, Sequences]:
        state, observation = environment.reset(key)
        observations = jnp.zeros((length, *observation.shape), jnp.float32).at[-1].set(observation)
        history = shown(observations, jnp.zeros((length, environment.num_actions)), jnp.zeros((), jnp.int32))
        return (state, history), history

    def step(state: PyTree, action: jax.Array, key: Key) -> tuple[PyTree, TimeStep]:
        inner, history = state
        inner, given = environment.step(inner, action, key)
        actions = history.actions.at[-1].set(jax.nn.one_hot(action, environment.num_actions))
        history = shown(
            jnp.roll(history.observations, -1, 0).at[-1].set(given.observation),
            jnp.roll(actions, -1, 0).at[-1].set(0.0), history.timesteps[-1] + 1,
        )
        return (inner, history), given._replace(observation=history)

    return environment._replace(reset=reset, step=step)
