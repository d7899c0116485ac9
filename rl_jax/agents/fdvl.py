"""f-DVL: XQL with another f-divergence in place of reverse KL, whose loss of V grows at most quadratically.

Sikchi, Zheng, Zhang and Niekum 2023, "Dual RL: Unification and New Methods for Reinforcement and Imitation Learning",
arXiv 2302.08560. The order of the updates (V, then the policy, then Q, then the target), LayerNorm in V, the Huber loss
of Q and the settings follow the authors' code, which is XQL's with this loss of V.
"""

import jax
import jax.numpy as jnp
import optax
from ml_collections import ConfigDict

from rl_jax.agents.agent import Agent, Distribution, acting, inputs
from rl_jax.agents.weighted_cloning import implicit_networks, weighted_cloning, with_random_actions
from rl_jax.core.config import unknown
from rl_jax.core.program import Key, Metrics, PyTree, TrainState
from rl_jax.data.transitions import Transitions
from rl_jax.losses.divergence import SURROGATES
from rl_jax.losses.policy_learning import advantage_weights
from rl_jax.losses.value_learning import implicit_maximum_loss, td_target
from rl_jax.networks.policies import GaussianPolicy
from rl_jax.networks.values import Critic, Value


def fdvl(config: ConfigDict, action_dim: int) -> Agent:
    """Makes f-DVL; `config` has the fields of `default_config`.

    Raises:
      ValueError: there is no such surrogate.
    """
    if config.surrogate not in SURROGATES:
        raise ValueError(unknown("surrogate", config.surrogate, SURROGATES))
    surrogate = SURROGATES[config.surrogate]
    actor = GaussianPolicy(config.hidden_dims, action_dim)
    critic = Critic(config.hidden_dims, ensemble_size=2)
    value = Value(config.hidden_dims, layer_norm=True)
    networks = implicit_networks(config, actor, critic, value)

    # Losses

    def value_loss(params: PyTree, target_q: jax.Array, batch: Transitions) -> tuple[jax.Array, Metrics]:
        v = value.apply(params, batch.observations)
        loss = jnp.mean(implicit_maximum_loss(target_q - v, surrogate, config.lam))
        # Where chi2 as coded pulls V down again, away from Q.
        far = jnp.mean(target_q - v < -4.0)
        return loss, {"value/loss": loss, "value/mean": jnp.mean(v), "value/far": far}

    actor_loss = weighted_cloning(actor)

    def critic_loss(params: PyTree, target: jax.Array, batch: Transitions) -> tuple[jax.Array, Metrics]:
        q = critic.apply(params, batch.observations, batch.actions)
        # A line beyond huber_delta; the mean over the batch, the sum over the two critics.
        loss = jnp.sum(jnp.mean(optax.huber_loss(q, target, delta=config.huber_delta), -1))
        return loss, {"critic/loss": loss, "critic/mean": jnp.mean(q)}

    # Update

    def init(key: Key, batch: Transitions) -> TrainState:
        return networks.init(key, inputs(batch))

    def update(state: TrainState, batch: Transitions, key: Key) -> tuple[TrainState, Metrics]:
        fitted = with_random_actions(batch, key, config.random_actions)
        fitted_q = critic.apply(state.target_params["critic"], fitted.observations, fitted.actions).min(0)
        state, value_info = networks.step(state, "value", value_loss, fitted_q, fitted)
        target_q = fitted_q[: len(batch.rewards)]  # of the data's actions
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
    """Returns the authors' settings for MuJoCo locomotion; they publish no table of lam, and sweep 0.6 to 0.95."""
    return ConfigDict(
        {
            "name": "fdvl",
            "hidden_dims": (256, 256),
            "learning_rate": 3e-4,
            "decay_steps": 1_000_000,  # of the policy's cosine schedule; the authors' is the whole run
            "discount": 0.99,
            "tau": 0.005,  # target critic
            "surrogate": "total_variation",  # or chi2_hinged, or chi2_coded as in the authors' code
            "lam": 0.8,  # above 1/2: the larger, the nearer V to the maximum of Q over the data's actions
            "random_actions": 0,  # uniform actions an observation that V is fitted to besides the data's
            "huber_delta": 20.0,  # error of Q beyond which its loss is a line, in the authors' code
            "temperature": 3.0,  # of the policy's weights
            "max_weight": 100.0,  # cap of exp(temperature A), in the authors' code
        }
    )
