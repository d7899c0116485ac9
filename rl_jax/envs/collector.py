"""Learning in environments: acting, remembering and drawing batches, as the `Feed` of a `Program`.

Every random number comes from the keys that the core hands to `collect`, and every reset seed from the run's seed and
the number of its episode. Environments and replay buffer are therefore the whole state of the feed, and a run is the
same alone and beside others, unbroken and resumed.
"""

from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np

from rl_jax.core.fused import default_seed_axis, over_runs
from rl_jax.core.mesh import gather
from rl_jax.core.program import Feed, Key, PyTree, TrainState
from rl_jax.data.replay import ReplayBuffer
from rl_jax.data.transitions import Collected, Transitions
from rl_jax.envs.gym_pool import EnvPool

# act((params, extra), observations [1, O], key, temperature) -> actions [1, A], for one run.
Act = Callable[[Any, jax.Array, Key, float], jax.Array]


class Collector:
    """Acts with the current parameters in one environment a run, and draws the batch of every update.

    The first call of `collect` takes `random_steps` uniformly random steps, before there is any update; from then on
    every call, or one in `every` from call `first` on, takes `env_steps` steps by samples of the policy. An episode
    that ends is followed by the next at once. Steps are stored as the task has them: a paper that standardises
    observations or scales rewards does so in its step.

    Args:
      pool: one savable environment for each of the S runs; the collector resets it, and its feed closes it.
      replay: what the steps are added to, made for S runs.
      seed: of the first run. The reset seeds of run s are a function of (seed + s, process, episode).
      batch_size: drawn at every call, by all processes together. Each process has environments of its own.
      env_steps: steps of every environment at a call.
      random_steps, first, every: see above.
      for_mixing: whether the batches are `Collected`, for a step that mixes them with prior data, and may be asked for
        before there is anything to draw from; otherwise they are `Transitions`.

    Raises:
      ValueError: an argument cannot work.
    """

    def __init__(
        self,
        pool: EnvPool,
        replay: ReplayBuffer,
        *,
        seed: int,
        batch_size: int,
        env_steps: int = 1,
        random_steps: int = 0,
        first: int = 0,
        every: int = 1,
        for_mixing: bool = False,
    ):
        if env_steps < 1 or random_steps < 0:
            raise ValueError(f"env_steps={env_steps}, random_steps={random_steps}: at least 1 and at least 0")
        if batch_size % jax.process_count():
            raise ValueError(f"a batch of {batch_size} does not divide over {jax.process_count()} processes")
        if pool.num_envs != replay.num_runs:
            raise ValueError(f"{replay.num_runs} runs need one environment each, not {pool.num_envs} together")
        self._pool, self._replay, self._seed = pool, replay, seed
        self._batch_size = batch_size // jax.process_count()
        self._env_steps, self._random_steps, self._first, self._every = env_steps, random_steps, first, every
        self._for_mixing = for_mixing
        self._episodes = np.zeros(pool.num_envs, np.int64)  # of each run, those that ended
        self._returns, self._lengths = np.zeros(pool.num_envs), np.zeros(pool.num_envs, np.int64)
        self._observations = pool.reset(self._reset_seeds())

    def feed(self, act: Act) -> Feed:
        """The feed of a Program whose policy is `act`; it gets `(state.params, state.extra)` and raw observations."""
        act_all = jax.jit(_act_all_runs(act, default_seed_axis()))

        def collect(state: TrainState, resident: PyTree, keys: Key, step: int) -> tuple[PyTree, dict[str, float]]:
            del resident
            return self._collect(act_all, state, keys, step)

        return Feed(collect, self.save, self.restore, self._pool.close)

    def _collect(
        self, act_all: Callable[..., jax.Array], state: TrainState, keys: Key, step: int
    ) -> tuple[Transitions | Collected, dict[str, float]]:
        """Steps the environments and draws a batch [S, B, ...].

        Returns:
          The batch, and `collect/return` (of raw rewards) and `collect/length`, the means over the episodes that ended.
        """
        process = jax.process_index()
        words = np.asarray(jax.random.key_data(keys))
        generators = [np.random.default_rng([*own, process]) for own in words.tolist()]
        ended: list[tuple[float, int]] = []
        if step == 0:
            low, high = self._pool.action_space.low, self._pool.action_space.high
            for _ in range(self._random_steps):
                self._step(np.stack([generator.uniform(low, high) for generator in generators]), ended)
        is_due = step >= self._first and (step - self._first) % self._every == 0
        if is_due and (step > 0 or not self._random_steps):
            policy = gather((state.params, state.extra))
            for i in range(self._env_steps):
                inputs = jax.device_put((words, self._observations.astype(np.float32), np.uint32([i, process])))
                self._step(self._choose(act_all, policy, inputs, generators), ended)
        batch = self._draw(generators)
        if not ended:
            return batch, {}
        returns, lengths = zip(*ended, strict=True)
        return batch, {"collect/return": float(np.mean(returns)), "collect/length": float(np.mean(lengths))}

    def _choose(
        self, act_all: Callable[..., jax.Array], policy: PyTree, inputs: tuple[jax.Array, ...],
        generators: Sequence[np.random.Generator],
    ) -> np.ndarray:
        """The actions [S, A] of the next step; `generators` are the runs' own of this call."""
        del generators
        return jax.device_get(act_all(policy, *inputs))

    def _remember(self, ended: np.ndarray, rewards: np.ndarray, **step: np.ndarray) -> None:
        """Stores one step of every run, as `ReplayBuffer.add` takes it."""
        self._replay.add(ended, rewards=rewards, **step)

    def _draw(self, generators: Sequence[np.random.Generator]) -> Transitions | Collected:
        batch, drawable = self._replay.sample(generators, self._batch_size), self._replay.drawable
        if self._for_mixing:
            sizes = np.broadcast_to(drawable.astype(np.int32)[:, None], (len(drawable), self._batch_size))
            return Collected(batch, sizes)
        if not drawable.all():
            raise ValueError("the replay buffer is empty: collect before the first batch, e.g. by random steps")
        return batch

    def _step(self, actions: np.ndarray, ended: list[tuple[float, int]]) -> None:
        """One step of every environment; adds (return, length) of each episode that it ends to `ended`."""
        pool = self._pool
        # A NaN goes through, and the core's guard stops the run: MuJoCo takes it for no action.
        actions = np.clip(actions, pool.action_space.low, pool.action_space.high).astype(np.float32)
        before = self._observations
        after, rewards, terminated, truncated = pool.step(actions, np.ones(pool.num_envs, bool))
        done = terminated | truncated
        self._remember(
            done, rewards, observations=before, actions=actions, masks=1.0 - terminated, next_observations=after
        )
        self._returns += rewards
        self._lengths += 1
        if done.any():
            ended += zip(self._returns[done].tolist(), self._lengths[done].tolist(), strict=True)
            self._episodes += done
            self._returns[done], self._lengths[done] = 0.0, 0
            after = pool.reset(self._reset_seeds(), done)
        self._observations = after

    def _reset_seeds(self) -> np.ndarray:
        """Seeds [S] in [0, 2**32) of every run's current episode."""
        names = [(self._seed + run, jax.process_index(), int(episode)) for run, episode in enumerate(self._episodes)]
        return np.array([np.random.SeedSequence(name).generate_state(1)[0] for name in names], np.int64)

    def save(self) -> dict[str, PyTree]:
        """Environments, replay buffer and unfinished episodes, as arrays and numbers."""
        return {
            "pool": self._pool.save(), "replay": self._replay.save(), "episodes": self._episodes.copy(),
            "returns": self._returns.copy(), "lengths": self._lengths.copy(),
        }

    def restore(self, saved: dict[str, PyTree]) -> None:
        """Goes on exactly from what `save` gave."""
        self._replay.restore(saved["replay"])
        self._observations = self._pool.restore(saved["pool"])
        self._episodes, self._returns = saved["episodes"].copy(), saved["returns"].copy()
        self._lengths = saved["lengths"].copy()


def _act_all_runs(act: Act, seed_axis: str) -> Callable[..., jax.Array]:
    def act_all(policy: PyTree, words: jax.Array, observations: jax.Array, place: jax.Array) -> jax.Array:
        """Samples [S, A] of all runs' policies; `words` are of their keys, `place` is this call's step and process."""

        def act_one(policy: PyTree, key: Key, observation: jax.Array) -> jax.Array:
            key = jax.random.fold_in(jax.random.fold_in(key, place[0]), place[1])
            return act(policy, observation[None], key, 1.0)[0]

        return over_runs(act_one, seed_axis)(policy, jax.random.wrap_key_data(words), observations)

    return act_all
