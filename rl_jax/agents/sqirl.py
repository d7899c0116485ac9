"""SQIRL: shallow Q-iteration via reinforcement learning. Random roll-outs and k steps of regression, for each timestep.

Laidlaw, Zhu, Russell and Dragan 2023, "The Effective Horizon Explains Deep RL Performance in Stochastic Environments",
arXiv 2312.08369. Timestep by timestep: m episodes act by what is frozen before timestep i and at random from it on;
Q_1 is regressed on the returns of the random part, Q_{j+1} on r + max_a Q_j(s', a); the regressor is frozen, and its
Q_k acts at timestep i for ever. The practical form is that of the authors' code: one network with k heads goes on from
timestep to timestep, on all steps that were random when they were made, and every head's loss is divided by its running
mean.

One step is one timestep, so `horizon` steps are an attempt with one m; see `rl_jax.agents.timed` for the search over m.
The horizon is a part of the problem: nothing is bootstrapped through a time-out.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from ml_collections import ConfigDict

from rl_jax.agents.timed import TimedAgent, check_search, episodes_of, in_chunks
from rl_jax.core.config import unknown
from rl_jax.core.mesh import shard_batch
from rl_jax.core.program import Key, Metrics, PyTree, TrainState
from rl_jax.data.transitions import sample_rows, write_rows
from rl_jax.envs.environment import Environment
from rl_jax.losses.value_learning import td_target, values_of_actions
from rl_jax.networks.encoders import num_states
from rl_jax.networks.trained import Networks, Trained
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
      networks: what is fitted, under the name "critic".
      fit: (state, buffer, filled, num_updates, key) -> (state, metrics), on the first `filled` steps of the buffer;
        `state.extra["scales"]` [k] are the running means of the heads' losses.
      q: (params, observations [B, ...]) -> [B, k, A].
    """

    networks: Networks
    fit: Callable[[TrainState, Buffer, jax.Array, jax.Array, Key], tuple[TrainState, Metrics]]
    q: Callable[[PyTree, jax.Array], jax.Array]


