"""IQL: implicit Q-learning. Values of unseen actions are never asked for.

Kostrikov, Nair and Levine 2021, "Offline Reinforcement Learning with Implicit Q-Learning", arXiv 2110.06169. The order
of the updates (V, then the policy, then Q, then the target) and the settings follow the authors' code.
"""

import flax.linen as nn
import jax
import jax.numpy as jnp
from ml_collections import ConfigDict

from rl_jax.agents.agent import Agent, Distribution, acting, inputs
from rl_jax.agents.weighted_cloning import implicit_networks, weighted_cloning
from rl_jax.core.program import Key, Metrics, PyTree, TrainState
from rl_jax.data.transitions import Transitions
from rl_jax.losses.policy_learning import advantage_weights
from rl_jax.losses.value_learning import expectile_loss, squared_error, td_target
from rl_jax.networks.policies import GaussianPolicy
from rl_jax.networks.values import Critic, Value


def iql(config: ConfigDict, action_dim: int, actor: nn.Module | None = None) -> Agent:
    """Makes IQL; `config` has the fields of `default_config`.

    Args:
      actor: a policy with dropout, to stand in the Gaussian one's place.
    """
    drops, actor = actor is not None, actor or GaussianPolicy(config.hidden_dims, action_dim)
    critic = Critic(config.hidden_dims, ensemble_size=2)
    value = Value(config.hidden_dims)
    networks = implicit_networks(config, actor, critic, value)

    # Losses

    def value_loss(params: PyTree, target_q: jax.Array, batch: Transitions) -> tuple[jax.Array, Metrics]:
        v = value.apply(params, batch.observations)
        loss = jnp.mean(expectile_loss(target_q - v, config.expectile))  # equation 5
        return loss, {"value/loss": loss, "value/mean": jnp.mean(v)}

    actor_loss = weighted_cloning(actor)  # equation 7

    def critic_loss(params: PyTree, target: jax.Array, batch: Transitions) -> tuple[jax.Array, Metrics]:
        q = critic.apply(params, batch.observations, batch.actions)
        loss = jnp.sum(jnp.mean(squared_error(q, target), -1))  # equation 6
        return loss, {"critic/loss": loss, "critic/mean": jnp.mean(q)}

    # Update

    def init(key: Key, batch: Transitions) -> TrainState:
        return networks.init(key, inputs(batch))

    def update(state: TrainState, batch: Transitions, key: Key) -> tuple[TrainState, Metrics]:
        target_q = critic.apply(state.target_params["critic"], batch.observations, batch.actions).min(0)
        state, value_info = networks.step(state, "value", value_loss, target_q, batch)
        v, next_v = value.apply(state.params["value"], jnp.stack([batch.observations, batch.next_observations]))
        weights = advantage_weights(target_q - v, config.temperature, config.max_weight)
        state, actor_info = networks.step(state, "actor", actor_loss, weights, batch, key if drops else None)
        target = td_target(batch.rewards, batch.masks, next_v, config.discount)
        state, critic_info = networks.step(state, "critic", critic_loss, target, batch)
        return networks.follow(state), value_info | actor_info | critic_info

    # Act

    def policy(params: PyTree, observations: jax.Array) -> Distribution:
        return actor.apply(params["actor"], observations)

    return Agent(init, update, acting(policy), policy)


def default_config() -> ConfigDict:
    """Returns the authors' settings for the MuJoCo locomotion tasks."""
    return ConfigDict(
        {
            "name": "iql",
            "hidden_dims": (256, 256),
            "learning_rate": 3e-4,
            "decay_steps": 1_000_000,  # of the policy's cosine schedule; the authors' is the whole run
            "discount": 0.99,
            "tau": 0.005,  # target critic
            "expectile": 0.7,  # tau in equation 5
            "temperature": 3.0,  # beta in equation 7: 0 clones, large follows Q
            "max_weight": 100.0,  # cap of exp(beta A), in the authors' code
        }
    )
