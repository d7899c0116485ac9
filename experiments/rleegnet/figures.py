"""RLEEGNet's figures: fair against leaky accuracy of each method, and where on the head the spatial filters look."""

import textwrap
from pathlib import Path

import numpy as np

from rl_jax.core.arrays import read_arrays
from rl_jax.data.eeg.electrodes import position
from rl_jax.data.eeg.trials import CLASSES, EMBEDDED
from rl_jax.reports.curves import COLOURS, save_figure, thin_frame
from rl_jax.reports.measures import MissingScores
from rl_jax.reports.scores import Scores
from rl_jax.reports.statistics import bootstrap_interval

SMALL = 8
# What a protocol lets leak, in the order of the figure, and its colour.
PROTOCOLS = {
    "runs": "fair: unseen runs", "csp": "filters fitted to all trials", "windows": "windows split at random",
    "permuted": "permuted labels, fair", "permuted_csp": "permuted labels, filters fitted to all",
    "permuted_windows": "permuted labels, windows at random",
}
SHOWN = ("lda", "nearest", "cross_entropy", "dqn", "dqn_discounted", "streaming")
CHANCE, TRIALS = 0.25, 90


def by_trial(scores: Scores, method: str, task: str) -> np.ndarray:
    """Of each trial, or window, the share of seeds that are right at the last evaluation, [E]."""
    return scores.evaluations(method, task).outcomes["correct"][-1].mean(0)


def trial_interval(scores: Scores, method: str, task: str, per_trial: int = 1) -> tuple[float, float, float]:
    """(mean, low, high): a 95% bootstrap interval over trials, which seeds share; windows of a trial go together."""
    values = by_trial(scores, method, task).reshape(-1, per_trial).mean(1)
    low, high = bootstrap_interval(values)
    return float(values.mean()), float(low), float(high)


def protocols(scores: Scores, path: Path) -> None:
    """Accuracy of each method by protocol with its interval over trials, beside chance and what is published."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8.6, 3.7), dpi=200, layout="constrained")
    axes = figure.subplots()
    methods = [name for name in SHOWN if any(scores.declared(name, task) for task in PROTOCOLS)]
    used = [task for task in PROTOCOLS if any(scores.declared(name, task) for name in methods)]
    width, labelled = 0.9 / len(used), set()
    for place, method in enumerate(methods):
        there = [task for task in used if scores.declared(method, task)]
        for at, task in enumerate(there):
            count = scores.evaluations(method, task).outcomes["window_correct"].shape[2] // TRIALS
            mean, low, high = trial_interval(scores, method, task, count if task.endswith("windows") else 1)
            x = place + (at - (len(there) - 1) / 2) * width
            axes.bar(x, mean, width * 0.92, color=COLOURS[used.index(task)],
                     label=None if task in labelled else PROTOCOLS[task])
            labelled.add(task)
            axes.errorbar(x, mean, [[mean - low], [high - mean]], color="black", linewidth=0.9, capsize=2)
            axes.text(x, high + 0.015, f"{100 * mean:.0f}", ha="center", fontsize=SMALL - 2)
        recent = scores.evaluations(method, there[0]).outcomes.get("recent/train/right")
        if recent is not None:
            axes.plot(place + (np.arange(2) - 0.5) * 0.9, [recent[-1].mean()] * 2, color="0.35", linewidth=1.1,
                      linestyle=":", label=None if "reward" in labelled else "fair run: rewarded while training")
            labelled.add("reward")
    axes.axhline(CHANCE, color="black", linestyle=(0, (2, 1.5)), linewidth=0.9, label="chance")
    axes.axhline(1.0, color=COLOURS[1], linestyle="--", linewidth=0.9, label="published: up to 100%")
    axes.set_xticks(range(len(methods)), [textwrap.fill(scores.label(name), 15) for name in methods], fontsize=SMALL)
    axes.tick_params(labelsize=SMALL)
    axes.set_ylim(0.0, 1.08)
    axes.set_ylabel("accuracy, 4 classes", fontsize=SMALL)
    figure.legend(fontsize=SMALL - 1, frameon=False, loc="outside lower center", ncols=3)
    thin_frame(axes)
    save_figure(figure, path)


def filters(scores: Scores, path: Path) -> None:
    """Of each class the patterns of the components that vary most and least in it, beside the rest; first fold."""
    from matplotlib.figure import Figure
    from matplotlib.tri import Triangulation, UniformTriRefiner

    if not scores.declared("lda", "runs"):
        raise MissingScores("the patterns are those of CSP + LDA on the protocol `runs`")
    found = scores.evaluations("lda", "runs").outcomes
    head = Triangulation(*np.array([position(name) for name in read_arrays(EMBEDDED)["channels"].tolist()]).T)
    angle = np.linspace(0.0, 2.0 * np.pi, 100)
    figure = Figure(figsize=(8.4, 4.6), dpi=200, layout="constrained")
    for row, end in zip(figure.subplots(2, len(CLASSES)), ("most", "least"), strict=True):
        for axes, name in zip(row, CLASSES, strict=True):
            values = found[f"pattern/{end}/{name.replace(' ', '_')}"][-1, 0]
            values = values * np.sign(values[np.abs(values).argmax()])  # a component's sign means nothing
            fine, smooth = UniformTriRefiner(head).refine_field(values, subdiv=3)
            most = np.abs(smooth).max()
            axes.tricontourf(fine, smooth, levels=np.linspace(-most, most, 21), cmap="RdBu_r")
            axes.plot(head.x, head.y, ".", color="black", markersize=1.5)
            for one in ("C3", "Cz", "C4"):
                axes.annotate(one, position(one), xytext=(1, 2), textcoords="offset points", fontsize=SMALL - 3)
            axes.plot(1.03 * np.sin(angle), 1.03 * np.cos(angle), color="black", linewidth=0.9)
            axes.plot([-0.1, 0.0, 0.1], [1.03, 1.14, 1.03], color="black", linewidth=0.9)
            axes.set_aspect("equal")
            axes.axis("off")
            axes.set_title(f"{name}: {end} variance", fontsize=SMALL)
    save_figure(figure, path)
