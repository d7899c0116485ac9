"""SAC: soft actor-critic, and SAC-N, the same with N critics instead of two.

Haarnoja et al. 2018, "Soft Actor-Critic Algorithms and Applications", arXiv 1812.05905. SAC-N is section 3 of An et al.
2021, "Uncertainty-Based Offline Reinforcement Learning with Diversified Q-Ensemble", arXiv 2110.01548: the minimum over
many critics is pessimism enough to learn from data alone. The updates come in the order of the second paper's code: the
temperature, then the policy, then the critics. As in CORL each sees what the one before it has made, where that code
takes all three from the weights before the update; the first paper's starts with the critics.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import optax
from ml_collections import ConfigDict

from rl_jax.agents.agent import Agent, gradient_step
from rl_jax.core.program import Key, Metrics, PyTree, TrainState
from rl_jax.data.transitions import Transitions
from rl_jax.losses.maximum_entropy import sample_squashed, temperature_loss
from rl_jax.losses.value_learning import squared_error, td_target
from rl_jax.networks.policies import SquashedGaussianPolicy
from rl_jax.networks.values import Critic

# (critic, params, batch) -> (loss, info), added to the critics' loss.
CriticRegularizer = Callable[[Critic, PyTree, Transitions], tuple[jax.Array, Metrics]]


def sac(config: ConfigDict, action_dim: int, critic_regularizer: CriticRegularizer | None = None) -> Agent:
    """SAC; `config` as `default_config` or `sac_n_config`.

    `critic_regularizer` is for papers that keep SAC and add a term to the critics' loss.
    """
    # The second paper's initial weights, here for SAC too.
    actor = SquashedGaussianPolicy(config.hidden_dims, action_dim, config.log_std_min, initializer="small_output")
    critic = Critic(config.hidden_dims, config.num_critics, initializer="small_output")
    tx = optax.adam(config.learning_rate)
    target_entropy = -float(action_dim)  # appendix D

    def sample_actions(actor_params: PyTree, observations: jax.Array, key: Key) -> tuple[jax.Array, jax.Array]:
        mean, log_std = actor.apply(actor_params, observations)
        return sample_squashed(jax.random.normal(key, mean.shape), mean, log_std)

    # Losses

    def alpha_loss(params: PyTree, log_probs: jax.Array) -> tuple[jax.Array, Metrics]:
        loss = jnp.mean(temperature_loss(params["log_alpha"], log_probs, target_entropy))  # equation 18
        return loss, {"temperature/loss": loss, "temperature/alpha": jnp.exp(params["log_alpha"])}

    def actor_loss(
        params: PyTree, critic_params: PyTree, alpha: jax.Array, batch: Transitions, key: Key
    ) -> tuple[jax.Array, Metrics]:
        actions, log_probs = sample_actions(params, batch.observations, key)
        q = critic.apply(critic_params, batch.observations, actions)
        loss = jnp.mean(alpha * log_probs - q.min(0))  # equation 9
        return loss, {"actor/loss": loss, "actor/entropy": -jnp.mean(log_probs)}

    def critic_loss(params: PyTree, target: jax.Array, batch: Transitions) -> tuple[jax.Array, Metrics]:
        q = critic.apply(params, batch.observations, batch.actions)
        loss = jnp.sum(jnp.mean(squared_error(q, target), -1))  # equation 5, twice: the authors halve the error
        info = {"critic/mean": jnp.mean(q), "critic/std": jnp.mean(q.std(0))}
        if critic_regularizer is not None:
            extra, extra_info = critic_regularizer(critic, params, batch)
            loss, info = loss + extra, info | extra_info
        return loss, info | {"critic/loss": loss}

    def soft_target(
        state: TrainState, actor_params: PyTree, alpha: jax.Array, batch: Transitions, key: Key
    ) -> jax.Array:
        """r + gamma (min_i Q_i'(s', a') - alpha log pi(a'|s')), with a' of the policy: equations 3 and 5."""
        next_actions, next_log_probs = sample_actions(actor_params, batch.next_observations, key)
        next_q = critic.apply(state.target_params["critic"], batch.next_observations, next_actions).min(0)
        return td_target(batch.rewards, batch.masks, next_q - alpha * next_log_probs, config.discount)

    # Update

    def init(key: Key, batch: Transitions) -> TrainState:
        actor_key, critic_key = jax.random.split(key)
        params = {
            "actor": actor.init(actor_key, batch.observations),
            "critic": critic.init(critic_key, batch.observations, batch.actions),
            "temperature": {"log_alpha": jnp.zeros(())},
        }
        opt_state = {name: tx.init(params[name]) for name in params}
        return TrainState.create(params, opt_state, target_params={"critic": jax.tree.map(jnp.copy, params["critic"])})

    def update(state: TrainState, batch: Transitions, key: Key) -> tuple[TrainState, Metrics]:
        alpha_key, actor_key, target_key = jax.random.split(key, 3)
        params, opt_state = dict(state.params), dict(state.opt_state)
        _, log_probs = sample_actions(params["actor"], batch.observations, alpha_key)
        params["temperature"], opt_state["temperature"], alpha_info = gradient_step(
            lambda p: alpha_loss(p, log_probs), params["temperature"], tx, opt_state["temperature"]
        )
        alpha = jnp.exp(params["temperature"]["log_alpha"])
        params["actor"], opt_state["actor"], actor_info = gradient_step(
            lambda p: actor_loss(p, params["critic"], alpha, batch, actor_key), params["actor"], tx, opt_state["actor"]
        )
        target = soft_target(state, params["actor"], alpha, batch, target_key)
        params["critic"], opt_state["critic"], critic_info = gradient_step(
            lambda p: critic_loss(p, target, batch), params["critic"], tx, opt_state["critic"]
        )
        target_params = {
            "critic": optax.incremental_update(params["critic"], state.target_params["critic"], config.tau)
        }
        state = state.replace(params=params, opt_state=opt_state, target_params=target_params)
        return state, alpha_info | actor_info | critic_info

    # Act

    def act(params: PyTree, observations: jax.Array, key: Key, temperature: jax.Array | float) -> jax.Array:
        mean, log_std = actor.apply(params["actor"], observations)
        noise = jax.random.normal(key, mean.shape)
        return jnp.tanh(mean + temperature * jnp.exp(log_std) * noise)

    return Agent(init, update, act)


def default_config() -> ConfigDict:
    """The authors' settings for learning online in the MuJoCo locomotion tasks."""
    return ConfigDict(
        {
            "name": "sac",
            "hidden_dims": (256, 256),
            "learning_rate": 3e-4,  # of all three
            "discount": 0.99,
            "tau": 0.005,  # target critics
            "num_critics": 2,
            "log_std_min": -20.0,
        }
    )


def sac_n_config() -> ConfigDict:
    """SAC-N's settings for the MuJoCo locomotion data; how many critics a set needs is in its recipe."""
    config = default_config()
    config.update({"hidden_dims": (256, 256, 256), "num_critics": 10, "log_std_min": -5.0})
    return config