def sqirl(config: ConfigDict, environment: Environment, samples: int) -> TimedAgent:
    """SQIRL; `config` as `default_config`.

    Args:
      samples: environment steps; once an attempt has taken so many, the rest of it plays no episodes and costs nothing.

    Raises:
      ValueError: there is no such regressor, or a field is below 1.
    """
    if config.regressor not in REGRESSORS:
        raise ValueError(unknown("regressor in config.agent.regressor", config.regressor, REGRESSORS))
    check_search(config)
    regressor = REGRESSORS[config.regressor](config, environment.num_actions)
    horizon, shape = environment.horizon, (environment.horizon, config.num_envs)
    buffer_size = min(config.buffer_size, samples)

    # Collect

    def greedy(params: PyTree, observations: jax.Array) -> jax.Array:
        return jnp.argmax(regressor.q(params, observations)[:, config.k - 1], -1).astype(jnp.int32)

    def episodes(frozen: PyTree, timestep: jax.Array, active: jax.Array, key: Key) -> tuple[Buffer, jax.Array]:
        """(steps [T, E], whether each was taken [T, E]) of the active ones [E] of E episodes, which act at random from
        `timestep` on."""
        action_key, reset_key, step_key = jax.random.split(key, 3)
        states, observations = jax.vmap(environment.reset)(jax.random.split(reset_key, config.num_envs))
        at_random = jax.random.randint(action_key, shape, 0, environment.num_actions, jnp.int32)

        def one_step(carry: Any, inputs: Any) -> tuple[Any, Any]:
            states, observations, active = carry
            time, params, at_random, keys = inputs
            actions = jax.lax.cond(time < timestep, lambda: greedy(params, observations), lambda: at_random)
            states, stepped = jax.vmap(environment.step)(states, actions, keys)
            ends = stepped.terminated | stepped.truncated
            row = (observations, actions, stepped.reward * active, 1.0 - ends, stepped.observation, active)
            return (states, stepped.observation, active & ~ends), row

        inputs = jnp.arange(horizon), frozen, at_random, jax.random.split(step_key, shape)
        _, (*rows, active) = jax.lax.scan(one_step, (states, observations, active), inputs)
        discounted = lambda after, reward: (reward + config.discount * after,) * 2  # noqa: E731
        _, returns = jax.lax.scan(discounted, jnp.zeros(config.num_envs), rows[2], reverse=True)
        return Buffer(*rows, returns), active

    def collect(state: TrainState, num_episodes: jax.Array, key: Key) -> tuple[PyTree, jax.Array, jax.Array]:
        """(extra with the steps of the episodes, how many there were, the mean return)."""
        timestep = state.step % horizon

        def play(carry: Any, active: jax.Array, key: Key) -> Any:
            buffer, added, total, returns = carry
            steps, taken = episodes(state.target_params["critic"], timestep, active, key)
            # A return is the random policy's only where everything after it was random.
            kept = taken & (jnp.arange(horizon)[:, None] >= timestep)
            buffer, added = write_rows(buffer, steps, kept, added)
            return buffer, added, total + jnp.sum(taken, dtype=jnp.int32), returns + jnp.sum(steps.rewards)

        carry = state.extra["buffer"], state.extra["added"], jnp.zeros((), jnp.int32), jnp.zeros(())
        buffer, added, total, returns = in_chunks(play, carry, num_episodes, config.num_envs, key)
        extra = {"buffer": buffer, "added": added, "samples": state.extra["samples"] + total}
        return state.extra | extra, total, returns / jnp.maximum(num_episodes, 1)

    # Update

    def init(key: Key) -> TrainState:
        network_key, reset_key = jax.random.split(key)
        _, observation = environment.reset(reset_key)

        def column(x: jax.Array) -> jax.Array:
            return jnp.zeros((buffer_size, *x.shape), x.dtype)

        number = jnp.zeros(())
        buffer = Buffer(
            column(observation), column(jnp.int32(0)), column(number), column(number), column(observation),
            column(number),
        )
        zero = jnp.zeros((), jnp.int32)
        extra = {"buffer": buffer, "added": zero, "scales": jnp.zeros(config.k), "samples": jnp.copy(zero)}
        state = regressor.networks.init(network_key, {"critic": (observation[None],)}, extra)
        frozen = jax.tree.map(lambda x: jnp.zeros((horizon, *x.shape), x.dtype), state.params)
        return state.replace(target_params=frozen)

    def begin(state: TrainState, key: Key) -> TrainState:
        """The state at the start of another attempt; what is left of the one before is written over."""
        fresh = regressor.networks.init(key, {"critic": (state.extra["buffer"].observations[:1],)})
        extra = state.extra | {name: jnp.zeros_like(state.extra[name]) for name in ("added", "scales", "samples")}
        return state.replace(params=fresh.params, opt_state=fresh.opt_state, extra=extra)

    def step(state: TrainState, key: Key) -> tuple[TrainState, Metrics]:
        init_key, collect_key, fit_key = jax.random.split(key, 3)
        attempt, timestep = jnp.divmod(state.step, horizon)
        state = jax.lax.cond((timestep == 0) & (attempt > 0), begin, lambda state, key: state, state, init_key)
        num_episodes = jnp.where(state.extra["samples"] >= samples, 0, episodes_of(config, attempt))
        extra, taken, mean_return = collect(state, num_episodes, collect_key)
        num_updates = (taken * config.num_epochs + config.batch_size - 1) // config.batch_size
        filled = jnp.minimum(extra["added"], buffer_size)
        state, metrics = regressor.fit(state.replace(extra=extra), extra["buffer"], filled, num_updates, fit_key)
        frozen = jax.tree.map(lambda x, new: x.at[timestep].set(new), state.target_params, state.params)
        return state.replace(target_params=frozen), metrics | {"episode/return": mean_return}

    # Act

    def act(state: TrainState, observations: jax.Array, time: jax.Array) -> jax.Array:
        """By what is frozen; from a timestep on that is not reached yet, by the newest regressor."""
        reached = jnp.where(state.step > 0, (state.step - 1) % horizon + 1, 0)
        params = jax.tree.map(
            lambda frozen, newest: jnp.where(time < reached, frozen[time], newest), state.target_params, state.params
        )
        return greedy(params["critic"], observations)

    return TimedAgent(init, step, act, lambda state: state.extra["samples"], attempt_steps=horizon)


def targets(returns: jax.Array, rewards: jax.Array, masks: jax.Array, next_q: jax.Array, discount: float) -> jax.Array:
    """What Q_1..Q_k of a step are regressed on, [B, k]: its return, then r + discount * mask * max_a Q_j(s', a); no
    gradient flows through them.

    Args:
      returns, rewards, masks: [B].
      next_q: [B, k, A], Q_1..Q_k of the next observation, of which the last is not needed.
    """
    best = jax.lax.stop_gradient(jnp.max(next_q, -1))
    backups = [td_target(rewards, masks, best[:, j], discount) for j in range(best.shape[1] - 1)]
    return jnp.stack([returns, *backups], -1)


# Regressors


