"""Score and intervention rate over steps of the environment: the picture of RLIF's claim."""

from pathlib import Path

import numpy as np

from rl_jax.control.tasks import SCORE
from rl_jax.core.experiment import Metric
from rl_jax.reports.curves import COLOURS, count_steps, save_figure, thin_frame
from rl_jax.reports.measures import Evaluations, MissingScores, as_curve, derived, outcome
from rl_jax.reports.scores import Scores
from rl_jax.reports.statistics import bootstrap_interval
from rl_jax.reports.tables import found

FLOOR = -110.0  # of the scores shown: how far below a random policy an untrained one is says nothing


def rate_between(expert_steps: np.ndarray, env_steps: np.ndarray) -> np.ndarray:
    """The expert's share of the steps between an evaluation and the one before, [T, S] of counts so far [T, S]; that of
    the first evaluation is the second's."""
    taken, made = (np.diff(x, axis=0) for x in (expert_steps, env_steps))
    rates = np.divide(taken, made, out=np.zeros_like(taken), where=made > 0)
    return np.concatenate([rates[:1], rates])


RATE = derived(Metric("eval/intervention_rate", "share of the expert's steps", "lower"), rate_between, "expert_steps",
               "env_steps")


def draw_interventions(scores: Scores, path: Path) -> None:
    """One column a task: above the score of every method over steps of the environment, with the expert's level; below
    how often the expert acted. What takes no steps is a level.

    Raises:
      MissingScores: no run of a task that has steps is there.
    """
    from matplotlib.figure import Figure

    tasks = {}
    for task in scores.tasks:
        runs = {method: run for method in scores.methods if scores.declared(method, task)
                and (run := found(lambda method=method, task=task: scores.evaluations(method, task))) is not None
                and "env_steps" in run.outcomes}
        if runs:
            tasks[task] = runs
    if not tasks:
        raise MissingScores("runs with an expert")
    width = max(2.4 * len(tasks) + 0.6, 4.6)
    figure = Figure(figsize=(width, 3.9), dpi=200, layout="constrained")
    panels = figure.subplots(2, len(tasks), squeeze=False, sharex="col", height_ratios=(2, 1))
    entries = {}
    for (above, below), (task, runs) in zip(panels.T, tasks.items(), strict=True):
        for method, run in runs.items():
            place = list(scores.paper.labels).index(method)
            style = {"color": COLOURS[place % len(COLOURS)], "linestyle": ("-", ":")[place // len(COLOURS)]}
            steps, label = outcome(run, "env_steps").mean(1), scores.label(method)
            start = np.flatnonzero(steps == 0)[-1]  # the last evaluation before any step: a clone is trained by then
            entries[label] = draw(above, run, steps, start, style)
            if outcome(run, "expert_steps")[-1].any():
                below.plot(steps[start + 1 :], RATE.of(run)[start + 1 :].mean(1), linewidth=1.4, **style)
        level = found(lambda task=task: scores.reference(None, [task])[0])
        if level is not None:
            label = scores.paper.reference.label
            entries[label] = above.axhline(level, color="black", linestyle=(0, (2, 1.5)), linewidth=1.0, zorder=1)
        above.set_title(task, fontsize=9)
        above.set_ylim(bottom=max(above.get_ylim()[0], FLOOR))
        below.set_ylim(0, 1)
        below.set_xlabel("steps of the environment", fontsize=8)
        for axes in (above, below):
            axes.tick_params(labelsize=8)
            thin_frame(axes)
        count_steps(below, 4)
    panels[0, 0].set_ylabel("normalised score", fontsize=8)
    panels[1, 0].set_ylabel("share of the\nexpert's steps", fontsize=8)
    figure.legend(
        entries.values(), entries.keys(), fontsize=8, frameon=False, ncols=int(width / 1.5), loc="outside lower center"
    )
    save_figure(figure, path)


def draw(axes, run: Evaluations, steps: np.ndarray, start: int, style: dict[str, str]):
    """The score of a run from an evaluation on with the interval over its seeds; where it takes no steps, a level, the
    mean of the last three evaluations."""
    values = as_curve(SCORE).of(run)
    if not steps.any():
        return axes.axhline(values[-3:].mean(), color=style["color"], linewidth=1.2, linestyle=(0, (5, 1.6)))
    (line,) = axes.plot(steps[start:], values[start:].mean(1), linewidth=1.4, **style)
    low, high = bootstrap_interval(values[start:].T)
    axes.fill_between(steps[start:], low, high, color=style["color"], alpha=0.13, linewidth=0)
    return line
