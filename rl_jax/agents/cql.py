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

from rl_jax.agents.agent import Agent, gradient_step
from rl_jax.core.program import Key, Metrics, PyTree, TrainState
from rl_jax.data.transitions import Transitions
from rl_jax.losses.conservative import calibrated, conservative_gap
from rl_jax.losses.maximum_entropy import sample_squashed, temperature_loss
from rl_jax.losses.value_learning import squared_error, td_target
from rl_jax.networks.policies import SquashedGaussianPolicy
from rl_jax.networks.values import Critic


def draw_noise(key: Key, num_samples: int, shape: tuple[int, ...]) -> tuple[jax.Array, jax.Array]:
    """All the noise of an update of actions [B, A]: normal [2, 1 + N, B, A] and uniform in +-1 [N, B, A]."""
    normal_key, uniform_key = jax.random.split(key)
    uniform = jax.random.uniform(uniform_key, (num_samples, *shape), minval=-1.0, maxval=1.0)
    return jax.random.normal(normal_key, (2, 1 + num_samples, *shape)), uniform


def cql(config: ConfigDict, action_dim: int) -> Agent:
    """CQL; `config` as `default_config` or `cal_ql_config`, which needs the batch's mc_returns."""
    actor = SquashedGaussianPolicy(config.hidden_dims, action_dim, initializer="torch_flat", affine_log_std=True)
    critic = Critic(config.hidden_dims, ensemble_size=2, initializer="orthogonal_flat")
    actor_tx = optax.adam(config.actor_learning_rate)
    tx = {"actor": actor_tx, "critic": optax.adam(config.learning_rate), "temperature": actor_tx}
    num_samples, target_entropy = config.num_samples, -float(action_dim)

    # Losses

    def alpha_loss(params: PyTree, log_probs: jax.Array) -> tuple[jax.Array, Metrics]:
        loss = jnp.mean(temperature_loss(params["log_alpha"], log_probs, target_entropy))
        return loss, {"temperature/loss": loss, "temperature/alpha": jnp.exp(params["log_alpha"])}

    def actor_loss(
        params: PyTree, critic_params: PyTree, alpha: jax.Array, noise: jax.Array, batch: Transitions
    ) -> tuple[jax.Array, Metrics]:
        actions, log_probs = sample_squashed(noise, *actor.apply(params, batch.observations))
        q = critic.apply(critic_params, batch.observations, actions).min(0)
        loss = jnp.mean(alpha * log_probs - q)
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

    # Update

    def init(key: Key, batch: Transitions) -> TrainState:
        actor_key, critic_key = jax.random.split(key)
        params = {
            "actor": actor.init(actor_key, batch.observations),
            "critic": critic.init(critic_key, batch.observations, batch.actions),
            "temperature": {"log_alpha": jnp.zeros(())},
        }
        opt_state = {name: tx[name].init(params[name]) for name in params}
        return TrainState.create(params, opt_state, target_params={"critic": jax.tree.map(jnp.copy, params["critic"])})

    def update(state: TrainState, batch: Transitions, key: Key) -> tuple[TrainState, Metrics]:
        if config.calibrated and batch.mc_returns is None:
            raise ValueError("calibrated CQL needs batch.mc_returns: set config.dataset.columns = ('mc_returns',)")
        params, opt_state = dict(state.params), dict(state.opt_state)
        normal, uniform = draw_noise(key, num_samples, batch.actions.shape)
        policy, next_policy = (actor.apply(params["actor"], x) for x in (batch.observations, batch.next_observations))
        actions, log_probs = sample_squashed(normal[0], *policy)
        next_actions, next_log_probs = sample_squashed(normal[1], *next_policy)
        # The first of each is for the policy's loss and the target, the others are for the regulariser.
        sampled = jnp.concatenate([uniform, actions[1:], next_actions[1:]])
        uniform_log_density = jnp.full(uniform.shape[:2], -action_dim * math.log(2.0))
        log_densities = jnp.concatenate([uniform_log_density, log_probs[1:], next_log_probs[1:]])
        # The target has no entropy term, in CORL's settings as in the authors' code.
        next_q = critic.apply(state.target_params["critic"], batch.next_observations, next_actions[0]).min(0)
        target = td_target(batch.rewards, batch.masks, next_q, config.discount)

        alpha = jnp.exp(params["temperature"]["log_alpha"])
        losses = {
            "temperature": lambda p: alpha_loss(p, log_probs[0]),
            "actor": lambda p: actor_loss(p, state.params["critic"], alpha, normal[0, 0], batch),
            "critic": lambda p: critic_loss(p, target, sampled, log_densities, batch),
        }
        info: Metrics = {}
        for name, loss in losses.items():
            params[name], opt_state[name], metrics = gradient_step(loss, params[name], tx[name], opt_state[name])
            info |= metrics
        target_params = {
            "critic": optax.incremental_update(params["critic"], state.target_params["critic"], config.tau)
        }
        return state.replace(params=params, opt_state=opt_state, target_params=target_params), info

    # Act

    def act(params: PyTree, observations: jax.Array, key: Key, temperature: jax.Array | float) -> jax.Array:
        mean, log_std = actor.apply(params["actor"], observations)
        noise = jax.random.normal(key, mean.shape)
        return jnp.tanh(mean + temperature * jnp.exp(log_std) * noise)

    return Agent(init, update, act)


def default_config() -> ConfigDict:
    """CORL's settings for the MuJoCo locomotion tasks."""
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
    """Cal-QL with the settings of CORL's file for the locomotion tasks, which are CQL's."""
    config = default_config()
    config.calibrated = True
    return config
