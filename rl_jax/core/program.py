"""What the core knows of a paper: a pure step, the data it reads, a way to judge the result.

`TrainState` is one training run. The core trains S runs (seeds) side by side: every leaf then carries a leading
axis S, except `step`, which all runs share. A paper writes `init` and `step` for one run and never sees that axis;
`evaluate` and `Feed.collect` stand outside the compiled step and see all runs at once. Runs differ by their seed and,
in a sweep, by their settings.
"""

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import struct

PyTree = Any
Key = jax.Array
Metrics = dict[str, jax.Array]


class TrainState(struct.PyTreeNode):
    """Everything of a run that training changes; all of it is saved and restored.

    Attributes:
      step: int32 scalar, the number of `Program.step` calls done. The core counts it; a paper only reads it.
      params: parameters by network name, e.g. `{"actor": ..., "critic": ...}`.
      target_params: slow copies by network name; only the networks that have one.
      opt_state: one optimiser state a trained network; none for target or frozen networks.
      extra: what else training changes: running statistics, a replay buffer, environment states.
    """

    step: jax.Array
    params: PyTree
    target_params: PyTree
    opt_state: PyTree
    extra: PyTree

    @classmethod
    def create(
        cls, params: PyTree, opt_state: PyTree, target_params: PyTree | None = None, extra: PyTree | None = None
    ) -> "TrainState":
        """A state at step 0."""
        return cls(jnp.zeros((), jnp.int32), params, target_params or {}, opt_state, {} if extra is None else extra)


class Resident(NamedTuple):
    """A source that lies on the device: the core fuses many steps into one program.

    Attributes:
      data: PyTree of arrays shared by all runs: a data set, a tabular MDP, a pure-JAX environment's parameters.
    """

    data: PyTree


class Feed(NamedTuple):
    """A source with the host between two steps: a simulator, a scored sampler, a token stream.

    Attributes:
      collect: (state of all S runs, keys [S], step) -> (batch, metrics). Batch leaves are [S, B, ...] with the same
        shapes and dtypes every time; with several processes each returns its own share of B. Arrays that lie on the
        mesh already, e.g. of a frozen network [S, ...], may be among them. Host metrics are floats, averaged over the
        calls that report them.
      save: () -> cursor, replay buffer, environment states, as nested dicts and lists of numpy arrays and numbers.
      restore: takes what `save` gave and continues exactly there.
    """

    collect: Callable[[TrainState, Key, int], tuple[PyTree, dict[str, float]]]
    save: Callable[[], PyTree]
    restore: Callable[[PyTree], None]


def nothing_to_evaluate(state: TrainState, key: Key) -> dict[str, Any]:
    """The evaluation of a program that has none."""
    del state, key
    return {}


class Program(NamedTuple):
    """One experiment, as the core sees it.

    Attributes:
      init: key -> TrainState of one run; pure. Where `settings` has leaves, (key, settings of the run) -> TrainState;
        what `step` is to know of them it keeps in `TrainState.extra`, where checkpoints keep it too.
      step: (state, data, key) -> (state, metrics) of one run; pure; metrics are scalars. `data` is the source's
        data or, of a Feed, one collected batch. The key is fold_in(fold_in(base, seed), step).
      source: where `data` comes from.
      evaluate: (state of all S runs, key) -> metrics, each a float or an array [S]; runs outside the compiled step.
      settings: what each run has of its own beside its seed, leaves [S, ...]; see `core.sweep`.
    """

    init: Callable[..., TrainState]
    step: Callable[[TrainState, PyTree, Key], tuple[TrainState, Metrics]]
    source: Resident | Feed
    evaluate: Callable[[TrainState, Key], dict[str, Any]] = nothing_to_evaluate
    settings: PyTree = ()


def in_turn(
    sample: Callable[[TrainState, Key, int], PyTree],
    score: Callable[[PyTree], tuple[PyTree, dict[str, float]]],
) -> Feed:
    """A Feed that samples a batch and then scores it; nothing of it has to be saved. Arguments: see `overlapped`."""

    def collect(state: TrainState, keys: Key, step: int) -> tuple[PyTree, dict[str, float]]:
        return score(jax.device_get(sample(state, keys, step)))

    return Feed(collect, dict, lambda saved: None)


def overlapped(
    sample: Callable[[TrainState, Key, int], PyTree],
    score: Callable[[PyTree], tuple[PyTree, dict[str, float]]],
) -> Feed:
    """A Feed that scores one batch on the host while the device trains on the one before.

    Batch t+1 is sampled with the parameters that step t starts from, so every batch but the first is one update
    old: use an importance-weighted loss. The order is fixed, so a resumed run sees the same batches.

    Args:
      sample: (state, keys [S], step) -> host arrays; runs in the calling thread.
      score: host arrays -> (batch, metrics); pure; runs in a thread of its own.
    """
    pool = ThreadPoolExecutor(max_workers=1)
    ahead: list[Future] = []

    def collect(state: TrainState, keys: Key, step: int) -> tuple[PyTree, dict[str, float]]:
        if not ahead:
            ahead.append(pool.submit(score, jax.device_get(sample(state, keys, step))))
        # The sample is whole on the host before this call returns: the step that follows donates `state`.
        next_keys = jax.vmap(jax.random.fold_in, in_axes=(0, None))(keys, 1)
        ahead.append(pool.submit(score, jax.device_get(sample(state, next_keys, step + 1))))
        return ahead.pop(0).result()

    def save() -> PyTree:
        return {"ahead": [list(future.result()) for future in ahead]}

    def restore(saved: PyTree) -> None:
        ahead.clear()
        for scored in saved["ahead"]:
            future: Future = Future()
            future.set_result(tuple(scored))
            ahead.append(future)

    return Feed(collect, save, restore)
