"""IQL: implicit Q-learning. Values of unseen actions are never asked for.

Kostrikov, Nair and Levine 2021, "Offline Reinforcement Learning with Implicit Q-Learning", arXiv 2110.06169. The order
of the updates (V, then the policy, then Q, then the target) and the settings follow the authors' code.
"""

import jax
import jax.numpy as jnp
import optax
from ml_collections import ConfigDict

from rl_jax.agents.agent import Agent, gradient_step
from rl_jax.core.program import Key, Metrics, PyTree, TrainState
from rl_jax.data.transitions import Transitions
from rl_jax.losses.policy_learning import advantage_weighted_loss, advantage_weights, gaussian_log_prob
from rl_jax.losses.value_learning import expectile_loss, squared_error, td_target
from rl_jax.networks.policies import GaussianPolicy
from rl_jax.networks.values import Critic, Value


def iql(config: ConfigDict, action_dim: int) -> Agent:
    """IQL; `config` as `default_config`."""
    actor = GaussianPolicy(config.hidden_dims, action_dim)
    critic = Critic(config.hidden_dims, ensemble_size=2)
    value = Value(config.hidden_dims)
    tx = optax.adam(config.learning_rate)
    # The authors anneal the policy's learning rate alone.
    actor_tx = optax.adam(optax.cosine_decay_schedule(config.learning_rate, config.decay_steps))

    # Losses

    def value_loss(params: PyTree, target_q: jax.Array, batch: Transitions) -> tuple[jax.Array, Metrics]:
        v = value.apply(params, batch.observations)
        loss = expectile_loss(target_q - v, config.expectile)  # equation 5
        return loss, {"value/loss": loss, "value/mean": jnp.mean(v)}

    def critic_loss(params: PyTree, next_v: jax.Array, batch: Transitions) -> tuple[jax.Array, Metrics]:
        q = critic.apply(params, batch.observations, batch.actions)
        loss = squared_error(q, td_target(batch.rewards, batch.masks, next_v, config.discount))  # equation 6
        return loss, {"critic/loss": loss, "critic/mean": jnp.mean(q)}

    def actor_loss(params: PyTree, advantages: jax.Array, batch: Transitions) -> tuple[jax.Array, Metrics]:
        log_probs = gaussian_log_prob(batch.actions, *actor.apply(params, batch.observations))
        weights = advantage_weights(advantages, config.temperature, config.max_weight)
        loss = advantage_weighted_loss(log_probs, weights)  # equation 7
        return loss, {"actor/loss": loss, "actor/weight": jnp.mean(weights)}

    # Update

    def init(key: Key, batch: Transitions) -> TrainState:
        actor_key, critic_key, value_key = jax.random.split(key, 3)
        params = {
            "actor": actor.init(actor_key, batch.observations),
            "critic": critic.init(critic_key, batch.observations, batch.actions),
            "value": value.init(value_key, batch.observations),
        }
        opt_state = {
            name: (actor_tx if name == "actor" else tx).init(network) for name, network in params.items()
        }
        return TrainState.create(params, opt_state, target_params={"critic": jax.tree.map(jnp.copy, params["critic"])})

    def update(state: TrainState, batch: Transitions, key: Key) -> tuple[TrainState, Metrics]:
        del key
        params, opt_state = dict(state.params), dict(state.opt_state)
        target_q = critic.apply(state.target_params["critic"], batch.observations, batch.actions).min(0)
        params["value"], opt_state["value"], value_info = gradient_step(
            lambda p: value_loss(p, target_q, batch), params["value"], tx, opt_state["value"]
        )
        v, next_v = value.apply(params["value"], jnp.stack([batch.observations, batch.next_observations]))
        params["actor"], opt_state["actor"], actor_info = gradient_step(
            lambda p: actor_loss(p, target_q - v, batch), params["actor"], actor_tx, opt_state["actor"]
        )
        params["critic"], opt_state["critic"], critic_info = gradient_step(
            lambda p: critic_loss(p, next_v, batch), params["critic"], tx, opt_state["critic"]
        )
        target_params = {
            "critic": optax.incremental_update(params["critic"], state.target_params["critic"], config.tau)
        }
        state = state.replace(params=params, opt_state=opt_state, target_params=target_params)
        return state, value_info | actor_info | critic_info

    # Act

    def act(params: PyTree, observations: jax.Array, key: Key, temperature: jax.Array | float) -> jax.Array:
        return actor.act(params["actor"], observations, key, temperature)

    return Agent(init, update, act)


def default_config() -> ConfigDict:
    """The authors' settings for the MuJoCo locomotion tasks."""
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
