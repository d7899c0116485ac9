"""Does the loss of V diverge? XQL's Gumbel regression without and with its clip beside f-DVL's surrogates.

    python -m experiments.dual_rl.stability --workdir=runs/stability

Trains every arm at each of its temperatures and at each batch size, some seeds side by side, without gradient
clipping, and counts the runs that diverge. A run has diverged if a loss is not finite, or if the mean |Q| of an
interval is above twice r_max / (1 - discount), r_max the largest |reward| of the set: no policy is worth half of that.

The claim, written before any number was seen: f-DVL (TV and chi2) has fewer diverged runs than XQL without clip.

Writes stability.npz (losses and mean Q of every interval), table.md and stability.png into --workdir. The last line on
standard output is one JSON object: diverged runs of each arm, temperature and batch size.
"""

import math
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
from absl import logging
from ml_collections import ConfigDict

from configs.dual_rl import OFFLINE
from configs.offline_rl import from_recipe
from experiments.binary import run_experiment
from experiments.offline_rl.learner import Learner, load, make_learner
from rl_jax.core.fused import default_seed_axis, empty_window, fused_step, init_runs, run_keys
from rl_jax.core.program import Program, Resident
from rl_jax.core.sweep import num_runs
from rl_jax.evaluation.figures import plot_curves

INTERVALS = 20  # at which losses and Q are noted


class Arm(NamedTuple):
    """A loss of V and the values of its temperature: XQL's beta, small is greedy; f-DVL's lambda, large is greedy."""

    method: str  # of configs/dual_rl.py
    field: str
    values: tuple[float, ...]
    overrides: dict[str, Any] = {}


ARMS = {
    "XQL without clip": Arm("xql", "beta", (0.1, 0.5, 2.0), {"agent.max_clip": math.inf}),
    "XQL, clip 7": Arm("xql", "beta", (0.1, 0.5, 2.0)),
    "f-DVL (TV)": Arm("fdvl_tv", "lam", (0.6, 0.8, 0.95)),
    "f-DVL (chi2)": Arm("fdvl_chi2", "lam", (0.6, 0.8, 0.95)),
    "f-DVL (chi2 as coded)": Arm("fdvl_chi2_coded", "lam", (0.6, 0.8, 0.95)),
}


class Trace(NamedTuple):
    """Means over each of INTERVALS intervals, of all temperatures and seeds: [INTERVALS, temperatures, seeds]."""

    loss: np.ndarray
    q: np.ndarray


def arm_config(arm: Arm, batch_size: int, common: ConfigDict) -> ConfigDict:
    config = from_recipe(OFFLINE[arm.method], common.dataset.name.rpartition("/")[2])
    config.update_from_flattened_dict(
        {
            "dataset.num_steps": common.dataset.num_steps, "dataset.data_dir": common.dataset.data_dir,
            "num_seeds": common.num_seeds, "batch_size": batch_size, "num_steps": common.num_steps,
            "sweep": f"agent.{arm.field}={','.join(map(str, arm.values))}", **arm.overrides,
        }
    )  # fmt: skip
    return config


def interval(config: ConfigDict) -> int:
    """Updates of one interval."""
    return max(config.num_steps // INTERVALS, 1)


def train(config: ConfigDict, learner: Learner) -> Trace:
    """All runs of a configuration; nothing stops where a number is not finite."""
    program = Program(learner.init, learner.step, Resident(learner.data), None, learner.settings)
    axis, combinations = default_seed_axis(), num_runs(config) // config.num_seeds
    state = jax.jit(lambda: init_runs(program, run_keys("init", 0, config.num_seeds, combinations), axis))()
    data = jax.device_put(learner.data)
    empty, chunk = empty_window(program, state, data, data_by_run=False), interval(config)
    step = jax.jit(fused_step(program, chunk, seed_axis=axis, on_nan="abort", data_by_run=False), donate_argnums=0)
    keys = run_keys("train", 0, config.num_seeds, combinations)
    losses, values = [], []
    for _ in range(INTERVALS):
        state, window = step(state, empty, data, keys)
        losses.append(np.asarray(window.sums["value/loss"]) / chunk)
        values.append(np.asarray(window.sums["critic/mean"]) / chunk)
    shape = (INTERVALS, combinations, config.num_seeds)
    return Trace(*(np.stack(x).reshape(shape) for x in (losses, values)))


def diverged(trace: Trace, bound: float) -> np.ndarray:
    """Whether each run has diverged, [temperatures, seeds]; see the module's docstring."""
    fine = np.isfinite(trace.loss) & np.isfinite(trace.q) & (np.abs(np.nan_to_num(trace.q, nan=np.inf)) <= bound)
    return ~fine.all(0)


def magnitude(values: np.ndarray) -> np.ndarray:
    """log10 |x|, within what can be drawn; what is not finite counts as 1e12."""
    return np.log10(np.clip(np.nan_to_num(np.abs(values), nan=1e12, posinf=1e12), 1e-6, 1e12))


def main(config: ConfigDict, workdir: Path) -> dict[str, Any]:
    workdir.mkdir(parents=True, exist_ok=True)
    episodes = load(config.dataset).episodes
    steps = interval(config) * np.arange(1, INTERVALS + 1)
    traces, counts, panels, totals = {}, {}, {}, dict.fromkeys(ARMS, 0)
    rows = ["| arm | batch | temperature | diverged | last mean Q, median over seeds |", "| --- " * 5 + "|"]
    for batch_size in config.batch_sizes:
        for name, arm in ARMS.items():
            own = arm_config(arm, batch_size, config)
            learner = make_learner(own, episodes)
            trace = train(own, learner)
            bad = diverged(trace, 2.0 * float(np.abs(learner.data.rewards).max()) / (1.0 - own.agent.discount))
            greediest = -1 if arm.field == "lam" else 0
            for what, array in (("mean Q", trace.q), ("loss of V", trace.loss)):
                panel = panels.setdefault(f"{what}, batch {batch_size}", {})
                panel[name] = (steps, magnitude(array[:, greediest]))
            traces |= {f"{name}/{batch_size}/{kind}": array for kind, array in trace._asdict().items()}
            totals[name] += int(bad.sum())
            for value, of_value, q in zip(arm.values, bad, trace.q[-1], strict=True):
                counts[f"{name}, batch {batch_size}, {arm.field} {value:g}"] = int(of_value.sum())
                cells = [name, batch_size, f"{arm.field} = {value:g}", f"{of_value.sum()} of {len(of_value)}"]
                rows.append(f"| {' | '.join(map(str, cells))} | {np.median(q):.4g} |")
            logging.info("%s, batch %d: %d of %d diverged", name, batch_size, bad.sum(), bad.size)
    np.savez_compressed(workdir / "stability.npz", **traces)
    (workdir / "table.md").write_text("\n".join(rows) + "\n")
    plot_curves(panels, workdir / "stability.png", labels=list(ARMS), score="log10 |mean|, greediest temperature")
    fewer = all(totals[name] < totals["XQL without clip"] for name in ("f-DVL (TV)", "f-DVL (chi2)"))
    claim = {"name": "fdvl_diverges_less_than_xql", "verdict": "pass" if fewer else "fail", "value": totals}
    return {
        "paper": config.paper, "preset": config.preset, "workdir": str(workdir), "claims": [claim], "diverged": counts,
    }  # fmt: skip


if __name__ == "__main__":
    run_experiment(main, "configs/dual_rl.py:stability")
