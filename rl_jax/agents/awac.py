"""AWAC: advantage-weighted actor-critic. The policy clones the data, weighted by the advantage over its own actions.

Nair, Gupta, Dalal and Levine 2020, "AWAC: Accelerating Online Reinforcement Learning with Offline Datasets", arXiv
2006.09359. The order of the updates (the critics, then the policy, then the targets), the networks and the settings
follow CORL's code. Observations are expected normalised over the data set (config.dataset).
"""

import jax
import jax.numpy as jnp
import optax
from ml_collections import ConfigDict

from rl_jax.agents.agent import Agent, Distribution, acting, inputs
from rl_jax.agents.weighted_cloning import weighted_cloning
from rl_jax.core.program import Key, Metrics, PyTree, TrainState
from rl_jax.data.transitions import Transitions
from rl_jax.losses.policy_learning import advantage_weights
from rl_jax.losses.value_learning import squared_error, td_target
from rl_jax.networks.initializers import torch_default
from rl_jax.networks.policies import GaussianPolicy
from rl_jax.networks.trained import Networks, Trained
from rl_jax.networks.values import Critic


def awac(config: ConfigDict, action_dim: int) -> Agent:
    """Makes AWAC; `config` has the fields of `default_config`."""
    actor = GaussianPolicy(
        config.hidden_dims, action_dim, log_std_min=-20.0, initializer=torch_default, squash_mean=False
    )
    critic = Critic(config.hidden_dims, ensemble_size=2, initializer=torch_default)
    adam = optax.adam(config.learning_rate)
    networks = Networks({"actor": Trained(actor.init, adam), "critic": Trained(critic.init, adam, config.tau)})

    # Losses

    def critic_loss(params: PyTree, target: jax.Array, batch: Transitions) -> tuple[jax.Array, Metrics]:
        q = critic.apply(params, batch.observations, batch.actions)
        loss = jnp.sum(jnp.mean(squared_error(q, target), -1))  # equation 9
        return loss, {"critic/loss": loss, "critic/mean": jnp.mean(q)}

    actor_loss = weighted_cloning(actor)  # equation 13

    # Update

    def init(key: Key, batch: Transitions) -> TrainState:
        return networks.init(key, inputs(batch))

    def update(state: TrainState, batch: Transitions, key: Key) -> tuple[TrainState, Metrics]:
        next_key, key = jax.random.split(key)
        next_actions = actor.apply(state.params["actor"], batch.next_observations).sample(next_key)
        next_q = critic.apply(state.target_params["critic"], batch.next_observations, next_actions).min(0)
        target = td_target(batch.rewards, batch.masks, next_q, config.discount)
        state, critic_info = networks.step(state, "critic", critic_loss, target, batch)
        # A(s, a) = Q(s, a) - V(s), with V(s) = Q(s, a') at one action a' of the policy.
        actions = jnp.stack([batch.actions, actor.apply(state.params["actor"], batch.observations).sample(key)])
        observations = jnp.broadcast_to(batch.observations, (2, *batch.observations.shape))
        q, v = critic.apply(state.params["critic"], observations, actions).min(0)
        weights = advantage_weights(q - v, config.temperature, config.max_weight)
        state, actor_info = networks.step(state, "actor", actor_loss, weights, batch)
        return networks.follow(state), critic_info | actor_info

    # Act

    def policy(params: PyTree, observations: jax.Array) -> Distribution:
        return actor.apply(params["actor"], observations)

    return Agent(init, update, acting(policy), policy)


def default_config() -> ConfigDict:
    """Returns CORL's settings for the MuJoCo locomotion tasks, the same for every data set."""
    return ConfigDict(
        {
            "name": "awac",
            "hidden_dims": (256, 256, 256),
            "learning_rate": 3e-4,
            "discount": 0.99,
            "tau": 0.005,  # target critic
            "temperature": 3.0,  # 1 / lambda in equation 13 (CORL: lambda = 0.3333): 0 clones, large follows Q
            "max_weight": 100.0,  # cap of exp(A / lambda), in CORL's code
        }
    )
