"""ReBRAC: TD3+BC with a cloning penalty in the critic as well, each with a weight of its own, and better networks.

Tarasov et al. 2023, "Revisiting the Minimalist Approach to Offline Reinforcement Learning", arXiv 2305.09836. The order
and the settings follow the authors' code: a critic with LayerNorm after its ReLUs, three hidden layers, large batches.
A batch needs next_actions, the data's actions in the next observations (config.dataset.columns).
"""

import jax
import jax.numpy as jnp
import optax
from ml_collections import ConfigDict

from rl_jax.agents.agent import Agent, gradient_step
from rl_jax.core.program import Key, Metrics, PyTree, TrainState
from rl_jax.data.transitions import Transitions
from rl_jax.losses.policy_learning import rebrac_loss, squared_distance
from rl_jax.losses.value_learning import squared_error, td_target
from rl_jax.networks.policies import DeterministicPolicy
from rl_jax.networks.values import Critic


def rebrac(config: ConfigDict, action_dim: int) -> Agent:
    """ReBRAC; `config` as `default_config`."""
    actor = DeterministicPolicy(config.hidden_dims, action_dim, initializer="small_output")
    critic = Critic(config.hidden_dims, ensemble_size=2, layer_norm="after", initializer="small_output")
    tx = optax.adam(config.learning_rate)

    # Losses

    def critic_loss(params: PyTree, target: jax.Array, batch: Transitions) -> tuple[jax.Array, Metrics]:
        q = critic.apply(params, batch.observations, batch.actions)
        loss = jnp.sum(jnp.mean(squared_error(q, target), -1))
        return loss, {"critic/loss": loss, "critic/mean": jnp.mean(q)}

    def actor_loss(params: PyTree, critic_params: PyTree, batch: Transitions) -> tuple[jax.Array, Metrics]:
        actions = actor.apply(params, batch.observations)
        q = critic.apply(critic_params, batch.observations, actions).min(0)
        loss = jnp.mean(rebrac_loss(q, actions, batch.actions, config.actor_penalty))  # beta_1
        return loss, {"actor/loss": loss}

    def smoothed_target(state: TrainState, batch: Transitions, key: Key) -> jax.Array:
        """r + gamma (min_i Q_i'(s', a') - beta_2 |a' - data's|^2), with TD3's smoothed a' = pi'(s') + clipped noise."""
        noise = config.policy_noise * jax.random.normal(key, batch.actions.shape)
        noise = jnp.clip(noise, -config.noise_clip, config.noise_clip)
        next_actions = jnp.clip(actor.apply(state.target_params["actor"], batch.next_observations) + noise, -1.0, 1.0)
        next_q = critic.apply(state.target_params["critic"], batch.next_observations, next_actions).min(0)
        penalty = config.critic_penalty * squared_distance(next_actions, batch.next_actions)
        return td_target(batch.rewards, batch.masks, next_q - penalty, config.discount)

    # Update

    def init(key: Key, batch: Transitions) -> TrainState:
        if batch.next_actions is None:
            raise ValueError("ReBRAC needs next_actions in its batches: set config.dataset.columns = ('next_actions',)")
        actor_key, critic_key = jax.random.split(key)
        params = {
            "actor": actor.init(actor_key, batch.observations),
            "critic": critic.init(critic_key, batch.observations, batch.actions),
        }
        opt_state = {name: tx.init(params[name]) for name in params}
        return TrainState.create(params, opt_state, target_params=jax.tree.map(jnp.copy, params))

    def update(state: TrainState, batch: Transitions, key: Key) -> tuple[TrainState, Metrics]:
        target = smoothed_target(state, batch, key)
        critic_params, critic_opt_state, critic_info = gradient_step(
            lambda params: critic_loss(params, target, batch), state.params["critic"], tx, state.opt_state["critic"]
        )

        def delayed(_: None) -> tuple[PyTree, PyTree, PyTree, Metrics]:
            actor_params, actor_opt_state, info = gradient_step(
                lambda params: actor_loss(params, critic_params, batch), state.params["actor"], tx,
                state.opt_state["actor"],
            )
            # The authors' target policy follows the policy from before this update.
            new = {"actor": state.params["actor"], "critic": critic_params}
            target_params = optax.incremental_update(new, state.target_params, config.tau)
            return actor_params, actor_opt_state, target_params, info

        def waiting(_: None) -> tuple[PyTree, PyTree, PyTree, Metrics]:
            return state.params["actor"], state.opt_state["actor"], state.target_params, {"actor/loss": jnp.zeros(())}

        # The policy and the targets move every policy_freq-th update, from the first on as in the authors' code; the
        # log shows the mean loss of those.
        due = state.step % config.policy_freq == 0
        actor_params, actor_opt_state, target_params, actor_info = jax.lax.cond(due, delayed, waiting, None)
        actor_info = jax.tree.map(lambda x: x * config.policy_freq, actor_info)
        state = state.replace(
            params={"actor": actor_params, "critic": critic_params},
            opt_state={"actor": actor_opt_state, "critic": critic_opt_state},
            target_params=target_params,
        )
        return state, critic_info | actor_info

    # Act

    def act(params: PyTree, observations: jax.Array, key: Key, temperature: jax.Array | float) -> jax.Array:
        del key, temperature
        return actor.apply(params["actor"], observations)

    return Agent(init, update, act)


def default_config() -> ConfigDict:
    """The authors' settings for the MuJoCo locomotion tasks; the penalties, tuned by data set, are in its recipe."""
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
