"""CQL: conservative Q-learning, and Cal-QL, its calibrated form. Soft actor-critic with critics that are pushed down
where the data say nothing.

Kumar, Zhou, Tucker and Levine 2020, "Conservative Q-Learning for Offline Reinforcement Learning", arXiv 2006.04779: the
variant CQL(H). Nakamoto et al. 2023, "Cal-QL: Calibrated Offline RL Pre-Training for Efficient Online Fine-Tuning",
arXiv 2303.05479, whose push ends at the data's returns. The updates and the settings follow CORL, which like Cal-QL's
authors takes the gradients of temperature, policy and critics from the weights before the update.
"""

import math

import jax
import jax.numpy as jnp
import optax
from ml_collections import ConfigDict

from rl_jax.agents.agent import Agent, Distribution, acting, inputs
from rl_jax.core.program import Key, Metrics, PyTree, TrainState
from rl_jax.data.transitions import Transitions
from rl_jax.losses.conservative import calibrated, conservative_gap
from rl_jax.losses.maximum_entropy import temperature_loss
from rl_jax.losses.value_learning import squared_error, td_target
from rl_jax.networks.distributions import SquashedGaussian
from rl_jax.networks.initializers import orthogonal, torch_default
from rl_jax.networks.policies import SquashedGaussianPolicy
from rl_jax.networks.trained import Networks, Trained
from rl_jax.networks.values import Critic


