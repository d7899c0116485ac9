"""XQL: extreme Q-learning. IQL with the soft maximum of Q as its V, found by Gumbel regression.

Garg, Hejna, Geist and Ermon 2023, "Extreme Q-Learning: MaxEnt RL without Entropy", arXiv 2301.02328. The order of the
updates (V, then the policy, then Q, then the target), the stabilisers and the settings follow the authors' code, which
differs from the paper in the Huber loss of Q and in LayerNorm in V; equations are numbered as in the copy of the paper
beside that code.
"""

import jax
import jax.numpy as jnp
import optax
from ml_collections import ConfigDict

from rl_jax.agents.agent import Agent, Distribution, acting, inputs
from rl_jax.agents.weighted_cloning import implicit_networks, weighted_cloning, with_random_actions
from rl_jax.core.program import Key, Metrics, PyTree, TrainState
from rl_jax.data.transitions import Transitions
from rl_jax.losses.policy_learning import advantage_weights
from rl_jax.losses.value_learning import gumbel_loss, td_target
from rl_jax.networks.policies import GaussianPolicy
from rl_jax.networks.values import Critic, Value


def xql(config: ConfigDict, action_dim: int) -> Agent:
    """Makes XQL; `config` has the fields of `default_config`."""
    actor = GaussianPolicy(config.hidden_dims, action_dim)
    critic = Critic(config.hidden_dims, ensemble_size=2)
    value = Value(config.hidden_dims, layer_norm=True)
    networks = implicit_networks(config, actor, critic, value)

    # Losses

    def value_loss(params: PyTree, target_q: jax.Array, batch: Transitions) -> tuple[jax.Array, Metrics]:
        v = value.apply(params, batch.observations)
        loss = jnp.mean(gumbel_loss(target_q - v, config.beta, config.max_clip, config.scaled))  # equation 11
        clipped = jnp.mean(target_q - v > config.beta * config.max_clip)
        return loss, {"value/loss": loss, "value/mean": jnp.mean(v), "value/clipped": clipped}

    actor_loss = weighted_cloning(actor)  # equation 12

    def critic_loss(params: PyTree, target: jax.Array, batch: Transitions) -> tuple[jax.Array, Metrics]:
        q = critic.apply(params, batch.observations, batch.actions)
        # Equation 14, the square turned into a line beyond huber_delta; the mean over the batch, the sum over the two.
        loss = jnp.sum(jnp.mean(optax.huber_loss(q, target, delta=config.huber_delta), -1))
        return loss, {"critic/loss": loss, "critic/mean": jnp.mean(q)}

    def smoothed(batch: Transitions, key: Key) -> Transitions:
        """Where V is fitted: the batch's actions with noise, and random_actions uniform ones at each observation."""
        noise_key, uniform_key = jax.random.split(key)
        noise = jnp.clip(config.noise_std * jax.random.normal(noise_key, batch.actions.shape), -0.5, 0.5)
        noisy = batch.replace(actions=jnp.clip(batch.actions + noise, -1.0, 1.0))
        return with_random_actions(noisy, uniform_key, config.random_actions)

    # Update

    def init(key: Key, batch: Transitions) -> TrainState:
        return networks.init(key, inputs(batch))

    def update(state: TrainState, batch: Transitions, key: Key) -> tuple[TrainState, Metrics]:
        fitted = smoothed(batch, key)
        fitted_q = critic.apply(state.target_params["critic"], fitted.observations, fitted.actions).min(0)
        state, value_info = networks.step(state, "value", value_loss, fitted_q, fitted)
        target_q = critic.apply(state.target_params["critic"], batch.observations, batch.actions).min(0)
        v, next_v = value.apply(state.params["value"], jnp.stack([batch.observations, batch.next_observations]))
        weights = advantage_weights(target_q - v, config.temperature, config.max_weight)
        state, actor_info = networks.step(state, "actor", actor_loss, weights, batch)
        target = td_target(batch.rewards, batch.masks, next_v, config.discount)
        state, critic_info = networks.step(state, "critic", critic_loss, target, batch)
        return networks.follow(state), value_info | actor_info | critic_info

    # Act

    def policy(params: PyTree, observations: jax.Array) -> Distribution:
        return actor.apply(params["actor"], observations)

    return Agent(init, update, acting(policy), policy)


def default_config() -> ConfigDict:
    """Returns the authors' consistent settings: one for all MuJoCo locomotion sets."""
    return ConfigDict(
        {
            "name": "xql",
            "hidden_dims": (256, 256),
            "learning_rate": 3e-4,
            "decay_steps": 1_000_000,  # of the policy's cosine schedule; the authors' is the whole run
            "discount": 0.99,
            "tau": 0.005,  # target critic
            "beta": 2.0,  # in equation 11: V is the mean of Q for a large beta, its maximum for a small one
            "max_clip": 7.0,  # largest (Q - V) / beta that V still follows
            "scaled": True,  # whether V's loss is scaled by its batch's largest term; equation 11 is not
            "random_actions": 0,  # uniform actions an observation that V is fitted to besides the data's
            "noise_std": 0.0,  # of the noise on the data's actions where V is fitted
            "huber_delta": 20.0,  # error of Q beyond which its loss is a line, in the authors' code
            "temperature": 3.0,  # of the policy's weights: the authors keep IQL's, where equation 12 has 1 / beta
            "max_weight": 100.0,  # cap of exp(temperature A), in the authors' code
        }
    )
