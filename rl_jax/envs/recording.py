"""Data made in pure-JAX environments by scripted behaviours, and environments that show a policy its whole history."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

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


def record(environment: Environment, behaviour: Behaviour, num_episodes: int, key: Key) -> Episodes:
    """Episodes of a behaviour, each to its end; actions are one-hot, [N, num_actions] float32.

    Observations are those of the environment, [N, O] float32, with the true successors.
    """

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

    rows = jax.device_get(jax.jit(jax.vmap(one))(jax.random.split(key, num_episodes)))
    active = rows[-1]
    observations, actions, rewards, terminated, truncated, following, _ = (x[active] for x in rows)
    lengths = active.sum(1)
    return Episodes(
        observations=observations.astype(np.float32),
        actions=np.eye(environment.num_actions, dtype=np.float32)[actions],
        rewards=rewards.astype(np.float32), terminated=terminated, truncated=truncated,
        next_observations=following.astype(np.float32), starts=np.cumsum([0, *lengths[:-1]]).astype(np.int64),
    )


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
