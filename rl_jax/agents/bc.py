"""Behavioural cloning with a deterministic policy.

The baseline of TD3+BC (Fujimoto and Gu 2021, arXiv 2106.06860) and of CORL: regression of the data's actions.
"""

import jax
import jax.numpy as jnp
import optax
from ml_collections import ConfigDict

from rl_jax.agents.agent import Agent, Distribution, acting, inputs
from rl_jax.core.program import Key, Metrics, PyTree, TrainState
from rl_jax.data.transitions import Transitions
from rl_jax.losses.policy_learning import behavioural_cloning_loss
from rl_jax.networks.initializers import torch_default
from rl_jax.networks.policies import DeterministicPolicy
from rl_jax.networks.trained import Networks, Trained


def bc(config: ConfigDict, action_dim: int) -> Agent:
    """Makes behavioural cloning; `config` has the fields of `default_config`."""
    actor = DeterministicPolicy(config.hidden_dims, action_dim, initializer=torch_default)
    networks = Networks({"actor": Trained(actor.init, optax.adam(config.learning_rate))})

    # Losses

    def actor_loss(params: PyTree, batch: Transitions) -> tuple[jax.Array, Metrics]:
        loss = jnp.mean(behavioural_cloning_loss(actor.apply(params, batch.observations).mode(), batch.actions))
        return loss, {"actor/loss": loss}

    # Update

    def init(key: Key, batch: Transitions) -> TrainState:
        return networks.init(key, inputs(batch))

    def update(state: TrainState, batch: Transitions, key: Key) -> tuple[TrainState, Metrics]:
        del key
        return networks.step(state, "actor", actor_loss, batch)

    # Act

    def policy(params: PyTree, observations: jax.Array) -> Distribution:
        return actor.apply(params["actor"], observations)

    return Agent(init, update, acting(policy), policy)


def default_config() -> ConfigDict:
    """Returns CORL's settings for the MuJoCo locomotion tasks."""
    return ConfigDict({"name": "bc", "hidden_dims": (256, 256), "learning_rate": 3e-4})
