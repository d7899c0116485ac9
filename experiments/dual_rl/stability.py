"""Does a loss of V diverge? One loss at some of its temperatures and seeds, without gradient clipping.

    python -m experiments.dual_rl.stability --config=configs/dual_rl.py:stability/xql_raw --workdir=runs/xql_raw
    python -m experiments.reproduce --paper=dual_rl --preset=stability --jobs=2    all losses and batch sizes

All runs of the configuration train side by side; `config.sweep` names the temperatures. A run has diverged if a loss is
not finite, or if the mean |Q| of an interval is above twice r_max / (1 - discount), r_max the largest |reward| of the
set: no policy is worth half of that. Nothing stops there, so that one bad run does not hide the others.

Writes stability.npz (loss of V, mean Q and whether it has diverged by then, of every interval) and stability.png into
--workdir. The last line on standard output is one JSON object with the diverged runs of each temperature.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from ml_collections import ConfigDict

from experiments.binary import run_experiment
from experiments.declaration import Evaluations
from experiments.offline_rl.learner import Learner, load, make_learner
from rl_jax.core import provenance
from rl_jax.core.fused import unrecorded_runs
from rl_jax.core.program import Program, Resident
from rl_jax.core.sweep import groups, num_runs
from rl_jax.evaluation.figures import plot_curves

INTERVALS = 20  # at which losses and Q are noted


class Trace(NamedTuple):
    """Means over each of INTERVALS intervals, of all temperatures and seeds: [INTERVALS, temperatures, seeds]."""

    loss: np.ndarray
    q: np.ndarray


def interval(config: ConfigDict) -> int:
    """Updates of one interval."""
    return max(config.num_steps // INTERVALS, 1)


def train(config: ConfigDict, learner: Learner) -> Trace:
    """All runs of a configuration; nothing stops where a number is not finite."""
    program = Program(learner.init, learner.step, Resident(learner.data), None, learner.settings)
    chunk, combinations = interval(config), num_runs(config) // config.num_seeds
    state, advance = unrecorded_runs(
        program, chunk, seed=config.seed, num_seeds=config.num_seeds, combinations=combinations
    )
    losses, values = [], []
    for _ in range(INTERVALS):
        state, window = advance(state)
        losses.append(np.asarray(window.sums["value/loss"]) / chunk)
        values.append(np.asarray(window.sums["critic/mean"]) / chunk)
    shape = (INTERVALS, combinations, config.num_seeds)
    return Trace(*(np.stack(x).reshape(shape) for x in (losses, values)))


def diverged(trace: Trace, bound: float) -> np.ndarray:
    """Whether each run has diverged by each interval, [INTERVALS, temperatures, seeds]; see the module's docstring."""
    fine = np.isfinite(trace.loss) & np.isfinite(trace.q) & (np.abs(np.nan_to_num(trace.q, nan=np.inf)) <= bound)
    return np.logical_or.accumulate(~fine, axis=0)


def magnitude(values: np.ndarray) -> np.ndarray:
    """log10 |x|, within what can be drawn; what is not finite counts as 1e12."""
    return np.log10(np.clip(np.nan_to_num(np.abs(values), nan=1e12, posinf=1e12), 1e-6, 1e12))


def read(workdir: Path, summary: Mapping[str, Any]) -> Evaluations:
    """A finished run for `experiments.reproduce`: a score is 100 where a seed has not diverged by then at a temperature
    and 0 where it has, [T, S, E = temperatures]; the raw outcome is log10 of the mean |Q|."""
    del summary
    with np.load(workdir / "stability.npz") as file:
        steps, bad, q = file["steps"], file["diverged"], file["q"]
    by_seed = lambda x: np.swapaxes(x, 1, 2).astype(np.float64)  # noqa: E731
    return Evaluations(steps, 100.0 * (1.0 - by_seed(bad)), by_seed(magnitude(q)))


def main(config: ConfigDict, workdir: Path) -> dict[str, Any]:
    workdir.mkdir(parents=True, exist_ok=True)
    provenance.check_same_run(workdir, config)
    dataset = load(config.dataset)
    provenance.record(workdir, config, 0, {"dataset": dataset.name, "dataset_checksum": dataset.checksum})
    learner = make_learner(config, dataset.episodes)
    trace = train(config, learner)
    bad = diverged(trace, 2.0 * float(np.abs(learner.data.rewards).max()) / (1.0 - config.agent.discount))
    steps = interval(config) * np.arange(1, INTERVALS + 1)
    np.savez_compressed(workdir / "stability.npz", steps=steps, loss=trace.loss, q=trace.q, diverged=bad)
    temperatures = list(groups(config))
    panels = {
        what: {name: (steps, magnitude(array[:, i])) for i, name in enumerate(temperatures)}
        for what, array in (("mean Q", trace.q), ("loss of V", trace.loss))
    }
    plot_curves(panels, workdir / "stability.png", labels=temperatures, score="log10 |mean of an interval|")
    counts = {name: int(of_value.sum()) for name, of_value in zip(temperatures, bad[-1], strict=True)}
    return {
        "paper": config.paper, "preset": config.preset, "workdir": str(workdir), "runs": int(bad[-1].size),
        "diverged": counts,
    }


if __name__ == "__main__":
    run_experiment(main, "configs/dual_rl.py:stability/xql_raw")