def cql(config: ConfigDict, action_dim: int) -> Agent:
    """Makes CQL; `config` has the fields of `default_config`. Cal-QL needs the batch's mc_returns."""
    actor = SquashedGaussianPolicy(
        config.hidden_dims, action_dim, initializer=torch_default, output_initializer=orthogonal(0.01),
        affine_log_std=True,
    )
    critic = Critic(config.hidden_dims, ensemble_size=2, output_initializer=orthogonal(0.01))
    actor_adam = optax.adam(config.actor_learning_rate)
    networks = Networks({
        "actor": Trained(actor.init, actor_adam),
        "critic": Trained(critic.init, optax.adam(config.learning_rate), config.tau),
        "temperature": Trained(lambda key: {"log_alpha": jnp.zeros(())}, actor_adam),
    })
    num_samples, target_entropy = config.num_samples, -float(action_dim)

    # Losses

    def alpha_loss(params: PyTree, log_probs: jax.Array) -> tuple[jax.Array, Metrics]:
        loss = jnp.mean(temperature_loss(params["log_alpha"], log_probs, target_entropy))
        return loss, {"temperature/loss": loss, "temperature/alpha": jnp.exp(params["log_alpha"])}

    def actor_loss(
        params: PyTree, critic_params: PyTree, alpha: jax.Array, batch: Transitions, key: Key
    ) -> tuple[jax.Array, Metrics]:
        actions, log_probs = actor.apply(params, batch.observations).sample_and_log_prob(key)
        q = critic.apply(critic_params, batch.observations, actions)
        loss = jnp.mean(alpha * log_probs - q.min(0))
        return loss, {"actor/loss": loss, "actor/entropy": -jnp.mean(log_probs)}

    def critic_loss(
        params: PyTree, target: jax.Array, sampled: jax.Array, log_densities: jax.Array, batch: Transitions
    ) -> tuple[jax.Array, Metrics]:
        """`sampled` [3 N, B, A]: N random actions, then the policy's."""
        # One product for all actions: this is nine tenths of an update's work.
        actions = jnp.concatenate([batch.actions[None], sampled])
        observations = jnp.broadcast_to(batch.observations, (len(actions), *batch.observations.shape))
        q = critic.apply(params, observations, actions)
        data_q, random_q, policy_q = q[:, 0], q[:, 1 : 1 + num_samples], q[:, 1 + num_samples :]
        info = {"critic/mean": jnp.mean(data_q)}
        if config.calibrated:
            info["critic/bounded"] = jnp.mean(policy_q < batch.mc_returns)
            policy_q = calibrated(policy_q, batch.mc_returns)  # Cal-QL, equation 5.1
        gap = jnp.sum(jnp.mean(conservative_gap(jnp.concatenate([random_q, policy_q], 1), log_densities, data_q), -1))
        loss = jnp.sum(jnp.mean(squared_error(data_q, target), -1)) + config.conservatism * gap  # equation 4
        return loss, info | {"critic/loss": loss, "critic/gap": gap}

    def proposals(policy: SquashedGaussian, next_policy: SquashedGaussian, key: Key) -> tuple[jax.Array, jax.Array]:
        """(actions [3 N, B, A], their log densities [3 N, B]): N uniform ones, N of each policy."""
        uniform_key, policy_key, next_key = jax.random.split(key, 3)
        uniform = jax.random.uniform(uniform_key, (num_samples, *policy.mean.shape), minval=-1.0, maxval=1.0)
        actions, log_probs = policy.sample_and_log_prob(policy_key, (num_samples,))
        next_actions, next_log_probs = next_policy.sample_and_log_prob(next_key, (num_samples,))
        uniform_log_density = jnp.full(uniform.shape[:2], -action_dim * math.log(2.0))
        return (
            jnp.concatenate([uniform, actions, next_actions]),
            jnp.concatenate([uniform_log_density, log_probs, next_log_probs]),
        )

    # Update

    def init(key: Key, batch: Transitions) -> TrainState:
        if config.calibrated and batch.mc_returns is None:
            raise ValueError("calibrated CQL needs batch.mc_returns: set config.dataset.columns = ('mc_returns',)")
        return networks.init(key, inputs(batch))

    def update(state: TrainState, batch: Transitions, key: Key) -> tuple[TrainState, Metrics]:
        actor_key, target_key, proposal_key = jax.random.split(key, 3)
        before = state.params
        alpha = jnp.exp(before["temperature"]["log_alpha"])
        policy, next_policy = (
            actor.apply(before["actor"], observations) for observations in (batch.observations, batch.next_observations)
        )
        _, log_probs = policy.sample_and_log_prob(actor_key)  # at the actions of the policy's loss
        state, alpha_info = networks.step(state, "temperature", alpha_loss, log_probs)
        state, actor_info = networks.step(state, "actor", actor_loss, before["critic"], alpha, batch, actor_key)
        # The target has no entropy term, in CORL's settings as in the authors' code.
        next_actions = next_policy.sample(target_key)
        next_q = critic.apply(state.target_params["critic"], batch.next_observations, next_actions).min(0)
        target = td_target(batch.rewards, batch.masks, next_q, config.discount)
        sampled, log_densities = proposals(policy, next_policy, proposal_key)
        state, critic_info = networks.step(state, "critic", critic_loss, target, sampled, log_densities, batch)
        return networks.follow(state), alpha_info | actor_info | critic_info

    # Act

    def policy(params: PyTree, observations: jax.Array) -> Distribution:
        return actor.apply(params["actor"], observations)

    return Agent(init, update, acting(policy), policy)


def default_config() -> ConfigDict:
    """Returns CORL's settings for the MuJoCo locomotion tasks."""
    return ConfigDict(
        {
            "name": "cql",
            "hidden_dims": (256, 256, 256),
            "learning_rate": 3e-4,  # of the critics
            "actor_learning_rate": 3e-5,  # of the policy and the temperature
            "discount": 0.99,
            "tau": 0.005,  # target critics
            "num_samples": 10,  # random actions an observation, and as many of the policy's here and at the next one
            "conservatism": 10.0,  # twice alpha in equation 4: the code has no 1/2 before the squared error
            "calibrated": False,  # Cal-QL
        }
    )


def cal_ql_config() -> ConfigDict:
    """Returns the settings of CORL's file of Cal-QL for the locomotion tasks, which are CQL's."""
    config = default_config()
    config.calibrated = True
    return config
