"""PPO: proximal policy optimisation, for discrete actions and for continuous ones in [-1, 1].

Schulman et al. 2017, "Proximal Policy Optimization Algorithms", arXiv 1707.06347. One step collects a roll-out and
makes a few epochs of minibatch updates on it. What the paper leaves open is stable-baselines3's: advantages normalised
within each minibatch (by the sample's deviation), one optimiser and one gradient clip for policy and values, Adam's
epsilon of 1e-5, time-outs that bootstrap.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax
from ml_collections import ConfigDict

from rl_jax.agents.online import OnlineAgent, Steps, collect, start
from rl_jax.core.mesh import shard_batch
from rl_jax.core.program import Key, Metrics, PyTree, TrainState
from rl_jax.envs.environment import Environment
from rl_jax.losses.advantages import generalized_advantages
from rl_jax.losses.policy_gradient import clipped_value_loss, entropy_loss, policy_gradient_loss
from rl_jax.networks.policies import ActorCritic
from rl_jax.networks.trained import Networks, Trained


class Minibatch(NamedTuple):
    """Steps that an update learns from; every leaf is [B, ...]."""

    observations: jax.Array
    actions: jax.Array
    log_prob: jax.Array
    values: jax.Array
    advantages: jax.Array


def ppo(config: ConfigDict, environment: Environment) -> OnlineAgent:
    """Makes PPO; `config` has the fields of `default_config`.

    Raises:
      ValueError: the batch size does not divide the roll-out.
    """
    rollout_size = config.num_envs * config.num_steps
    if rollout_size % config.batch_size:
        raise ValueError(
            f"batch_size={config.batch_size} does not divide num_envs * num_steps = {rollout_size}: change one"
        )
    updates = config.num_epochs * (rollout_size // config.batch_size)
    network = ActorCritic(
        config.hidden_dims, environment.num_actions, config.encoder, config.activation, config.continuous
    )
    learning_rate = config.learning_rate
    if config.decay_steps:
        learning_rate = optax.linear_schedule(config.learning_rate, 0.0, config.decay_steps * updates)
    tx = optax.chain(optax.clip_by_global_norm(config.max_grad_norm), optax.adam(learning_rate, eps=1e-5))
    networks = Networks({"actor_critic": Trained(network.init, tx)})

    def standard(key: Key, shape: tuple[int, ...]) -> jax.Array:
        """The noise that the policy's draws are made of."""
        return jax.random.normal(key, shape) if config.continuous else jax.random.gumbel(key, shape)

    # Losses

    def loss(params: PyTree, batch: Minibatch) -> tuple[jax.Array, Metrics]:
        policy, values = network.apply(params, batch.observations)
        mask = jnp.ones_like(values)
        advantages = (batch.advantages - jnp.mean(batch.advantages)) / (jnp.std(batch.advantages, ddof=1) + 1e-8)
        actor_loss, actor_info = policy_gradient_loss(
            policy.log_prob(batch.actions), batch.log_prob, advantages, mask,
            clip_low=config.clip, clip_high=config.clip,
        )  # equation 7
        returns = batch.advantages + batch.values
        value_loss, value_info = clipped_value_loss(values, batch.values, returns, mask, clip=config.value_clip)
        exploration_loss, entropy_info = entropy_loss(policy.entropy(), mask)
        total = actor_loss + config.value_coefficient * value_loss + config.entropy_coefficient * exploration_loss
        return total, actor_info | value_info | entropy_info  # equation 9

    # Update

    def init(key: Key) -> TrainState:
        network_key, start_key = jax.random.split(key)
        copies = start(environment, config.num_envs, start_key)
        return networks.init(network_key, {"actor_critic": (copies.observations,)}, extra={"copies": copies})

    def to_learn_from(params: PyTree, rollout: Steps) -> Minibatch:
        """The whole roll-out as one batch, [T * N, ...]."""
        policy, values = network.apply(params, rollout.observations)
        _, next_values = network.apply(params, rollout.next_observations)
        advantages = generalized_advantages(
            rollout.rewards, rollout.masks, rollout.ends, values, next_values, config.discount, config.gae_lambda
        )
        log_prob = policy.log_prob(rollout.actions)
        batch = Minibatch(rollout.observations, rollout.actions, log_prob, values, advantages)
        return jax.tree.map(lambda x: x.reshape(rollout_size, *x.shape[2:]), batch)

    def update(state: TrainState, batch: Minibatch, key: Key) -> tuple[TrainState, Metrics]:
        """Epochs of minibatch updates, each epoch in an order of its own."""

        def one_update(state: TrainState, rows: jax.Array) -> tuple[TrainState, Metrics]:
            minibatch = shard_batch(jax.tree.map(lambda x: x[rows], batch))
            return networks.step(state, "actor_critic", loss, minibatch)

        # A loop in a loop: on a CPU with several cores one loop over all updates was a quarter slower.
        def one_epoch(state: TrainState, key: Key) -> tuple[TrainState, Metrics]:
            order = jax.random.permutation(key, rollout_size)
            return jax.lax.scan(one_update, state, order.reshape(-1, config.batch_size))

        state, infos = jax.lax.scan(one_epoch, state, jax.random.split(key, config.num_epochs))
        return state, jax.tree.map(jnp.mean, infos)

    def learn(state: TrainState, rollout: Steps, key: Key) -> tuple[TrainState, Metrics]:
        return update(state, to_learn_from(state.params["actor_critic"], rollout), key)

    def step(state: TrainState, key: Key) -> tuple[TrainState, Metrics]:
        draw_key, collect_key, update_key = jax.random.split(key, 3)
        params = state.params["actor_critic"]
        noise = standard(draw_key, (config.num_steps, config.num_envs, environment.num_actions))

        def choose(observations: jax.Array, noise: jax.Array) -> jax.Array:
            return network.apply(params, observations)[0].from_noise(noise)

        copies, rollout, episodes = collect(environment, state.extra["copies"], choose, noise, collect_key)
        state, info = learn(state.replace(extra={**state.extra, "copies": copies}), rollout, update_key)
        return state, episodes | info

    # Act

    def act(params: PyTree, observations: jax.Array, key: Key, temperature: jax.Array | float) -> jax.Array:
        policy, _ = network.apply(params["actor_critic"], observations)
        noise = standard(key, (len(observations), environment.num_actions))
        return policy.from_noise(temperature * noise)

    return OnlineAgent(init, step, act, learn)


def default_config() -> ConfigDict:
    """Returns the settings of SQIRL's baseline (Laidlaw et al. 2023, arXiv 2312.08369), by its authors' code."""
    return ConfigDict(
        {
            "name": "ppo",
            "hidden_dims": (64, 64),  # of policy and values each; () on an encoder
            "encoder": "none",  # or "nature_cnn", for screens
            "activation": "relu",
            "continuous": False,  # whether the policy is a Gaussian; draws beyond [-1, 1] are the environment's to clip
            "num_envs": 8,
            "num_steps": 128,  # of each environment in a roll-out
            "num_epochs": 4,
            "batch_size": 256,
            "learning_rate": 2.5e-4,
            "decay_steps": 0,  # over which the learning rate falls linearly to 0, a roll-out a step; 0 keeps it
            "discount": 0.99,  # 1 in BRIDGE's finite horizons
            "gae_lambda": 0.95,
            "clip": 0.1,
            "value_clip": float("inf"),
            "value_coefficient": 0.5,
            "entropy_coefficient": 0.01,
            "max_grad_norm": 0.5,
        }
    )
