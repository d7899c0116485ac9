"""GORP: greedy over random policy, in deterministic environments.

Laidlaw, Russell and Dragan 2023, "Bridging RL Theory and Practice with the Effective Horizon", arXiv 2304.09853,
algorithm 1. At each timestep every sequence of k actions is tried after the actions that are fixed already, and goes on
at random; the first action of the sequence with the best mean return over m episodes is fixed: T^2 A^k m environment
steps in all. `rl_jax/tabular/gorp_bound.py` bounds the m that it needs. One step is one attempt.
"""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from ml_collections import ConfigDict

from rl_jax.agents.timed import TimedAgent, check_search, episodes_of, in_chunks
from rl_jax.core.program import Key, Metrics, TrainState
from rl_jax.envs.environment import Environment


def gorp(config: ConfigDict, environment: Environment) -> TimedAgent:
    """GORP; `config` as `default_config`; the environment is deterministic.

    Raises:
      ValueError: a field is below 1.
    """
    check_search(config)
    horizon, num_sequences = environment.horizon, environment.num_actions**config.k
    digits = np.unravel_index(np.arange(num_sequences), (environment.num_actions,) * config.k)
    sequences = jnp.asarray(np.stack(digits, -1), jnp.int32)  # [A^k, k], the first action slowest
    chunk = -(-config.num_envs // num_sequences)  # episodes of each sequence that are played at once

    def init(key: Key) -> TrainState:
        del key
        extra = {"actions": jnp.zeros(horizon, jnp.int32), "samples": jnp.zeros((), jnp.int32)}
        return TrainState.create({}, {}, extra=extra)

    def play(actions: jax.Array, timestep: jax.Array, active: jax.Array, key: Key) -> tuple[jax.Array, jax.Array]:
        """(sum of the returns of each sequence [A^k], environment steps) of the active ones [C] of C episodes each;
        `actions` [T] are fixed before the timestep."""
        width = num_sequences * chunk
        action_key, reset_key, step_key = jax.random.split(key, 3)
        times = jnp.arange(horizon)[:, None, None]
        tried = sequences.T[jnp.clip(times[:, 0, 0] - timestep, 0, config.k - 1)][..., None]  # [T, A^k, 1]
        at_random = jax.random.randint(action_key, (horizon, num_sequences, chunk), 0, environment.num_actions)
        chosen = jnp.where(times < timestep + config.k, tried, at_random)
        chosen = jnp.where(times < timestep, actions[:, None, None], chosen).reshape(horizon, width)
        states, _ = jax.vmap(environment.reset)(jax.random.split(reset_key, width))

        def one_step(carry: Any, inputs: Any) -> tuple[Any, None]:
            states, active, returns, samples = carry
            states, stepped = jax.vmap(environment.step)(states, *inputs)
            returns, samples = returns + stepped.reward * active, samples + jnp.sum(active, dtype=jnp.int32)
            return (states, active & ~(stepped.terminated | stepped.truncated), returns, samples), None

        carry = states, jnp.tile(active, num_sequences), jnp.zeros(width), jnp.zeros((), jnp.int32)
        keys = jax.random.split(step_key, (horizon, width))
        (_, _, returns, samples), _ = jax.lax.scan(one_step, carry, (chosen, keys))
        return jnp.sum(returns.reshape(num_sequences, chunk), -1), samples

    def step(state: TrainState, key: Key) -> tuple[TrainState, Metrics]:
        num_episodes = episodes_of(config, state.step)

        def one_timestep(actions: jax.Array, inputs: Any) -> tuple[jax.Array, tuple[jax.Array, jax.Array]]:
            timestep, key = inputs

            def add(total: Any, active: jax.Array, key: Key) -> Any:
                return jax.tree.map(jnp.add, total, play(actions, timestep, active, key))

            nothing = jnp.zeros(num_sequences), jnp.zeros((), jnp.int32)
            returns, samples = in_chunks(add, nothing, num_episodes, chunk, key)
            best = jnp.argmax(returns)
            return actions.at[timestep].set(sequences[best, 0]), (returns[best] / num_episodes, samples)

        inputs = jnp.arange(horizon), jax.random.split(key, horizon)
        actions, (returns, samples) = jax.lax.scan(one_timestep, jnp.zeros(horizon, jnp.int32), inputs)
        extra = {"actions": actions, "samples": jnp.sum(samples, dtype=jnp.int32)}
        return state.replace(extra=extra), {"episode/return": returns[-1]}

    def act(state: TrainState, observations: jax.Array, time: jax.Array) -> jax.Array:
        return jnp.full(len(observations), state.extra["actions"][time])

    return TimedAgent(init, step, act, lambda state: state.extra["samples"], attempt_steps=1)


def default_config() -> ConfigDict:
    """The authors' search: m is doubled until the problem is solved."""
    return ConfigDict(
        {
            "name": "gorp",
            "k": 1,  # length of the sequences tried, A^k of them at each timestep
            "num_episodes": 1,  # m, of each sequence at each timestep, in the first attempt
            "growth": 2,  # m is multiplied by it at every further attempt
            "num_envs": 1024,  # episodes that are played at once, of all sequences together
        }
    )
