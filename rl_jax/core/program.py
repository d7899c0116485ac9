"""What the core knows of a paper: a pure step, what it reads, a way to judge the result.

`TrainState` is one training run. The core trains S runs (seeds) side by side: every leaf then carries a leading
axis S, except `step`, which all runs share. A paper writes `init` and `step` for one run and never sees that axis;
`evaluate` and `Feed.collect` stand outside the compiled step and see all runs at once.
"""

from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
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


class Evaluation(NamedTuple):
    """What a judgement of all S runs says.

    Attributes:
      metrics: a float or an array [S] by name, such as "eval/return". Every outcome `x` that has no metric "eval/x"
        gets one, its mean over E.
      outcomes: the raw numbers, [S, E] by name: one an episode, a prompt, an image. The loop saves them in
        `outcomes.npz`, and reports are made from them alone. Different outcomes may have different E.
    """

    metrics: Mapping[str, Any] = {}
    outcomes: Mapping[str, np.ndarray] = {}


# (state of all S runs, resident, key) -> Evaluation; runs outside the compiled step.
Evaluate = Callable[[TrainState, PyTree, Key], Evaluation]


class Feed(NamedTuple):
    """What the host brings between two steps: a simulator, a scored sampler, a token stream.

    Attributes:
      collect: (state of all S runs, resident, keys [S], step) -> (batch, metrics). Batch leaves are [S, B, ...]; with
        several processes each returns its own share of B. A few different structures or shapes may take turns (length
        buckets; batches of two kinds): the step is compiled once for each. Host metrics are floats, averaged over the
        calls that report them.
      save: () -> cursor, replay buffer, environment states, as nested dicts and lists of numpy arrays and numbers.
      restore: takes what `save` gave and continues exactly there.
      close: releases what the feed has opened; called once, when the run ends, however it ends.
      bytes: what the feed keeps on each device beside state, resident and batch, for the check of memory.
    """

    collect: Callable[[TrainState, PyTree, Key, int], tuple[PyTree, dict[str, float]]]
    save: Callable[[], PyTree] = dict
    restore: Callable[[PyTree], None] = lambda saved: None
    close: Callable[[], None] = lambda: None
    bytes: int = 0


def nothing_to_evaluate(state: TrainState, resident: PyTree, key: Key) -> Evaluation:
    """The evaluation of a program that has none."""
    del state, resident, key
    return Evaluation()


class Program(NamedTuple):
    """One experiment, as the core sees it.

    Attributes:
      init: (key, resident) -> TrainState of one run; pure.
      step: (state, resident, batch, key) -> (state, metrics) of one run; pure; metrics are scalars. `batch` is what the
        feed collected, [B, ...], or None without a feed. The key is fold_in(fold_in(base, seed), step).
      evaluate: (state of all S runs, resident, key) -> Evaluation; runs outside the compiled step.
      resident: PyTree of arrays that lie on the devices the whole time, shared by all runs: a data set, a tabular MDP,
        prompts, frozen networks, weights to start from. Always an argument and never closed over, so that it is neither
        a constant of the compiled program nor a part of the state: not copied, not donated, not saved.
        `config.resident_rules` lay it on the mesh.
      feed: what the host brings between two steps; None where the step draws its own batch.
      done: (evaluations so far, as dicts of `step` and metrics) -> whether to stop before `config.num_steps`.
    """

    init: Callable[[Key, PyTree], TrainState]
    step: Callable[[TrainState, PyTree, PyTree, Key], tuple[TrainState, Metrics]]
    evaluate: Evaluate = nothing_to_evaluate
    resident: PyTree = ()
    feed: Feed | None = None
    done: Callable[[Sequence[Mapping[str, Any]]], bool] | None = None


def scored(
    sample: Callable[[TrainState, PyTree, Key, int], PyTree],
    score: Callable[[PyTree], tuple[PyTree, dict[str, float]]],
    overlap: int = 0,
) -> Feed:
    """A Feed that samples a batch on the devices and scores it on the host.

    With `overlap` above 0 the host scores up to so many batches while the device trains on those before: batch t +
    overlap is sampled with the parameters that step t starts from. Every batch but the first ones is then `overlap`
    updates old: use an importance-weighted loss. The order is fixed, so a resumed run sees the same batches.

    Args:
      sample: (state, resident, keys [S], step) -> arrays; runs in the calling thread.
      score: host arrays -> (batch, metrics); pure; runs in a thread of its own where batches overlap.
      overlap: the bound; 0 is strictly on-policy.

    Raises:
      ValueError: the bound is negative.
    """
    if overlap < 0:
        raise ValueError(f"config.overlap={overlap}: batches that are scored ahead, 0 or more")
    pool = ThreadPoolExecutor(max_workers=1) if overlap else None
    ahead: list[Future] = []

    def submit(state: TrainState, resident: PyTree, keys: Key, step: int) -> None:
        # The sample is whole on the host before this call returns: the step that follows donates `state`.
        ahead.append(pool.submit(score, jax.device_get(sample(state, resident, keys, step))))

    def collect(state: TrainState, resident: PyTree, keys: Key, step: int) -> tuple[PyTree, dict[str, float]]:
        if pool is None:
            return score(jax.device_get(sample(state, resident, keys, step)))
        while len(ahead) <= overlap:
            distance = len(ahead)
            later = jax.vmap(jax.random.fold_in, in_axes=(0, None))(keys, distance) if distance else keys
            submit(state, resident, later, step + distance)
        return ahead.pop(0).result()

    def save() -> PyTree:
        return {"ahead": [list(future.result()) for future in ahead]}

    def restore(saved: PyTree) -> None:
        ahead.clear()
        for batch in saved["ahead"]:
            future: Future = Future()
            future.set_result(tuple(batch))
            ahead.append(future)

    def close() -> None:
        if pool is not None:
            pool.shutdown(wait=True, cancel_futures=True)

    return Feed(collect, save, restore, close)
