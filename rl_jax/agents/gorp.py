"""GORP: greedy over random policy, in deterministic environments.

Laidlaw, Russell and Dragan 2023, "Bridging RL Theory and Practice with the Effective Horizon", arXiv 2304.09853,
algorithm 1. At each timestep every sequence of k actions is tried after the actions that are fixed already, and goes on
at random; the first action of the sequence with the best mean return over m episodes is fixed: T^2 A^k m environment
steps in all. `rl_jax/tabular/gorp_bound.py` bounds the m that it needs.
"""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from ml_collections import ConfigDict

from rl_jax.agents.timed import TimedAgent, check_search, episodes_due, in_chunks
from rl_jax.core.program import Key, Metrics, TrainState
from rl_jax.envs.environment import Environment


def gorp(config: ConfigDict, environment: Environment, samples: int) -> TimedAgent:
    """GORP; `config` as `default_config`.

    Args:
      environment: deterministic, without sticky actions.
      samples: environment steps after which an attempt takes no more.

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

    def returns_of(actions: jax.Array, timestep: jax.Array, active: jax.Array, key: Key) -> tuple[jax.Array, jax.Array]:
        """(sum of the returns of each sequence over its active episodes [A^k], environment steps) of a chunk of
        episodes; actions [T], active [C]."""
        shape, width = (horizon, num_sequences, chunk), num_sequences * chunk
        action_key, reset_key, step_key = jax.random.split(key, 3)
        # Before the timestep what is fixed, then the sequence, then at random.
        times = jnp.arange(horizon)[:, None, None]
        planned = sequences.T[jnp.clip(times[:, 0, 0] - timestep, 0, config.k - 1)][..., None]  # [T, A^k, 1]
        at_random = jax.random.randint(action_key, shape, 0, environment.num_actions)
        chosen = jnp.where(times < timestep + config.k, planned, at_random)
        chosen = jnp.where(times < timestep, actions[:, None, None], chosen).reshape(horizon, width)
        states, _ = jax.vmap(environment.reset)(jax.random.split(reset_key, width))

        def one_step(carry: Any, inputs: Any) -> tuple[Any, None]:
            states, active, returns, steps = carry
            states, stepped = jax.vmap(environment.step)(states, *inputs)
            returns, steps = returns + stepped.reward * active, steps + jnp.sum(active, dtype=jnp.int32)
            return (states, active & ~(stepped.terminated | stepped.truncated), returns, steps), None

        carry = states, jnp.tile(active, num_sequences), jnp.zeros(width), jnp.zeros((), jnp.int32)
        (_, _, returns, steps), _ = jax.lax.scan(one_step, carry, (chosen, jax.random.split(step_key, (horizon, width))))
        return jnp.sum(returns.reshape(num_sequences, chunk), -1), steps

    def step(state: TrainState, key: Key) -> tuple[TrainState, Metrics]:
        timestep, extra = state.step % horizon, state.extra
        extra = extra | {"samples": jnp.where(timestep == 0, 0, extra["samples"])}
        num_episodes = episodes_due(config, state.replace(extra=extra), horizon, samples)

        def play(carry: Any, active: jax.Array, key: Key) -> Any:
            returns, steps = returns_of(extra["actions"], timestep, active, key)
            return carry[0] + returns, carry[1] + steps

        nothing = jnp.zeros(num_sequences), jnp.zeros((), jnp.int32)
        returns, steps = in_chunks(play, nothing, num_episodes, chunk, key)
        best = jnp.argmax(returns)
        actions = extra["actions"].at[timestep].set(sequences[best, 0])
        mean = returns[best] / jnp.maximum(num_episodes, 1)
        return state.replace(extra={"actions": actions, "samples": extra["samples"] + steps}), {"episode/return": mean}

    def act(state: TrainState, observations: jax.Array, time: jax.Array) -> jax.Array:
        """The action that is fixed; of a timestep that is not reached, that of the attempt before, or 0."""
        return jnp.full(len(observations), state.extra["actions"][time])

    return TimedAgent(init, step, act)


def default_config() -> ConfigDict:
    """The smallest search; the authors double m until the problem is solved."""
    return ConfigDict(
        {
            "name": "gorp",
            "k": 1,  # length of the sequences tried, A^k of them at each timestep
            "num_episodes": 1,  # m, of each sequence at each timestep, in the first attempt
            "growth": 2,  # m is multiplied by it at every further attempt
            "num_envs": 1024,  # episodes that are played at once, of all sequences together
        }
    )
