"""Learned policies judged by episodes in environments of pure functions."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from rl_jax.core.mesh import gather
from rl_jax.core.program import Key, TrainState
from rl_jax.envs.environment import Environment

# act(state of one run, observations [B, ...], time) -> actions [B]
Act = Callable[[TrainState, jax.Array, jax.Array], jax.Array]


def episode_returns(environment: Environment, act: Act, episodes: int) -> Callable[[TrainState, Key], np.ndarray]:
    """A function from the states of R runs and a key to the undiscounted returns of E episodes of each, [R, E]."""

    def of_run(state: TrainState, key: Key) -> jax.Array:
        reset_key, step_key = jax.random.split(key)
        states, observations = jax.vmap(environment.reset)(jax.random.split(reset_key, episodes))

        def one_step(carry: Any, inputs: Any) -> tuple[Any, None]:
            states, observations, active, total = carry
            time, keys = inputs
            states, stepped = jax.vmap(environment.step)(states, act(state, observations, time), keys)
            total = total + stepped.reward * active
            return (states, stepped.observation, active & ~(stepped.terminated | stepped.truncated), total), None

        carry = states, observations, jnp.ones(episodes, bool), jnp.zeros(episodes)
        keys = jax.random.split(step_key, (environment.horizon, episodes))
        (*_, total), _ = jax.lax.scan(one_step, carry, (jnp.arange(environment.horizon), keys))
        return total

    @jax.jit
    def of_runs(runs: TrainState, step: jax.Array, key: Key) -> jax.Array:
        return jax.vmap(lambda run: of_run(run.replace(step=step), key))(runs)

    # All runs share their step, which has no leading axis.
    return lambda state, key: gather(of_runs(state.replace(step=None), state.step, key))
