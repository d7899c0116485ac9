"""What a control algorithm is, the way optax defines an optimiser: three pure functions."""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax

from rl_jax.core.program import Key, Metrics, PyTree, TrainState
from rl_jax.data.transitions import Transitions

Batch = Any  # rl_jax.data.transitions.Transitions, or whatever the agent's docstring says
Distribution = Any  # of rl_jax.networks.distributions


class Agent(NamedTuple):
    """A control algorithm for one training run.

    Attributes:
      init: (key, batch) -> TrainState; the batch gives shapes only.
      update: (state, batch, key) -> (state, metrics): one gradient step of every network that is due.
      act: (params, observations [B, O], key, temperature) -> actions [B, A]; temperature 0 is the mode.
        An agent with a memory takes `rl_jax.data.sequences.Sequences` in place of the observations.
      policy: (params, observations [B, O]) -> the distribution that `act` draws from; None where it is no function of
        one observation.
    """

    init: Callable[[Key, Batch], TrainState]
    update: Callable[[TrainState, Batch, Key], tuple[TrainState, Metrics]]
    act: Callable[[PyTree, jax.Array, Key, jax.Array | float], jax.Array]
    policy: Callable[[PyTree, jax.Array], Distribution] | None = None


def acting(
    policy: Callable[[PyTree, jax.Array], Distribution], num_actions: int | None = None
) -> Callable[..., jax.Array]:
    """`Agent.act` of a policy. Of numbered actions, of which there are `num_actions`, it gives one-hot vectors."""

    def act(params: PyTree, observations: jax.Array, key: Key, temperature: jax.Array | float) -> jax.Array:
        drawn = policy(params, observations).sample(key, temperature)
        return drawn if num_actions is None else jax.nn.one_hot(drawn, num_actions)

    return act


def inputs(batch: Transitions) -> Mapping[str, tuple[Any, ...]]:
    """Returns what the networks of an agent read, by their usual names, for `Networks.init`."""
    return {
        "actor": (batch.observations,),
        "critic": (batch.observations, batch.actions),
        "value": (batch.observations,),
        "temperature": (),
    }
