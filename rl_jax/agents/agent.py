"""What a control algorithm is, the way optax defines an optimiser: three pure functions."""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax

from rl_jax.core.program import Key, Metrics, PyTree, TrainState
from rl_jax.data.transitions import Transitions

Batch = Any  # rl_jax.data.transitions.Transitions, or whatever the agent's docstring says


class Agent(NamedTuple):
    """A control algorithm for one training run.

    Attributes:
      init: (key, batch) -> TrainState; the batch gives shapes only.
      update: (state, batch, key) -> (state, metrics): one gradient step of every network that is due.
      act: (params, observations [B, O], key, temperature) -> actions [B, A]; temperature 0 is the mode.
        An agent with a memory takes `rl_jax.data.sequences.Sequences` in place of the observations.
    """

    init: Callable[[Key, Batch], TrainState]
    update: Callable[[TrainState, Batch, Key], tuple[TrainState, Metrics]]
    act: Callable[[PyTree, jax.Array, Key, jax.Array | float], jax.Array]


def inputs(batch: Transitions) -> Mapping[str, tuple[Any, ...]]:
    """Returns what the networks of an agent read, by their usual names, for `Networks.init`."""
    return {
        "actor": (batch.observations,),
        "critic": (batch.observations, batch.actions),
        "value": (batch.observations,),
        "temperature": (),
    }
