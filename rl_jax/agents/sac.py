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

from rl_jax.agents.agent import Agent, Distribution, acting, inputs
from rl_jax.core.program import Key, Metrics, PyTree, TrainState
from rl_jax.data.transitions import Transitions
from rl_jax.losses.maximum_entropy import temperature_loss
from rl_jax.losses.value_learning import squared_error, td_target
from rl_jax.networks.initializers import fan_in_uniform, uniform
from rl_jax.networks.policies import SquashedGaussianPolicy
from rl_jax.networks.trained import Networks, Trained
from rl_jax.networks.values import Critic

# (critic, params, batch) -> (loss, info), added to the critics' loss.
CriticRegularizer = Callable[[Critic, PyTree, Transitions], tuple[jax.Array, Metrics]]


def sac(config: ConfigDict, action_dim: int, critic_regularizer: CriticRegularizer | None = None) -> Agent:
    """Makes SAC; `config` has the fields of `default_config`.

    `critic_regularizer` is for papers that keep SAC and add a term to the critics' loss.
    """
    # The second paper's initial weights, here for SAC too.
    hidden = fan_in_uniform(bias=0.1)
    actor = SquashedGaussianPolicy(
        config.hidden_dims, action_dim, config.log_std_min, initializer=hidden, output_initializer=uniform(1e-3)
    )
    critic = Critic(config.hidden_dims, config.num_critics, initializer=hidden, output_initializer=uniform(3e-3))
    adam = optax.adam(config.learning_rate)
    networks = Networks({
        "actor": Trained(actor.init, adam),
        "critic": Trained(critic.init, adam, config.tau),
        "temperature": Trained(lambda key: {"log_alpha": jnp.zeros(())}, adam),
    })
    target_entropy = -float(action_dim)  # appendix D

    # Losses

    def alpha_loss(params: PyTree, log_probs: jax.Array) -> tuple[jax.Array, Metrics]:
        loss = jnp.mean(temperature_loss(params["log_alpha"], log_probs, target_entropy))  # equation 18
        return loss, {"temperature/loss": loss, "temperature/alpha": jnp.exp(params["log_alpha"])}

    def actor_loss(
        params: PyTree, critic_params: PyTree, alpha: jax.Array, batch: Transitions, key: Key
    ) -> tuple[jax.Array, Metrics]:
        actions, log_probs = actor.apply(params, batch.observations).sample_and_log_prob(key)
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

    def soft_target(state: TrainState, alpha: jax.Array, batch: Transitions, key: Key) -> jax.Array:
        """r + gamma (min_i Q_i'(s', a') - alpha log pi(a'|s')), with a' of the policy: equations 3 and 5."""
        policy = actor.apply(state.params["actor"], batch.next_observations)
        next_actions, next_log_probs = policy.sample_and_log_prob(key)
        next_q = critic.apply(state.target_params["critic"], batch.next_observations, next_actions).min(0)
        return td_target(batch.rewards, batch.masks, next_q - alpha * next_log_probs, config.discount)

    # Update

    def init(key: Key, batch: Transitions) -> TrainState:
        return networks.init(key, inputs(batch))

    def update(state: TrainState, batch: Transitions, key: Key) -> tuple[TrainState, Metrics]:
        alpha_key, actor_key, target_key = jax.random.split(key, 3)
        _, log_probs = actor.apply(state.params["actor"], batch.observations).sample_and_log_prob(alpha_key)
        state, alpha_info = networks.step(state, "temperature", alpha_loss, log_probs)
        alpha = jnp.exp(state.params["temperature"]["log_alpha"])
        state, actor_info = networks.step(
            state, "actor", actor_loss, state.params["critic"], alpha, batch, actor_key
        )
        target = soft_target(state, alpha, batch, target_key)
        state, critic_info = networks.step(state, "critic", critic_loss, target, batch)
        return networks.follow(state), alpha_info | actor_info | critic_info

    # Act

    def policy(params: PyTree, observations: jax.Array) -> Distribution:
        return actor.apply(params["actor"], observations)

    return Agent(init, update, acting(policy), policy)


def default_config() -> ConfigDict:
    """Returns the authors' settings for learning online in the MuJoCo locomotion tasks."""
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
    """Returns SAC-N's settings for the MuJoCo locomotion data; how many critics a set needs is in its recipe."""
    config = default_config()
    config.update({"hidden_dims": (256, 256, 256), "num_critics": 10, "log_std_min": -5.0})
    return config
