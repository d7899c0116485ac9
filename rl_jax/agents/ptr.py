"""PTR's offline RL from pictures and a task's number: CQL, bounded by returns, on an encoder that comes from elsewhere.

Kumar et al. 2022, "Pre-Training for Robots", arXiv 2210.05178; the second and third phase of V-PTR (Bhateja et al.
2023, arXiv 2309.13041), as in its code. Observations are (pictures [B, H, W, C], one-hot tasks [B, K]). The encoder
learns by the critics' loss alone and the policy reads its features; the authors give the policy an encoder of its own.
"""

import math

import jax
import jax.numpy as jnp
import optax
from ml_collections import ConfigDict

from rl_jax.agents.agent import Agent, Distribution, acting
from rl_jax.core.program import Key, Metrics, PyTree, TrainState
from rl_jax.data.transitions import Transitions
from rl_jax.losses.conservative import calibrated, conservative_gap
from rl_jax.losses.maximum_entropy import temperature_loss
from rl_jax.losses.value_learning import squared_error, td_target
from rl_jax.networks.distributions import SquashedGaussian
from rl_jax.networks.encoders import Encoder
from rl_jax.networks.initializers import orthogonal
from rl_jax.networks.policies import SquashedGaussianPolicy
from rl_jax.networks.trained import Networks, Trained
from rl_jax.networks.values import Critic

Observations = tuple[jax.Array, jax.Array]


