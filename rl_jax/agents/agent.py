"""What a control algorithm is, the way optax defines an optimiser: three pure functions."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import optax

from rl_jax.core.program import Key, Metrics, PyTree, TrainState

Batch = Any  # rl_jax.data.transitions.Transitions, or whatever the agent's docstring says
Loss = Callable[[PyTree], tuple[jax.Array, Metrics]]


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


def gradient_step(
    loss: Loss, params: PyTree, tx: optax.GradientTransformation, opt_state: PyTree
) -> tuple[PyTree, PyTree, Metrics]:
    """One optimiser step of one network on `loss(params) -> (loss, info)`: (params, opt_state, info)."""
    grads, info = jax.grad(loss, has_aux=True)(params)
    updates, opt_state = tx.update(grads, opt_state, params)
    return optax.apply_updates(params, updates), opt_state, info
