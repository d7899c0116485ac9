"""ReBRAC: TD3+BC with a cloning penalty in the critic as well, each with a weight of its own, and better networks.

Tarasov et al. 2023, "Revisiting the Minimalist Approach to Offline Reinforcement Learning", arXiv 2305.09836. The order
and the settings follow the authors' code: a critic with LayerNorm after its ReLUs, three hidden layers, large batches.
A batch needs next_actions, the data's actions in the next observations (config.dataset.columns).
"""

import jax
import jax.numpy as jnp
import optax
from ml_collections import ConfigDict

from rl_jax.agents.agent import Agent, Distribution, acting, inputs
from rl_jax.core.program import Key, Metrics, PyTree, TrainState
from rl_jax.data.transitions import Transitions
from rl_jax.losses.policy_learning import rebrac_loss, squared_distance
from rl_jax.losses.value_learning import squared_error, td_target
from rl_jax.networks.initializers import fan_in_uniform, uniform
from rl_jax.networks.policies import DeterministicPolicy
from rl_jax.networks.trained import Networks, Trained, every
from rl_jax.networks.values import Critic


def rebrac(config: ConfigDict, action_dim: int) -> Agent:
    """Makes ReBRAC; `config` has the fields of `default_config`."""
    hidden = fan_in_uniform(bias=0.1)
    actor = DeterministicPolicy(config.hidden_dims, action_dim, hidden, output_initializer=uniform(1e-3))
    critic = Critic(
        config.hidden_dims, ensemble_size=2, layer_norm="after", initializer=hidden, output_initializer=uniform(3e-3)
    )
    adam = optax.adam(config.learning_rate)
    networks = Networks({
        "actor": Trained(actor.init, adam, config.tau),
        "critic": Trained(critic.init, adam, config.tau),
    })

    # Losses

    def critic_loss(params: PyTree, target: jax.Array, batch: Transitions) -> tuple[jax.Array, Metrics]:
        q = critic.apply(params, batch.observations, batch.actions)
        loss = jnp.sum(jnp.mean(squared_error(q, target), -1))
        return loss, {"critic/loss": loss, "critic/mean": jnp.mean(q)}

    def actor_loss(params: PyTree, critic_params: PyTree, batch: Transitions) -> tuple[jax.Array, Metrics]:
        actions = actor.apply(params, batch.observations).mode()
        q = critic.apply(critic_params, batch.observations, actions).min(0)
        loss = jnp.mean(rebrac_loss(q, actions, batch.actions, config.actor_penalty))  # beta_1
        return loss, {"actor/loss": loss}

    def smoothed_target(state: TrainState, batch: Transitions, key: Key) -> jax.Array:
        """r + gamma (min_i Q_i'(s', a') - beta_2 |a' - data's|^2), with TD3's smoothed a' = pi'(s') + clipped noise."""
        noise = config.policy_noise * jax.random.normal(key, batch.actions.shape)
        noise = jnp.clip(noise, -config.noise_clip, config.noise_clip)
        next_actions = actor.apply(state.target_params["actor"], batch.next_observations).mode()
        next_actions = jnp.clip(next_actions + noise, -1.0, 1.0)
        next_q = critic.apply(state.target_params["critic"], batch.next_observations, next_actions).min(0)
        penalty = config.critic_penalty * squared_distance(next_actions, batch.next_actions)
        return td_target(batch.rewards, batch.masks, next_q - penalty, config.discount)

    # Update

    def init(key: Key, batch: Transitions) -> TrainState:
        if batch.next_actions is None:
            raise ValueError("ReBRAC needs next_actions in its batches: set config.dataset.columns = ('next_actions',)")
        return networks.init(key, inputs(batch))

    def update(state: TrainState, batch: Transitions, key: Key) -> tuple[TrainState, Metrics]:
        target = smoothed_target(state, batch, key)
        state, critic_info = networks.step(state, "critic", critic_loss, target, batch)

        def delayed(state: TrainState) -> tuple[TrainState, Metrics]:
            state = networks.follow(state)  # the authors' target policy follows the policy from before this update
            return networks.step(state, "actor", actor_loss, state.params["critic"], batch)

        # The policy and the targets move in every policy_freq-th update, from the first on as in the authors' code.
        state, actor_info = every(config.policy_freq, delayed, state, first=0)
        return state, critic_info | actor_info

    # Act

    def policy(params: PyTree, observations: jax.Array) -> Distribution:
        return actor.apply(params["actor"], observations)

    return Agent(init, update, acting(policy), policy)


def default_config() -> ConfigDict:
    """Returns the authors' settings for MuJoCo locomotion; the penalties, tuned by data set, are in its recipe."""
    return ConfigDict(
        {
            "name": "rebrac",
            "hidden_dims": (256, 256, 256),
            "learning_rate": 1e-3,
            "discount": 0.99,
            "tau": 0.005,  # target networks
            "actor_penalty": 0.01,  # beta_1, weight of cloning against Q of mean size 1
            "critic_penalty": 0.01,  # beta_2, of the distance from the data's action in the bootstrapped value
            "policy_noise": 0.2,  # of the target policy
            "noise_clip": 0.5,
            "policy_freq": 2,  # critic updates an actor update
        }
    )
