"""What learns a policy timestep by timestep, with ever more episodes, until it works.

Such an agent decides in its step t, counted from 0, what its policy does at timestep t of an episode. `horizon` steps
are an attempt with m episodes a timestep. The next attempt begins anew with `config.growth` times as many: the search
of the papers for the least m that solves a problem. A growth of 1 repeats attempts of one size.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from ml_collections import ConfigDict

from rl_jax.core.program import Key, Metrics, PyTree, TrainState


class TimedAgent(NamedTuple):
    """A control algorithm for one training run in one environment, whose policy knows the time.

    Attributes:
      init: key -> TrainState. Its `extra["samples"]` counts the environment steps of the attempt under way.
      step: (state, key) -> (state, metrics): decides the policy of one timestep.
      act: (state, observations [B, ...], time) -> the policy's actions [B] int32 at a timestep.
    """

    init: Callable[[Key], TrainState]
    step: Callable[[TrainState, Key], tuple[TrainState, Metrics]]
    act: Callable[[TrainState, jax.Array, jax.Array], jax.Array]


def check_search(config: ConfigDict) -> None:
    """Raises ValueError naming the first field of k, num_episodes, growth and num_envs that is below 1."""
    for name in ("k", "num_episodes", "growth", "num_envs"):
        if isinstance(config[name], int) and config[name] < 1:  # in a sweep it is an array
            raise ValueError(f"config.agent.{name} is {config[name]}: give at least 1")


def episodes_due(config: ConfigDict, state: TrainState, horizon: int, samples: int) -> jax.Array:
    """m, the episodes of this timestep, an int32 scalar: 0 where the attempt has taken its `samples` environment steps
    before, so that the rest of it costs nothing."""
    spent = state.extra["samples"] >= samples
    return jnp.where(spent, 0, config.num_episodes * jnp.power(config.growth, state.step // horizon))


def num_decided(step: jax.Array, horizon: int) -> jax.Array:
    """How many timesteps of the newest attempt are decided after `step` steps: all of them at its end."""
    return jnp.where(step > 0, (step - 1) % horizon + 1, 0)


def in_chunks(
    play: Callable[[PyTree, jax.Array, Key], PyTree], carry: PyTree, num_episodes: jax.Array, chunk: int, key: Key
) -> PyTree:
    """Plays a number of episodes that only the compiled program knows, `chunk` at a time: what is computed is in
    proportion to the number, and one program serves all.

    Args:
      play: (carry, which episodes of the chunk count [chunk] bool, key) -> carry.
      num_episodes: int32 scalar.
    """

    def one_chunk(number: jax.Array, carry: Any) -> Any:
        return play(carry, number * chunk + jnp.arange(chunk) < num_episodes, jax.random.fold_in(key, number))

    return jax.lax.fori_loop(0, (num_episodes + chunk - 1) // chunk, one_chunk, carry)
