"""Regret and questions over rounds, both axes logarithmic: the picture of the paper's claim."""

from pathlib import Path

import numpy as np

from rl_jax.reports.curves import COLOURS, save_figure, thin_frame
from rl_jax.reports.measures import MissingScores, outcome
from rl_jax.reports.scores import Scores
from rl_jax.reports.statistics import bootstrap_interval
from rl_jax.reports.tables import found

PANELS = {"regret": "regret of both policies", "queries": "questions"}


def draw_rounds(scores: Scores, path: Path) -> None:
    """Two panels, means over seeds with their 95% intervals on the first task; dashed lines grow as T and as sqrt(T).

    Raises:
      MissingScores: no run of the task is there.
    """
    from matplotlib.figure import Figure

    task = scores.tasks[0]
    runs = {method: run for method in scores.methods if scores.declared(method, task)
            and (run := found(lambda method=method: scores.evaluations(method, task))) is not None}
    if not runs:
        raise MissingScores(f"runs on {task}")
    figure, entries = Figure(figsize=(8.4, 3.3), dpi=200, layout="constrained"), {}
    first, last = max(run.steps[0] for run in runs.values()), max(run.steps[-1] for run in runs.values())
    doubled = first * 2 ** np.arange(int(np.log2(last / first)) + 1)
    for axes, (name, label) in zip(figure.subplots(1, 2), PANELS.items(), strict=True):
        for method, run in runs.items():
            place = list(scores.paper.labels).index(method)
            style = {"color": COLOURS[place % len(COLOURS)], "linestyle": ("-", ":")[place // len(COLOURS)]}
            values = outcome(run, name)
            (entries[scores.label(method)],) = axes.plot(run.steps, values.mean(1), linewidth=1.4, **style)
            if values.shape[1] > 1:
                low, high = bootstrap_interval(values.T)
                axes.fill_between(run.steps, low, high, color=style["color"], alpha=0.13, linewidth=0)
        if name == "regret":
            steps = np.array([first, last], float)
            low = min(outcome(run, name)[0].mean() for run in runs.values())
            for power, words in ((1.0, "$T$"), (0.5, r"$\sqrt{T}$")):
                line = low * (steps / first) ** power
                axes.plot(steps, line, color="black", linewidth=0.8, linestyle=(0, (2, 1.5)), zorder=1)
                axes.annotate(words, (steps[-1], line[-1]), fontsize=8, xytext=(2, 0), textcoords="offset points")
        axes.set(xscale="log", yscale="log")
        axes.set_xticks(doubled, [f"{rounds:,}" for rounds in doubled])
        axes.minorticks_off()
        axes.set_xlabel("rounds", fontsize=8)
        axes.set_ylabel(label, fontsize=8)
        axes.tick_params(labelsize=8)
        thin_frame(axes)
    figure.legend(entries.values(), entries.keys(), fontsize=8, frameon=False, loc="outside right center")
    save_figure(figure, path)
