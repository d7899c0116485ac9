"""TD3+BC: TD3 with a behavioural-cloning term in the policy's loss.

Fujimoto and Gu 2021, "A Minimalist Approach to Offline Reinforcement Learning", arXiv 2106.06860. The order and the
settings follow the authors' code. Observations are expected normalised over the data set (config.dataset).
"""

import jax
import jax.numpy as jnp
import optax
from ml_collections import ConfigDict

from rl_jax.agents.agent import Agent, Distribution, acting, inputs
from rl_jax.core.program import Key, Metrics, PyTree, TrainState
from rl_jax.data.transitions import Transitions
from rl_jax.losses.policy_learning import td3_bc_loss
from rl_jax.losses.value_learning import squared_error, td_target
from rl_jax.networks.initializers import torch_default
from rl_jax.networks.policies import DeterministicPolicy
from rl_jax.networks.trained import Networks, Trained, every
from rl_jax.networks.values import Critic


def td3_bc(config: ConfigDict, action_dim: int) -> Agent:
    """Makes TD3+BC; `config` has the fields of `default_config`."""
    actor = DeterministicPolicy(config.hidden_dims, action_dim, initializer=torch_default)
    critic = Critic(config.hidden_dims, ensemble_size=2, initializer=torch_default)
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
        q = critic.apply_member(critic_params, batch.observations, actions)
        loss = jnp.mean(td3_bc_loss(q, actions, batch.actions, config.alpha))  # equation 5
        return loss, {"actor/loss": loss}

    def smoothed_target(state: TrainState, batch: Transitions, key: Key) -> jax.Array:
        """r + gamma min_i Q_i'(s', pi'(s') + clipped noise): TD3's target policy smoothing."""
        noise = config.policy_noise * jax.random.normal(key, batch.actions.shape)
        noise = jnp.clip(noise, -config.noise_clip, config.noise_clip)
        next_actions = actor.apply(state.target_params["actor"], batch.next_observations).mode()
        next_actions = jnp.clip(next_actions + noise, -1.0, 1.0)
        next_q = critic.apply(state.target_params["critic"], batch.next_observations, next_actions).min(0)
        return td_target(batch.rewards, batch.masks, next_q, config.discount)

    # Update

    def init(key: Key, batch: Transitions) -> TrainState:
        return networks.init(key, inputs(batch))

    def update(state: TrainState, batch: Transitions, key: Key) -> tuple[TrainState, Metrics]:
        target = smoothed_target(state, batch, key)
        state, critic_info = networks.step(state, "critic", critic_loss, target, batch)

        def delayed(state: TrainState) -> tuple[TrainState, Metrics]:
            state, info = networks.step(state, "actor", actor_loss, state.params["critic"], batch)
            return networks.follow(state), info

        # The policy and the targets move in every policy_freq-th update.
        state, actor_info = every(config.policy_freq, delayed, state, first=config.policy_freq - 1)
        return state, critic_info | actor_info

    # Act

    def policy(params: PyTree, observations: jax.Array) -> Distribution:
        return actor.apply(params["actor"], observations)

    return Agent(init, update, acting(policy), policy)


def default_config() -> ConfigDict:
    """Returns the authors' settings for the MuJoCo locomotion tasks."""
    return ConfigDict(
        {
            "name": "td3_bc",
            "hidden_dims": (256, 256),
            "learning_rate": 3e-4,
            "discount": 0.99,
            "tau": 0.005,  # target networks
            "alpha": 2.5,  # weight of Q against cloning, equation 5
            "policy_noise": 0.2,  # of the target policy
            "noise_clip": 0.5,
            "policy_freq": 2,  # critic updates an actor update
        }
    )