def ptr(config: ConfigDict, action_dim: int) -> Agent:
    """Makes PTR; `config` has the fields of `default_config`, batches have mc_returns where it is `calibrated`."""
    encoder, small = Encoder(config.encoder), orthogonal(0.01)
    actor = SquashedGaussianPolicy(config.hidden_dims, action_dim, log_std_min=-5.0, output_initializer=small)
    critic = Critic(config.hidden_dims, ensemble_size=2, output_initializer=small)
    adam = optax.adam(config.learning_rate)
    networks = Networks({
        "encoder": Trained(encoder.init, optax.adam(config.encoder_learning_rate), config.tau),
        "actor": Trained(actor.init, optax.adam(config.actor_learning_rate)),
        "critic": Trained(critic.init, adam, config.tau),
        "temperature": Trained(lambda key: {"log_alpha": jnp.zeros(())}, adam),
    })
    num_samples, target_entropy = config.num_samples, -float(action_dim)

    def embed(params: PyTree, observations: Observations) -> jax.Array:
        """The picture's features beside the task, [B, F + K]."""
        pictures, tasks = observations
        return jnp.concatenate([encoder.apply(params["encoder"], pictures), tasks], -1)

    def q_of(params: PyTree, embedded: jax.Array, actions: jax.Array) -> jax.Array:
        """Q_i of M actions in each state, [2, M, B]: embedded [B, F], actions [M, B, A]."""
        wide = jnp.broadcast_to(embedded, (len(actions), *embedded.shape))
        return critic.apply(params["critic"], wide, actions)

    # Losses

    def alpha_loss(params: PyTree, log_probs: jax.Array) -> tuple[jax.Array, Metrics]:
        loss = jnp.mean(temperature_loss(params["log_alpha"], log_probs, target_entropy))
        return loss, {"temperature/alpha": jnp.exp(params["log_alpha"])}

    def actor_loss(params: PyTree, before: PyTree, embedded: jax.Array, key: Key) -> tuple[jax.Array, Metrics]:
        actions, log_probs = actor.apply(params, embedded).sample_and_log_prob(key)
        q = critic.apply(before["critic"], embedded, actions).min(0)
        loss = jnp.mean(jnp.exp(before["temperature"]["log_alpha"]) * log_probs - q)
        return loss, {"actor/loss": loss, "actor/entropy": -jnp.mean(log_probs)}

    def critic_loss(
        params: PyTree, target: jax.Array, sampled: jax.Array, log_densities: jax.Array, batch: Transitions
    ) -> tuple[jax.Array, Metrics]:
        """`sampled` [2 M, B, A]: M uniform actions, then M of the policy."""
        q = q_of(params, embed(params, batch.observations), jnp.concatenate([batch.actions[None], sampled]))
        data_q, uniform_q, policy_q = q[:, 0], q[:, 1 : 1 + num_samples], q[:, 1 + num_samples :]
        if config.calibrated:  # the returns bound the policy's actions alone
            policy_q = calibrated(policy_q, batch.mc_returns)
        gap = jnp.mean(conservative_gap(jnp.concatenate([uniform_q, policy_q], 1), log_densities, data_q))
        td = jnp.mean(squared_error(data_q, target))
        return td + config.conservatism * gap, {"critic/td": td, "critic/gap": gap, "critic/mean": jnp.mean(data_q)}

    def backup(target_params: PyTree, policy: SquashedGaussian, batch: Transitions, key: Key) -> jax.Array:
        """max_j min_i Q'_i(s', a_j) over M actions of the policy, [B]: the critics' minimum first, as in the code."""
        actions, _ = policy.sample_and_log_prob(key, (num_samples if config.max_backup else 1,))
        return q_of(target_params, embed(target_params, batch.next_observations), actions).min(0).max(0)

    def proposals(policy: SquashedGaussian, key: Key) -> tuple[jax.Array, jax.Array]:
        """(actions [2 M, B, A], their log densities [2 M, B]): M uniform ones in the box, M of the policy."""
        uniform_key, policy_key = jax.random.split(key)
        uniform = jax.random.uniform(uniform_key, (num_samples, *policy.mean.shape), minval=-1.0, maxval=1.0)
        actions, log_probs = policy.sample_and_log_prob(policy_key, (num_samples,))
        log_density = jnp.full(uniform.shape[:2], -action_dim * math.log(2.0))
        return jnp.concatenate([uniform, actions]), jnp.concatenate([log_density, log_probs])

    # Update

    def init(key: Key, batch: Transitions) -> TrainState:
        if config.calibrated and batch.mc_returns is None:
            raise ValueError("calibrated PTR needs batch.mc_returns: give the data Monte-Carlo returns")
        pictures, tasks = batch.observations
        features = jax.eval_shape(lambda: encoder.init_with_output(key, pictures)[0])
        embedded = jnp.zeros((len(tasks), features.shape[-1] + tasks.shape[-1]))
        return networks.init(key, {
            "encoder": (pictures,), "actor": (embedded,), "critic": (embedded, batch.actions), "temperature": (),
        })

    def update(state: TrainState, batch: Transitions, key: Key) -> tuple[TrainState, Metrics]:
        actor_key, backup_key, proposal_key = jax.random.split(key, 3)
        before = state.params
        here, ahead = (embed(before, seen) for seen in (batch.observations, batch.next_observations))
        policy, next_policy = (actor.apply(before["actor"], embedded) for embedded in (here, ahead))
        _, log_probs = policy.sample_and_log_prob(actor_key)  # at the actions of the policy's loss
        state, alpha_info = networks.step(state, "temperature", alpha_loss, log_probs)
        state, actor_info = networks.step(state, "actor", actor_loss, before, here, actor_key)
        next_q = backup(state.target_params, next_policy, batch, backup_key)
        target = td_target(batch.rewards, batch.masks, next_q, config.discount)
        both = {name: before[name] for name in ("encoder", "critic")}
        gradients, info = jax.grad(critic_loss, has_aux=True)(both, target, *proposals(policy, proposal_key), batch)
        for name, gradient in gradients.items():
            state, norms = networks.apply_gradient(state, name, gradient)
            info |= norms
        return networks.follow(state), info | alpha_info | actor_info

    # Act

    def policy(params: PyTree, observations: Observations) -> Distribution:
        return actor.apply(params["actor"], embed(params, observations))

    return Agent(init, update, acting(policy), policy)


def default_config() -> ConfigDict:
    """Returns the authors' settings for the robot, but for the encoder."""
    return ConfigDict(
        {
            "name": "ptr",
            "encoder": "impala_cnn",  # the authors': ResNet with group norm
            "hidden_dims": (1024, 1024, 1024),
            "learning_rate": 3e-4,  # of critics and temperature
            "actor_learning_rate": 1e-4,
            "encoder_learning_rate": 3e-4,  # 0 freezes the encoder
            "discount": 0.96,
            "tau": 0.005,  # target encoder and critics
            "num_samples": 4,  # M, uniform actions and as many of the policy
            "conservatism": 5.0,  # alpha
            "max_backup": True,  # the best of M actions at s' is bootstrapped
            "calibrated": True,  # Q of the policy's actions is bounded below by the data's returns
        }
    )
