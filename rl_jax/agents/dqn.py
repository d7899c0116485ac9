"""DQN: deep Q-learning with a replay buffer and a target network.

Mnih et al. 2015, "Human-level control through deep reinforcement learning", Nature 518. One step acts `train_every`
times in all copies of the environment and makes one update. The rest is stable-baselines3's: time-outs bootstrap, the
first `learning_starts` steps act at random and train nothing, the target is copied before the update, the gradient is
clipped at a norm of 10.

The buffer lies on the device as a part of the state: buffer_size times the bytes of two observations and 13 more.
"""

import jax
import jax.numpy as jnp
import optax
from ml_collections import ConfigDict

from rl_jax.agents.online import OnlineAgent, Steps, collect, start
from rl_jax.core.mesh import shard_batch
from rl_jax.core.program import Key, Metrics, PyTree, TrainState
from rl_jax.data.transitions import sample_rows
from rl_jax.envs.environment import Environment
from rl_jax.losses.value_learning import td_target, values_of_actions
from rl_jax.networks.trained import Networks, Trained, every, when
from rl_jax.networks.values import DiscreteCritic


def dqn(config: ConfigDict, environment: Environment) -> OnlineAgent:
    """Makes DQN; `config` has the fields of `default_config`.

    Raises:
      ValueError: the buffer does not hold a whole number of steps' collections.
    """
    collected = config.num_envs * config.train_every  # environment steps in one step
    if config.buffer_size % collected:
        raise ValueError(
            f"buffer_size={config.buffer_size} is no multiple of num_envs * train_every = {collected}: change one"
        )
    critic = DiscreteCritic(config.hidden_dims, environment.num_actions, config.encoder)
    tx = optax.chain(optax.clip_by_global_norm(config.max_grad_norm), optax.adam(config.learning_rate))
    networks = Networks({"critic": Trained(critic.init, tx, tau=1.0)})
    target_period = max(config.target_every // collected, 1)  # in steps

    # Losses

    def critic_loss(params: PyTree, target: jax.Array, batch: Steps) -> tuple[jax.Array, Metrics]:
        q = values_of_actions(critic.apply(params, batch.observations), batch.actions)
        loss = jnp.mean(optax.huber_loss(q, target))  # the methods' clip of the error's gradient to +-1
        return loss, {"critic/loss": loss, "critic/mean": jnp.mean(q)}

    # Update

    def init(key: Key) -> TrainState:
        network_key, start_key = jax.random.split(key)
        copies = start(environment, config.num_envs, start_key)
        buffer = empty_buffer(copies.observations, config.buffer_size)
        extra = {"copies": copies, "buffer": buffer, "added": jnp.zeros((), jnp.int32)}
        return networks.init(network_key, {"critic": (copies.observations,)}, extra)

    def explored(key: Key, step: jax.Array) -> tuple[jax.Array, jax.Array]:
        """Which actions are random, [T, N] bool, and what those are."""
        chance_key, action_key = jax.random.split(key)
        shape = (config.train_every, config.num_envs)
        random_actions = jax.random.randint(action_key, shape, 0, environment.num_actions)
        return jax.random.uniform(chance_key, shape) < epsilons(config, step)[:, None], random_actions

    def step(state: TrainState, key: Key) -> tuple[TrainState, Metrics]:
        explore_key, collect_key, batch_key = jax.random.split(key, 3)

        def choose(observations: jax.Array, draws: tuple[jax.Array, jax.Array]) -> jax.Array:
            at_random, actions = draws
            return jnp.where(at_random, actions, greedy(state.params, observations))

        copies, rollout, episodes = collect(
            environment, state.extra["copies"], choose, explored(explore_key, state.step), collect_key
        )
        buffer, added = write(state.extra["buffer"], rollout, state.extra["added"]), state.extra["added"] + collected
        filled = jnp.minimum(added, config.buffer_size)  # the steps that are there come first
        batch = shard_batch(sample_rows(buffer, batch_key, config.batch_size, filled))
        state = state.replace(extra={"copies": copies, "buffer": buffer, "added": added})
        state, _ = every(target_period, lambda state: (networks.follow(state), {}), state, first=target_period - 1)

        def update(state: TrainState) -> tuple[TrainState, Metrics]:
            next_q = jnp.max(critic.apply(state.target_params["critic"], batch.next_observations), -1)
            target = td_target(batch.rewards, batch.masks, next_q, config.discount)
            return networks.step(state, "critic", critic_loss, target, batch)

        state, info = when((state.step + 1) * collected > config.learning_starts, update, state)
        return state, episodes | info

    # Act

    def greedy(params: PyTree, observations: jax.Array) -> jax.Array:
        return jnp.argmax(critic.apply(params["critic"], observations), -1).astype(jnp.int32)

    def act(params: PyTree, observations: jax.Array, key: Key, temperature: jax.Array | float) -> jax.Array:
        """The best action; `temperature` is the chance of a random one in its place."""
        chance_key, action_key = jax.random.split(key)
        actions = greedy(params, observations)
        random_actions = jax.random.randint(action_key, actions.shape, 0, environment.num_actions)
        return jnp.where(jax.random.uniform(chance_key, actions.shape) < temperature, random_actions, actions)

    return OnlineAgent(init, step, act)


def epsilons(config: ConfigDict, step: jax.Array) -> jax.Array:
    """The chance of a random action at each time of a step, [train_every]: 1 before learning starts, then a line."""
    done = (step * config.train_every + jnp.arange(config.train_every)) * config.num_envs  # environment steps
    falling = optax.linear_schedule(1.0, config.final_epsilon, config.exploration_steps)(done)
    return jnp.where(done < config.learning_starts, 1.0, falling)


def empty_buffer(observations: jax.Array, size: int) -> Steps:
    """Room for `size` steps with observations such as these, [N, ...]."""

    def column(shape: tuple[int, ...], dtype: jnp.dtype) -> jax.Array:
        return jnp.zeros((size, *shape), dtype)

    observation, dtype = observations.shape[1:], observations.dtype
    return Steps(
        column(observation, dtype), column((), jnp.int32), column((), jnp.float32), column((), jnp.float32),
        column((), bool), column(observation, dtype),
    )


def write(buffer: Steps, rollout: Steps, added: jax.Array) -> Steps:
    """The buffer with a roll-out in place of its oldest steps; its size is a multiple of the roll-out's.

    Args:
      added: int32 scalar, the steps that were written before.
    """

    def written(column: jax.Array, new: jax.Array) -> jax.Array:
        return jax.lax.dynamic_update_slice_in_dim(column, new.reshape(-1, *new.shape[2:]), added % len(column), 0)

    return jax.tree.map(written, buffer, rollout)


def default_config() -> ConfigDict:
    """Returns SQIRL's baseline of 5 million steps (Laidlaw et al. 2023, arXiv 2312.08369), by its authors' code."""
    return ConfigDict(
        {
            "name": "dqn",
            "hidden_dims": (64, 64),  # () on an encoder
            "encoder": "none",  # or "nature_cnn", for screens
            "num_envs": 1,
            "train_every": 4,  # steps of each environment before an update
            "batch_size": 32,
            "buffer_size": 100_000,
            "learning_starts": 100_000,  # environment steps, random ones
            "target_every": 1000,  # environment steps between two copies of the critic
            "exploration_steps": 500_000,  # over which epsilon falls linearly from 1: the fraction 0.1 of the run
            "final_epsilon": 0.01,
            "learning_rate": 1e-4,
            "discount": 0.99,  # 1 in BRIDGE's finite horizons
            "max_grad_norm": 10.0,
        }
    )