def network_regressor(config: ConfigDict, num_actions: int) -> Regressor:
    """One network with k heads, some epochs of minibatches of Adam; it goes on from what it was."""
    critic = MultiStepCritic(config.hidden_dims, num_actions, config.k, config.encoder)
    tx = optax.chain(optax.clip_by_global_norm(config.max_grad_norm), optax.adam(config.learning_rate))
    networks = Networks({"critic": Trained(critic.init, tx)})

    def errors(params: PyTree, batch: Buffer) -> jax.Array:
        """Mean squared error of each head, [k]."""
        next_q = critic.apply(params, batch.next_observations)
        q = values_of_actions(critic.apply(params, batch.observations), batch.actions[:, None])
        wanted = targets(batch.returns, batch.rewards, batch.masks, next_q, config.discount)
        return jnp.mean(jnp.square(q - wanted), 0)

    def loss(params: PyTree, batch: Buffer, scales: jax.Array) -> tuple[jax.Array, tuple[jax.Array, jax.Array]]:
        losses = errors(params, batch)
        now = jax.lax.stop_gradient(losses)
        smooth = config.scale_decay * scales + (1.0 - config.scale_decay) * now
        scales = jnp.where(scales == 0.0, now, smooth)  # 0: nothing was seen before
        return jnp.mean(losses / jnp.maximum(scales, 1e-30)), {"scales": scales} | _loss_metrics(losses)

    def fit(
        state: TrainState, buffer: Buffer, filled: jax.Array, num_updates: jax.Array, key: Key
    ) -> tuple[TrainState, Metrics]:
        def one_update(number: jax.Array, carry: tuple[TrainState, Metrics]) -> tuple[TrainState, Metrics]:
            state, metrics = carry
            batch = shard_batch(sample_rows(buffer, jax.random.fold_in(key, number), config.batch_size, filled))
            return networks.step(state, "critic", loss, batch, metrics["scales"])

        # The loop carries what it changes, and not the buffer.
        carried = state.replace(target_params={}, extra={})
        metrics = dict.fromkeys([*_loss_metrics(jnp.zeros(config.k)), "critic/grad_norm", "critic/update_norm"], 0.0)
        metrics = jax.tree.map(jnp.float32, metrics) | {"scales": state.extra["scales"]}
        carried, metrics = jax.lax.fori_loop(0, num_updates, one_update, (carried, metrics))
        extra = state.extra | {"scales": metrics.pop("scales")}
        return state.replace(params=carried.params, opt_state=carried.opt_state, extra=extra), metrics

    return Regressor(networks, fit, critic.apply)


def table_regressor(config: ConfigDict, num_actions: int) -> Regressor:
    """Linear least squares on one-hot states: its solution is the mean of the targets of each state and action, and 0
    where there is none. Observations are state numbers; `encoder` says how many there are."""
    size = num_states(config.encoder)

    def init(key: Key, observations: jax.Array) -> jax.Array:
        del key, observations
        return jnp.zeros((size, config.k, num_actions))

    def q(params: PyTree, observations: jax.Array) -> jax.Array:
        return params[observations]

    def fit(
        state: TrainState, buffer: Buffer, filled: jax.Array, num_updates: jax.Array, key: Key
    ) -> tuple[TrainState, Metrics]:
        del num_updates, key
        there = (jnp.arange(len(buffer.actions)) < filled).astype(jnp.float32)
        cells = buffer.observations * num_actions + buffer.actions

        def mean(values: jax.Array) -> jax.Array:
            """[C] -> [S, A]."""
            total, count = (
                jax.ops.segment_sum(there * x, cells, size * num_actions) for x in (values, jnp.ones_like(values))
            )
            return (total / jnp.maximum(count, 1.0)).reshape(size, num_actions)

        tables, losses, wanted = [], [], buffer.returns
        for _ in range(config.k):
            tables.append(mean(wanted))
            error = tables[-1][buffer.observations, buffer.actions] - wanted
            losses.append(jnp.sum(there * jnp.square(error)) / jnp.maximum(jnp.sum(there), 1.0))
            after = jnp.max(tables[-1], -1)[buffer.next_observations]
            wanted = td_target(buffer.rewards, buffer.masks, after, config.discount)
        return state.replace(params={"critic": jnp.stack(tables, 1)}), _loss_metrics(jnp.stack(losses))

    return Regressor(Networks({"critic": Trained(init, optax.identity())}), fit, q)


def _loss_metrics(losses: jax.Array) -> Metrics:
    """The losses of the heads, [k], by name."""
    return {f"critic/loss_{j + 1}": losses[j] for j in range(len(losses))}


REGRESSORS = {"network": network_regressor, "table": table_regressor}


def default_config() -> ConfigDict:
    """The authors' settings for BRIDGE."""
    return ConfigDict(
        {
            "name": "sqirl",
            "k": 1,  # steps of Q-iteration, 1 to 3
            "num_episodes": 64,  # m, at each timestep of the first attempt
            "growth": 1,  # m is multiplied by it at every further attempt; the authors double it until it is enough
            "num_envs": 64,  # episodes that are played at once
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
