"""Steps of the real environment as a Feed: so many random ones first, and then a few of the current policy at a time.

A batch is `Steps`, leaves [S, T, N, ...] of N copies, the same shape at every call: rows behind the steps that were
taken are zeros, and how many were taken is the same for all (`taken`).
"""

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from ml_collections import ConfigDict

from rl_jax.agents.online import Copies, Steps, collect, start
from rl_jax.core.fused import default_seed_axis, over_runs
from rl_jax.core.mesh import gather
from rl_jax.core.program import Feed, Key, PyTree, TrainState
from rl_jax.data.replay import ReplayBuffer
from rl_jax.envs.collector import Collector
from rl_jax.envs.environment import Environment
from rl_jax.envs.gym_pool import EnvPool

# (params, observations [B, O], key, temperature) -> actions [B, A]
Act = Callable[[PyTree, jax.Array, Key, jax.Array | float], jax.Array]


def taken(real: ConfigDict) -> tuple[int, int]:
    """Steps of one copy (at the first call, at every other one).

    Raises:
      ValueError: the copies do not share them evenly.
    """
    for name in ("steps", "random_steps"):
        if real[name] % real.num_envs:
            copies = f"config.real.num_envs={real.num_envs}"
            raise ValueError(f"config.real.{name}={real[name]} does not divide over {copies}")
    later = real.steps // real.num_envs
    return real.random_steps // real.num_envs or later, later


def samples(real: ConfigDict, calls: int) -> int:
    """Steps of the real environment after so many calls."""
    first, later = taken(real)
    return real.num_envs * (first + (calls - 1) * later) if calls else 0


def steps_on_device(environment: Environment, act: Act, real: ConfigDict) -> Feed:
    """The feed of a pure-JAX environment; random actions are uniform and held for `real.hold` steps."""
    first, later = taken(real)
    num_copies, hold = real.num_envs, real.hold
    structure = jax.tree.structure(jax.eval_shape(lambda: start(environment, num_copies, jax.random.key(0))))
    copies: list[Copies] = []  # of all runs, where the feed stands

    def padded(steps: Steps) -> Steps:
        return jax.tree.map(
            lambda x: jnp.pad(x, ((0, max(first, later) - len(x)), *((0, 0),) * (x.ndim - 1))), steps
        )

    def at_random(copies: Copies, key: Key) -> tuple[Copies, Steps, dict]:
        draw_key, collect_key = jax.random.split(key)
        shape = -(-first // hold), num_copies, environment.num_actions
        held = jnp.repeat(jax.random.uniform(draw_key, shape, minval=-1.0, maxval=1.0), hold, 0)[:first]
        copies, steps, metrics = collect(environment, copies, lambda observations, held: held, held, collect_key)
        return copies, padded(steps), metrics

    def by_policy(copies: Copies, params: PyTree, key: Key) -> tuple[Copies, Steps, dict]:
        draw_key, collect_key = jax.random.split(key)

        def choose(observations: jax.Array, key: Key) -> jax.Array:
            return act(params, observations, key, 1.0)

        keys = jax.random.split(draw_key, later)
        copies, steps, metrics = collect(environment, copies, choose, keys, collect_key)
        return copies, padded(steps), metrics

    axis = default_seed_axis()
    starts = jax.jit(over_runs(lambda key: start(environment, num_copies, jax.random.fold_in(key, 1)), axis))
    random, chosen = jax.jit(over_runs(at_random, axis)), jax.jit(over_runs(by_policy, axis))

    def collect_all(state: TrainState, resident: PyTree, keys: Key, step: int) -> tuple[Steps, dict[str, float]]:
        del resident
        keys = jax.random.wrap_key_data(np.asarray(jax.random.key_data(keys)))
        if step == 0:
            copies[:] = [starts(keys)]
        if step == 0 and real.random_steps:
            copies[0], steps, metrics = random(copies[0], keys)
        else:
            copies[0], steps, metrics = chosen(copies[0], gather(state.params), keys)
        return share(jax.device_get(steps)), {"collect/return": float(np.mean(metrics["episode/return"]))}

    def save() -> PyTree:
        return {"copies": [np.asarray(x) for x in jax.tree.leaves(copies)]}

    def restore(saved: PyTree) -> None:
        leaves = [jnp.asarray(x) for x in saved["copies"]]
        copies[:] = [jax.tree.unflatten(structure, leaves)] if leaves else []

    return Feed(collect_all, save, restore)


def share(steps: PyTree) -> PyTree:
    """What this process hands in of steps [S, T, ...], which all processes have taken alike: its part of T."""
    count, mine = jax.process_count(), jax.process_index()
    return jax.tree.map(lambda x: x[:, mine * x.shape[1] // count : (mine + 1) * x.shape[1] // count], steps)


class Simulators(Collector):
    """One simulator with actions in [-1, 1] a run, whose steps are handed out; actions as they were done, clipped.

    Raises:
      ValueError: several copies or processes are asked for, or actions have other bounds.
    """

    def __init__(self, pool: EnvPool, seed: int, real: ConfigDict):
        if jax.process_count() > 1:
            raise ValueError("simulators' steps are taken by one process: start one, or a pure-JAX environment")
        if real.num_envs != 1:
            raise ValueError(f"config.real.num_envs={real.num_envs}: a run has one simulator, give 1")
        if not ((pool.action_space.low == -1.0) & (pool.action_space.high == 1.0)).all():
            raise ValueError(f"actions of {pool.env_id} lie in {pool.action_space}: a surrogate's lie in [-1, 1]")
        first, later = taken(real)
        sizes = *pool.observation_space.shape, *pool.action_space.shape
        super().__init__(
            pool, ReplayBuffer(pool.num_envs, 1, *sizes), seed=seed, batch_size=1, env_steps=later,
            random_steps=real.random_steps,
        )
        self._rows, self._held, self._hold, self._length = [], np.zeros(0), real.hold, max(first, later)
        self._is_random = False

    def _collect(
        self, act_all: Callable[..., jax.Array], state: TrainState, keys: Key, step: int
    ) -> tuple[Any, dict[str, float]]:
        self._rows, self._is_random = [], step == 0 and self._random_steps > 0
        return super()._collect(act_all, state, keys, step)

    def _step(self, actions: np.ndarray, ended: list[tuple[float, int]]) -> None:
        if self._is_random and len(self._rows) % self._hold:
            actions = self._held
        self._held = actions
        super()._step(actions, ended)

    def _remember(self, ended: np.ndarray, rewards: np.ndarray, **step: np.ndarray) -> None:
        row = Steps(step["observations"], step["actions"], rewards, step["masks"], ended, step["next_observations"])
        self._rows.append([np.asarray(x, bool if x.dtype == bool else np.float32) for x in row])

    def _draw(self, generators: Sequence[np.random.Generator]) -> Steps:
        del generators
        columns = [np.stack(column, 1)[:, :, None] for column in zip(*self._rows, strict=True)]  # [S, T, 1, ...]
        missing = self._length - len(self._rows)
        return Steps(*(np.pad(x, ((0, 0), (0, missing), *((0, 0),) * (x.ndim - 2))) for x in columns))
