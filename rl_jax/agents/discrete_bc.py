"""Behavioural cloning of numbered actions, one-hot [B, A]: a categorical policy, fitted by maximum likelihood.

The baseline of discrete offline RL, as d3rlpy's DiscreteBC without its penalty of the logits.
"""

import jax
import jax.numpy as jnp
import optax
from ml_collections import ConfigDict

from rl_jax.agents.agent import Agent, acting
from rl_jax.core.program import Key, Metrics, PyTree, TrainState
from rl_jax.data.transitions import Transitions
from rl_jax.networks.distributions import Categorical
from rl_jax.networks.trained import Networks, Trained
from rl_jax.networks.values import DiscreteCritic


def discrete_bc(config: ConfigDict, num_actions: int) -> Agent:
    """Makes cloning of numbered actions; `config` has the fields of `default_config`."""
    actor = DiscreteCritic(config.hidden_dims, num_actions)  # logits in the place of values
    networks = Networks({"actor": Trained(actor.init, optax.adam(config.learning_rate))})

    # Losses

    def actor_loss(params: PyTree, batch: Transitions) -> tuple[jax.Array, Metrics]:
        loss = jnp.mean(optax.softmax_cross_entropy(actor.apply(params, batch.observations), batch.actions))
        return loss, {"actor/loss": loss}

    # Update

    def init(key: Key, batch: Transitions) -> TrainState:
        return networks.init(key, {"actor": (batch.observations,)})

    def update(state: TrainState, batch: Transitions, key: Key) -> tuple[TrainState, Metrics]:
        del key
        return networks.step(state, "actor", actor_loss, batch)

    # Act

    def policy(params: PyTree, observations: jax.Array) -> Categorical:
        return Categorical(actor.apply(params["actor"], observations))

    return Agent(init, update, acting(policy, num_actions), policy)


def default_config() -> ConfigDict:
    """Returns d3rlpy's settings, with the rate of the other agents here."""
    return ConfigDict(
        {
            "name": "discrete_bc",
            "hidden_dims": (256, 256),
            "learning_rate": 1e-3,
        }
    )
