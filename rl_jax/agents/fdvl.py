"""f-DVL: XQL with another f-divergence in place of reverse KL, whose loss of V grows at most quadratically.

Sikchi, Zheng, Zhang and Niekum 2023, "Dual RL: Unification and New Methods for Reinforcement and Imitation Learning",
arXiv 2302.08560. The order of the updates (V, then the policy, then Q, then the target), LayerNorm in V, the Huber loss
of Q and the settings follow the authors' code, which is XQL's with this loss of V.
"""

import jax
import jax.numpy as jnp
import optax
from ml_collections import ConfigDict

from rl_jax.agents.agent import Agent, gradient_step
from rl_jax.core.config import unknown
from rl_jax.core.program import Key, Metrics, PyTree, TrainState
from rl_jax.data.transitions import Transitions
from rl_jax.losses.divergence import SURROGATES
from rl_jax.losses.policy_learning import advantage_weighted_loss, advantage_weights, gaussian_log_prob
from rl_jax.losses.value_learning import implicit_maximum_loss, td_target
from rl_jax.networks.policies import GaussianPolicy
from rl_jax.networks.values import Critic, Value


def fdvl(config: ConfigDict, action_dim: int) -> Agent:
    """f-DVL; `config` as `default_config`."""
    if config.surrogate not in SURROGATES:
        raise ValueError(unknown("surrogate", config.surrogate, SURROGATES))
    surrogate = SURROGATES[config.surrogate]
    actor = GaussianPolicy(config.hidden_dims, action_dim)
    critic = Critic(config.hidden_dims, ensemble_size=2)
    value = Value(config.hidden_dims, layer_norm=True)
    tx = optax.adam(config.learning_rate)
    # The authors anneal the policy's learning rate alone.
    actor_tx = optax.adam(optax.cosine_decay_schedule(config.learning_rate, config.decay_steps))

    # Losses

    def value_loss(params: PyTree, target_q: jax.Array, batch: Transitions) -> tuple[jax.Array, Metrics]:
        v = value.apply(params, batch.observations)
        loss = jnp.mean(implicit_maximum_loss(target_q - v, surrogate, config.lam))
        # Where chi2 as coded pulls V down again, away from Q.
        far = jnp.mean(target_q - v < -4.0)
        return loss, {"value/loss": loss, "value/mean": jnp.mean(v), "value/far": far}

    def critic_loss(params: PyTree, next_v: jax.Array, batch: Transitions) -> tuple[jax.Array, Metrics]:
        q = critic.apply(params, batch.observations, batch.actions)
        target = td_target(batch.rewards, batch.masks, next_v, config.discount)
        # A line beyond huber_delta; the mean over the batch, the sum over the two critics.
        loss = jnp.sum(jnp.mean(optax.huber_loss(q, target, delta=config.huber_delta), -1))
        return loss, {"critic/loss": loss, "critic/mean": jnp.mean(q)}

    def actor_loss(params: PyTree, advantages: jax.Array, batch: Transitions) -> tuple[jax.Array, Metrics]:
        log_probs = gaussian_log_prob(batch.actions, *actor.apply(params, batch.observations))
        weights = advantage_weights(advantages, config.temperature, config.max_weight)
        loss = jnp.mean(advantage_weighted_loss(log_probs, weights))
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
    """The authors' settings for the MuJoCo locomotion tasks; they publish no table of lam, and sweep 0.6 to 0.95."""
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
            "huber_delta": 20.0,  # error of Q beyond which its loss is a line, in the authors' code
            "temperature": 3.0,  # of the policy's weights
            "max_weight": 100.0,  # cap of exp(temperature A), in the authors' code
        }
    )
