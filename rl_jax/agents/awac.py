"""AWAC: advantage-weighted actor-critic. The policy clones the data, weighted by the advantage over its own actions.

Nair, Gupta, Dalal and Levine 2020, "AWAC: Accelerating Online Reinforcement Learning with Offline Datasets", arXiv
2006.09359. The order of the updates (the critics, then the policy, then the targets), the networks and the settings
follow CORL's code. Observations are expected normalised over the data set (config.dataset).
"""

import jax
import jax.numpy as jnp
import optax
from ml_collections import ConfigDict

from rl_jax.agents.agent import Agent, gradient_step
from rl_jax.core.program import Key, Metrics, PyTree, TrainState
from rl_jax.data.transitions import Transitions
from rl_jax.losses.policy_learning import advantage_weighted_loss, advantage_weights, gaussian_log_prob
from rl_jax.losses.value_learning import squared_error, td_target
from rl_jax.networks.policies import GaussianPolicy
from rl_jax.networks.values import Critic


def awac(config: ConfigDict, action_dim: int) -> Agent:
    """AWAC; `config` as `default_config`."""
    actor = GaussianPolicy(config.hidden_dims, action_dim, log_std_min=-20.0, initializer="torch", squash_mean=False)
    critic = Critic(config.hidden_dims, ensemble_size=2, initializer="torch")
    tx = optax.adam(config.learning_rate)

    # Losses

    def critic_loss(params: PyTree, next_q: jax.Array, batch: Transitions) -> tuple[jax.Array, Metrics]:
        q = critic.apply(params, batch.observations, batch.actions)
        loss = jnp.sum(jnp.mean(squared_error(q, td_target(batch.rewards, batch.masks, next_q, config.discount)), -1))  # equation 9
        return loss, {"critic/loss": loss, "critic/mean": jnp.mean(q)}

    def actor_loss(params: PyTree, advantages: jax.Array, batch: Transitions) -> tuple[jax.Array, Metrics]:
        log_probs = gaussian_log_prob(batch.actions, *actor.apply(params, batch.observations))
        weights = advantage_weights(advantages, config.temperature, config.max_weight)
        loss = jnp.mean(advantage_weighted_loss(log_probs, weights))  # equation 13
        return loss, {"actor/loss": loss, "actor/weight": jnp.mean(weights)}

    # Update

    def init(key: Key, batch: Transitions) -> TrainState:
        actor_key, critic_key = jax.random.split(key)
        params = {
            "actor": actor.init(actor_key, batch.observations),
            "critic": critic.init(critic_key, batch.observations, batch.actions),
        }
        opt_state = {name: tx.init(network) for name, network in params.items()}
        return TrainState.create(params, opt_state, target_params={"critic": jax.tree.map(jnp.copy, params["critic"])})

    def update(state: TrainState, batch: Transitions, key: Key) -> tuple[TrainState, Metrics]:
        params, opt_state = dict(state.params), dict(state.opt_state)
        next_key, key = jax.random.split(key)
        next_actions = act(params, batch.next_observations, next_key, 1.0)
        next_q = critic.apply(state.target_params["critic"], batch.next_observations, next_actions).min(0)
        params["critic"], opt_state["critic"], critic_info = gradient_step(
            lambda p: critic_loss(p, next_q, batch), params["critic"], tx, opt_state["critic"]
        )
        # A(s, a) = Q(s, a) - V(s), with V(s) = Q(s, a') at one action a' of the policy.
        actions = jnp.stack([batch.actions, act(params, batch.observations, key, 1.0)])
        observations = jnp.broadcast_to(batch.observations, (2, *batch.observations.shape))
        q, v = critic.apply(params["critic"], observations, actions).min(0)
        params["actor"], opt_state["actor"], actor_info = gradient_step(
            lambda p: actor_loss(p, q - v, batch), params["actor"], tx, opt_state["actor"]
        )
        target_params = {
            "critic": optax.incremental_update(params["critic"], state.target_params["critic"], config.tau)
        }
        state = state.replace(params=params, opt_state=opt_state, target_params=target_params)
        return state, critic_info | actor_info

    # Act

    def act(params: PyTree, observations: jax.Array, key: Key, temperature: jax.Array | float) -> jax.Array:
        return actor.act(params["actor"], observations, key, temperature)

    return Agent(init, update, act)


def default_config() -> ConfigDict:
    """CORL's settings for the MuJoCo locomotion tasks, the same for every data set."""
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
