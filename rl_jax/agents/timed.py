"""Algorithms whose policy knows the time, and that search for the least number of episodes that solves a problem.

A search makes attempt after attempt, each anew and with `config.growth` times as many episodes as the one before it,
until the problem is solved or a budget of environment steps is spent, as in Laidlaw et al. 2023, arXiv 2304.09853 and
2312.08369. With a growth of 1 all attempts have the same number.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from ml_collections import ConfigDict

from rl_jax.agents.online import OnlineAgent
from rl_jax.core.program import Key, Metrics, PyTree, TrainState


class TimedAgent(NamedTuple):
    """A control algorithm for one training run in one environment, whose policy knows the time.

    Attributes:
      init: key -> TrainState.
      step: (state, key) -> (state, metrics).
      act: (state, observations [B, ...], time) -> the policy's actions [B] int32 at a timestep of an episode.
      samples: state of all S runs -> the environment steps of the attempt under way, [S].
      attempt_steps: the steps of an attempt; attempt n, counted from 0, begins in step n * attempt_steps. 0 where the
        whole run is one attempt and the policy does not know the time after all.
    """

    init: Callable[[Key], TrainState]
    step: Callable[[TrainState, Key], tuple[TrainState, Metrics]]
    act: Callable[[TrainState, jax.Array, jax.Array], jax.Array]
    samples: Callable[[TrainState], jax.Array]
    attempt_steps: int


def untimed(agent: OnlineAgent, samples_a_step: int) -> TimedAgent:
    """PPO, DQN and their like, which know no time and make no attempts; their policy is the mode."""

    def act(state: TrainState, observations: jax.Array, time: jax.Array) -> jax.Array:
        del time
        return agent.act(state.params, observations, jax.random.key(0), 0.0)

    def samples(state: TrainState) -> jax.Array:
        runs = jax.tree.leaves(state.extra)[0].shape[:1]
        return jnp.full(runs, state.step * samples_a_step)

    return TimedAgent(agent.init, agent.step, act, samples, attempt_steps=0)


def check_search(config: ConfigDict) -> None:
    """Raises ValueError naming the first of the fields k, num_episodes, growth and num_envs that is below 1."""
    for name in ("k", "num_episodes", "growth", "num_envs"):
        if isinstance(config[name], int) and config[name] < 1:  # in a sweep it is an array
            raise ValueError(f"config.agent.{name} is {config[name]}: give at least 1")


def episodes_of(config: ConfigDict, attempt: jax.Array) -> jax.Array:
    """m, the episodes of an attempt, an int32 scalar."""
    return config.num_episodes * jnp.power(jnp.int32(config.growth), attempt)


def in_chunks(
    play: Callable[[PyTree, jax.Array, Key], PyTree], carry: PyTree, num_episodes: jax.Array, chunk: int, key: Key
) -> PyTree:
    """Plays a number of episodes that only the compiled program knows, `chunk` of them at a time: one program serves
    all attempts, and the cost of each is in proportion to its episodes.

    Args:
      play: (carry, which episodes of the chunk count [chunk] bool, key) -> carry.
      num_episodes: int32 scalar.
    """

    def one_chunk(number: jax.Array, carry: Any) -> Any:
        return play(carry, number * chunk + jnp.arange(chunk) < num_episodes, jax.random.fold_in(key, number))

    return jax.lax.fori_loop(0, (num_episodes + chunk - 1) // chunk, one_chunk, carry)
