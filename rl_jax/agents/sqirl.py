"""SQIRL: shallow Q-iteration via reinforcement learning. Random roll-outs and k steps of regression, for each timestep.

Laidlaw, Zhu, Russell and Dragan 2023, "The Effective Horizon Explains Deep RL Performance in Stochastic Environments",
arXiv 2312.08369. Timestep by timestep: m episodes act by what is frozen before timestep i and at random from it on;
Q_1 is regressed on the returns of the random part, Q_{j+1} on r + max_a Q_j(s', a); the regressor is frozen, and its
Q_k acts at timestep i for ever. The practical form is that of the authors' code: one network with k heads goes on from
timestep to timestep, on all steps that were random when they were made, and every head's loss is divided by its running
mean. One step is one timestep, so a run has `horizon` steps.

Candidates of (k, m) can share a program, a run each: shapes are those of `max_k` and `max_num_episodes`, and the k and
`num_episodes` of a run, which may be traced, say which heads and episodes count.

The horizon is a part of the problem: nothing is bootstrapped through a time-out.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from ml_collections import ConfigDict

from rl_jax.agents.agent import gradient_step
from rl_jax.core.config import unknown
from rl_jax.core.mesh import shard_batch
from rl_jax.core.program import Key, Metrics, PyTree, TrainState
from rl_jax.data.transitions import sample_rows, write_rows
from rl_jax.envs.environment import Environment
from rl_jax.losses.value_learning import td_target, values_of_actions
from rl_jax.networks.encoders import num_states
from rl_jax.networks.values import MultiStepCritic


class Buffer(NamedTuple):
    """Steps after which an episode went on at random; every leaf is [C, ...]."""

    observations: jax.Array
    actions: jax.Array
    rewards: jax.Array
    masks: jax.Array  # 0 where the episode ended, at the horizon too
    next_observations: jax.Array
    returns: jax.Array  # discounted, from the step on


class Regressor(NamedTuple):
    """How Q_1..Q_k are fitted.

    Attributes:
      init: (key, observations [1, ...]) -> (params, opt_state).
      fit: ((params, opt_state), scales [K], buffer, filled, num_updates, key) -> ((params, opt_state), scales,
        losses [K]); K is `max_k`.
      q: (params, observations [B, ...]) -> [B, K, A].
    """

    init: Callable[[Key, jax.Array], tuple[PyTree, PyTree]]
    fit: Callable[..., tuple[tuple[PyTree, PyTree], jax.Array, jax.Array]]
    q: Callable[[PyTree, jax.Array], jax.Array]


class TimedAgent(NamedTuple):
    """As OnlineAgent, but the policy knows the time: `act` takes (state, observations [B, ...], time) -> actions [B],
    the greedy ones; from a timestep on that is not frozen yet, those of the newest regressor."""

    init: Callable[[Key], TrainState]
    step: Callable[[TrainState, Key], tuple[TrainState, Metrics]]
    act: Callable[[TrainState, jax.Array, jax.Array], jax.Array]


def sqirl(config: ConfigDict, environment: Environment) -> TimedAgent:
    """SQIRL; `config` as `default_config`.

    Raises:
      ValueError: there is no such regressor, or k or the number of episodes is out of its range.
    """
    if config.regressor not in REGRESSORS:
        raise ValueError(unknown("regressor in config.agent.regressor", config.regressor, REGRESSORS))
    max_k, max_episodes = largest(config, "k"), largest(config, "num_episodes")
    regressor = REGRESSORS[config.regressor](config, environment.num_actions)
    horizon, shape = environment.horizon, (environment.horizon, max_episodes)

    def greedy(params: PyTree, observations: jax.Array) -> jax.Array:
        return jnp.argmax(regressor.q(params, observations)[:, config.k - 1], -1).astype(jnp.int32)

    def init(key: Key) -> TrainState:
        network_key, reset_key = jax.random.split(key)
        _, observation = environment.reset(reset_key)
        params, opt_state = regressor.init(network_key, observation[None])
        frozen = jax.tree.map(lambda x: jnp.zeros((horizon, *x.shape), x.dtype), params)
        scalar, observations = jnp.zeros(config.buffer_size), jnp.zeros_like(observation)
        observations = jnp.broadcast_to(observations, (config.buffer_size, *observation.shape))
        return TrainState.create(
            {"critic": params}, {"critic": opt_state}, target_params={"critic": frozen},
            extra={
                "buffer": jax.tree.map(
                    jnp.copy, Buffer(observations, scalar.astype(jnp.int32), scalar, scalar, observations, scalar)
                ),
                "added": jnp.zeros((), jnp.int32),
                "scales": jnp.zeros(max_k),
                "samples": jnp.zeros((), jnp.int32),
            },
        )

    def episodes(frozen: PyTree, timestep: jax.Array, key: Key) -> tuple[Buffer, jax.Array]:
        """(steps [T, M], whether each was taken [T, M]) of episodes that act at random from `timestep` on; M is
        `max_num_episodes`, of which m are played."""
        action_key, reset_key, step_key = jax.random.split(key, 3)
        states, observations = jax.vmap(environment.reset)(jax.random.split(reset_key, max_episodes))
        at_random = jax.random.randint(action_key, shape, 0, environment.num_actions)

        def one_step(carry: Any, inputs: Any) -> tuple[Any, Any]:
            states, observations, active = carry
            time, params, at_random, keys = inputs
            actions = jax.lax.cond(
                time < timestep, lambda: greedy(params, observations), lambda: at_random.astype(jnp.int32)
            )
            states, stepped = jax.vmap(environment.step)(states, actions, keys)
            ends = stepped.terminated | stepped.truncated
            row = (observations, actions, stepped.reward * active, 1.0 - ends, stepped.observation, active)
            return (states, stepped.observation, active & ~ends), row

        carry = states, observations, jnp.arange(max_episodes) < config.num_episodes
        keys = jax.random.split(step_key, shape)
        _, (observations, actions, rewards, masks, next_observations, active) = jax.lax.scan(
            one_step, carry, (jnp.arange(horizon), frozen, at_random, keys)
        )
        discounted = lambda after, reward: (reward + config.discount * after,) * 2  # noqa: E731
        _, returns = jax.lax.scan(discounted, jnp.zeros(max_episodes), rewards, reverse=True)
        return Buffer(observations, actions, rewards, masks, next_observations, returns), active

    def step(state: TrainState, key: Key) -> tuple[TrainState, Metrics]:
        collect_key, fit_key = jax.random.split(key)
        extra, timestep, frozen = state.extra, state.step, state.target_params["critic"]
        steps, taken = episodes(frozen, timestep, collect_key)
        # A return is the random policy's only where everything after it was random.
        kept = taken & (jnp.arange(horizon)[:, None] >= timestep)
        buffer, added = write_rows(extra["buffer"], steps, kept, extra["added"])
        samples = jnp.sum(taken, dtype=jnp.int32)
        num_updates = (samples * config.num_epochs + config.batch_size - 1) // config.batch_size
        fitted, scales, losses = regressor.fit(
            (state.params["critic"], state.opt_state["critic"]), extra["scales"], buffer,
            jnp.minimum(added, config.buffer_size), num_updates, fit_key,
        )
        frozen = jax.tree.map(lambda x, new: x.at[timestep].set(new), frozen, fitted[0])
        extra = {"buffer": buffer, "added": added, "scales": scales, "samples": extra["samples"] + samples}
        metrics = {f"critic/loss_{j + 1}": losses[j] for j in range(max_k)}
        metrics["episode/return"] = jnp.sum(steps.rewards) / config.num_episodes
        return state.replace(
            params={"critic": fitted[0]}, opt_state={"critic": fitted[1]}, target_params={"critic": frozen}, extra=extra
        ), metrics

    def act(state: TrainState, observations: jax.Array, time: jax.Array) -> jax.Array:
        params = jax.tree.map(
            lambda frozen, newest: jnp.where(time < state.step, frozen[time], newest),
            state.target_params["critic"], state.params["critic"],
        )
        return greedy(params, observations)

    return TimedAgent(init, step, act)


def largest(config: ConfigDict, name: str) -> int:
    """`max_<name>`, or the field itself where that is 0: what shapes are made for.

    Raises:
      ValueError: the field is below 1 or above its maximum; of a traced one only its maximum can be looked at.
    """
    value = config[name]
    most = config[f"max_{name}"] or value
    if isinstance(value, int) and not 1 <= value <= most:
        raise ValueError(f"{name} is {value} and max_{name} {most}: give at least 1, and a maximum as large")
    return most


def targets(returns: jax.Array, rewards: jax.Array, masks: jax.Array, next_q: jax.Array, discount: float) -> jax.Array:
    """What Q_1..Q_k of a step are regressed on, [B, k]: its return, then r + discount * mask * max_a Q_j(s', a); no
    gradient flows through them.

    Args:
      returns, rewards, masks: [B].
      next_q: [B, k, A], Q_1..Q_k of the next observation, of which the last is not needed.
    """
    best = jnp.max(next_q, -1)
    backups = [td_target(rewards, masks, best[:, j], discount) for j in range(best.shape[1] - 1)]
    return jnp.stack([returns, *backups], -1)


# Regressors


def network_regressor(config: ConfigDict, num_actions: int) -> Regressor:
    """One network with k heads, some epochs of minibatches of Adam; it goes on from what it was."""
    max_k = largest(config, "k")
    critic = MultiStepCritic(config.hidden_dims, num_actions, max_k, config.encoder)
    used = jnp.arange(max_k) < config.k
    tx = optax.chain(optax.clip_by_global_norm(config.max_grad_norm), optax.adam(config.learning_rate))

    def init(key: Key, observations: jax.Array) -> tuple[PyTree, PyTree]:
        params = critic.init(key, observations)
        return params, tx.init(params)

    def errors(params: PyTree, batch: Buffer) -> jax.Array:
        """Mean squared error of each head, [K]; 0 of one that is not used."""
        next_q = critic.apply(params, batch.next_observations)
        q = values_of_actions(critic.apply(params, batch.observations), batch.actions[:, None])
        wanted = targets(batch.returns, batch.rewards, batch.masks, next_q, config.discount)
        return jnp.where(used, jnp.mean(jnp.square(q - wanted), 0), 0.0)

    def fit(
        fitted: tuple[PyTree, PyTree], scales: jax.Array, buffer: Buffer, filled: jax.Array, num_updates: jax.Array,
        key: Key,
    ) -> tuple[tuple[PyTree, PyTree], jax.Array, jax.Array]:
        def one_update(number: jax.Array, carry: Any) -> Any:
            params, opt_state, scales, _ = carry
            batch = shard_batch(sample_rows(buffer, jax.random.fold_in(key, number), config.batch_size, filled))

            def loss(params: PyTree) -> tuple[jax.Array, tuple[jax.Array, jax.Array]]:
                losses = errors(params, batch)
                now = jax.lax.stop_gradient(losses)
                smooth = config.scale_decay * scales + (1.0 - config.scale_decay) * now
                new_scales = jnp.where(scales == 0.0, now, smooth)  # 0: nothing was seen before
                return jnp.sum(losses / jnp.maximum(new_scales, 1e-30)) / config.k, (losses, new_scales)

            params, opt_state, (losses, scales) = gradient_step(loss, params, tx, opt_state)
            return params, opt_state, scales, losses

        carry = (*fitted, scales, jnp.zeros(max_k))
        *fitted, scales, losses = jax.lax.fori_loop(0, num_updates, one_update, carry)
        return tuple(fitted), scales, losses

    return Regressor(init, fit, critic.apply)


def table_regressor(config: ConfigDict, num_actions: int) -> Regressor:
    """Linear least squares on one-hot states: its solution is the mean of the targets of each state and action, and 0
    where there is none. Observations are state numbers; `encoder` says how many there are."""
    size, max_k = num_states(config.encoder), largest(config, "k")

    def init(key: Key, observations: jax.Array) -> tuple[PyTree, PyTree]:
        del key, observations
        return jnp.zeros((size, max_k, num_actions)), ()

    def q(params: PyTree, observations: jax.Array) -> jax.Array:
        return params[observations]

    def fit(
        fitted: tuple[PyTree, PyTree], scales: jax.Array, buffer: Buffer, filled: jax.Array, num_updates: jax.Array,
        key: Key,
    ) -> tuple[tuple[PyTree, PyTree], jax.Array, jax.Array]:
        del fitted, num_updates, key
        there = (jnp.arange(len(buffer.actions)) < filled).astype(jnp.float32)
        cells = buffer.observations * num_actions + buffer.actions

        def mean(values: jax.Array) -> jax.Array:
            """[C] -> [S, A]."""
            total, count = (
                jax.ops.segment_sum(there * x, cells, size * num_actions) for x in (values, jnp.ones_like(values))
            )
            return (total / jnp.maximum(count, 1.0)).reshape(size, num_actions)

        tables, losses, wanted = [], [], buffer.returns
        for _ in range(max_k):
            tables.append(mean(wanted))
            error = tables[-1][buffer.observations, buffer.actions] - wanted
            losses.append(jnp.sum(there * jnp.square(error)) / jnp.maximum(jnp.sum(there), 1.0))
            after = jnp.max(tables[-1], -1)[buffer.next_observations]
            wanted = td_target(buffer.rewards, buffer.masks, after, config.discount)
        return (jnp.stack(tables, 1), ()), scales, jnp.stack(losses)

    return Regressor(init, fit, q)


REGRESSORS = {"network": network_regressor, "table": table_regressor}


def default_config() -> ConfigDict:
    """The authors' settings for BRIDGE."""
    return ConfigDict(
        {
            "name": "sqirl",
            "k": 1,  # steps of Q-iteration, 1 to 3
            "num_episodes": 64,  # m, at each timestep; the authors double it until the MDP is solved
            "max_k": 0,  # of the runs that share a program; 0: k itself
            "max_num_episodes": 0,
            "regressor": "network",  # or "table", exact linear least squares on one-hot states
            "hidden_dims": (64, 64),
            "encoder": "none",
            "discount": 1.0,
            "learning_rate": 1e-4,
            "batch_size": 128,
            "num_epochs": 10,  # over the steps of a timestep's episodes
            "buffer_size": 1_000_000,
            "max_grad_norm": 10.0,
            "scale_decay": 0.99,  # of the running mean that a head's loss is divided by
        }
    )
