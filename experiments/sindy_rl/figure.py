"""The picture of SINDy-RL: real return by real interactions, and what models are wrong by."""

from pathlib import Path

from rl_jax.core.experiment import Metric
from rl_jax.reports.curves import COLOURS, save_figure, thin_frame
from rl_jax.reports.measures import MissingScores, as_curve, outcome
from rl_jax.reports.scores import Scores
from rl_jax.reports.statistics import bootstrap_interval
from rl_jax.reports.tables import found

RETURN = Metric("eval/return", "return")


def draw_interactions(scores: Scores, path: Path) -> None:
    """One panel a task: the return in the real environment against the steps taken there, on a logarithmic axis; what
    has one evaluation, a distilled policy, is a level.

    Raises:
      MissingScores: no run counts its steps.
    """
    from matplotlib.figure import Figure

    panels = {}
    for task in scores.tasks:
        runs = {method: run for method in scores.methods if scores.declared(method, task)
                and (run := found(lambda method=method, task=task: scores.evaluations(method, task))) is not None
                and "samples" in run.outcomes}
        panels |= {task: runs} if runs else {}
    if not panels:
        raise MissingScores("runs in an environment")
    figure = Figure(figsize=(4.8 * len(panels), 3.4), dpi=200, layout="constrained")
    for axes, (task, runs) in zip(figure.subplots(1, len(panels), squeeze=False)[0], panels.items(), strict=True):
        for method, run in runs.items():
            colour = COLOURS[list(scores.paper.labels).index(method) % len(COLOURS)]
            values, label = as_curve(RETURN).of(run), scores.label(method)
            if len(run.steps) == 1:
                axes.axhline(values.mean(), color=colour, linewidth=1.2, linestyle=(0, (5, 1.6)), label=label)
                continue
            steps = outcome(run, "samples").mean(1)
            axes.plot(steps, values.mean(1), color=colour, linewidth=1.4, label=label)
            axes.fill_between(steps, *bootstrap_interval(values.T), color=colour, alpha=0.13, linewidth=0)
        axes.set_xscale("log")
        axes.set_title(task, fontsize=9)
        axes.set_xlabel("steps of the real environment", fontsize=8)
        axes.set_ylabel("return there", fontsize=8)
        axes.tick_params(labelsize=8)
        axes.legend(fontsize=8, frameon=False)
        thin_frame(axes)
    save_figure(figure, path)


def draw_errors(scores: Scores, path: Path) -> None:
    """One panel a data set: the error of each model's roll-outs by their length.

    Raises:
      MissingScores: no model was judged.
    """
    from matplotlib.figure import Figure

    panels = {}
    for task in scores.tasks:
        for method in scores.methods:
            run = found(lambda method=method, task=task: scores.evaluations(method, task)) if scores.declared(
                method, task) else None
            lengths = sorted(int(name[4:]) for name in run.outcomes if name.startswith("rmse")) if run else ()
            if lengths:
                values = [float(outcome(run, f"rmse{length}")[-1].mean()) for length in lengths]
                panels.setdefault(task, {})[method] = lengths, values
    if not panels:
        raise MissingScores("models")
    figure = Figure(figsize=(2.8 * len(panels) + 0.6, 3.0), dpi=200, layout="constrained")
    every, entries = figure.subplots(1, len(panels), squeeze=False, sharey=True)[0], {}
    for axes, (task, models) in zip(every, panels.items(), strict=True):
        for method, (lengths, values) in models.items():
            colour = COLOURS[list(scores.paper.labels).index(method) % len(COLOURS)]
            (entries[scores.label(method)],) = axes.plot(lengths, values, color=colour, marker="o", markersize=3)
        axes.set_yscale("log")
        axes.set_title(task, fontsize=9)
        axes.set_xlabel("steps predicted", fontsize=8)
        axes.tick_params(labelsize=8)
        thin_frame(axes)
    every[0].set_ylabel("error, in standard deviations", fontsize=8)
    figure.legend(entries.values(), entries.keys(), fontsize=8, frameon=False, ncols=4, loc="outside lower center")
    save_figure(figure, path)
