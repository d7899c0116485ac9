"""Figures of a preset: functions of (scores, path), as `Paper.figures` takes them, that draw its saved scores.

Which way is good the measure says, and so do the axes.
"""

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from rl_jax.core.experiment import Metric
from rl_jax.reports.aggregate import performance_profile
from rl_jax.reports.declaration import Shown
from rl_jax.reports.measures import Curve, MissingScores, as_curve
from rl_jax.reports.plots import (
    method_style,
    one_panel,
    plot_curves,
    plot_improvement,
    plot_profiles,
    plot_scatter,
    save_panel,
)
from rl_jax.reports.scores import Method, Scores
from rl_jax.reports.statistics import bootstrap_interval
from rl_jax.reports.tables import aggregate, found

NUM_THRESHOLDS = 401  # of a performance profile


def curves_of(
    metric: Metric | Curve | None = None, x_label: str = "gradient steps"
) -> Callable[[Scores, Path], None]:
    """A figure of learning curves, one panel a task that has several evaluations.

    Args:
      metric: what is drawn; None for what the tables show.
      x_label: what a step is.
    """

    def draw(scores: Scores, path: Path) -> None:
        panels, names, references = {}, {}, {}
        for measure, tasks in scores.groups():
            curve = measure.curve if metric is None else as_curve(metric)
            for task in tasks if curve is not None else ():
                curves = {}
                for method in scores.methods:
                    run = found(lambda method=method, task=task: scores.evaluations(method, task))
                    if run is not None and len(run.steps) > 1:
                        curves[scores.label(method)] = (run.steps, curve.of(run))
                if not curves:
                    continue
                panels[task] = curves
                lower = curve.metric.better == "lower"
                label = measure.label if metric is None else curve.metric.label
                names[task] = f"{label}, lower is better" if lower else label
                line = scores.paper.reference and found(lambda task=task: scores.reference(None, [task])[0])
                references |= {} if line is None or metric is not None else {task: float(line)}
        if not panels:
            raise MissingScores("learning curves")
        plot_curves(
            panels, path, labels=[scores.label(method) for method in scores.paper.labels], references=references,
            reference_label=scores.paper.reference.label if scores.paper.reference else "",
            score=next(iter(names.values())) if len(set(names.values())) == 1 else names, x_label=x_label,
        )

    return draw


def draw_profiles(scores: Scores, path: Path) -> None:
    """Performance profiles: one panel a measure that several tasks share.

    Raises:
      MissingScores: no method has all tasks of one.
    """
    panels = {}
    for measure, tasks in scores.groups():
        complete = {method: values for method in scores.methods
                    if (values := found(lambda method=method: scores.values(method, measure, tasks))) is not None
                    and len(values.values) > 1}
        if len(tasks) < 2 or not complete:
            continue
        every = np.concatenate([values.values.ravel() for values in complete.values()])
        edge = 0.02 * (np.ptp(every) or 1.0)
        thresholds = np.linspace(every.min() - edge, every.max() + edge, NUM_THRESHOLDS)
        profiles = {
            scores.label(method): performance_profile(measure.sign * values.values, measure.sign * thresholds)
            for method, values in complete.items()
        }
        panels[measure.label] = profiles, thresholds, measure.metric.better
    if not panels:
        raise MissingScores("performance profiles")
    plot_profiles(panels, path, labels=[scores.label(method) for method in scores.paper.labels])


def draw_improvement(scores: Scores, path: Path) -> None:
    """P(better than the baseline): one panel a measure, which says which way is better.

    Raises:
      MissingScores: no method can be compared with the baseline.
    """
    panels = {}
    for measure, tasks in scores.groups():
        estimates = {}
        for method in scores.methods:
            whole = aggregate(scores, method, measure, tasks)
            if whole is not None and whole.improvement is not None:
                estimates[scores.label(method)] = whole.improvement
        if estimates:
            panels[f"{measure.label}, {measure.metric.better} is better"] = estimates
    if not panels:
        raise MissingScores("comparisons with the baseline")
    labels = [scores.label(method) for method in scores.paper.labels]
    plot_improvement(panels, path, labels=labels, baseline=scores.label(scores.paper.baseline))


draw_curves = curves_of()
DEFAULT = {"curves.png": draw_curves, "profile.png": draw_profiles, "improvement.png": draw_improvement}


def scatter(one: Method, others: Sequence[Method], measure: Shown | None = None) -> Callable[[Scores, Path], None]:
    """A figure of one method against each of some others: one point a task, hollow where most seeds of one of the two
    do not get there."""

    def draw(scores: Scores, path: Path) -> None:
        if not all(scores.declared(method, task) for method in (one, *others) for task in scores.tasks):
            raise MissingScores("methods of the figure, which the preset does not run on all tasks")
        shown, panels = scores.measure(measure), {}
        x, x_known = scores.values(one, shown)
        for other in others:
            y, y_known = scores.values(other, shown)
            both = (x_known.mean(0) > 0.5) & (y_known.mean(0) > 0.5)
            points = [np.median(values, 0) for values in (x, y)]
            panels[scores.label(other)] = (*(10.0**p if shown.log10 else p for p in points), both)
        plot_scatter(
            panels, path, names=scores.tasks, x_label=f"{shown.metric.label}: {scores.label(one)}",
            y_label=shown.metric.label, log=shown.log10,
        )

    return draw


def across_tasks(measure: Shown | None = None, x_label: str = "") -> Callable[[Scores, Path], None]:
    """A figure of a measure by task, in their order: the mean over seeds with its 95% interval, a line a method."""

    def draw(scores: Scores, path: Path) -> None:
        shown, entries = scores.measure(measure), {}
        axes, labels = one_panel(), [scores.label(method) for method in scores.paper.labels]
        for method in scores.methods:
            runs = {task: found(lambda method=method, task=task: scores.values(method, shown, [task]).values[:, 0])
                    for task in scores.tasks if scores.declared(method, task)}
            seeds = {scores.tasks.index(task): values for task, values in runs.items() if values is not None}
            if not seeds:
                continue
            label, means = scores.label(method), [values.mean() for values in seeds.values()]
            style = method_style(labels, label)
            (entries[label],) = axes.plot(list(seeds), means, marker="o", markersize=4, **style)
            for place, values in seeds.items():
                if len(values) > 1:
                    axes.vlines(place, *bootstrap_interval(values), color=style["color"], alpha=0.5)
        if not entries:
            raise MissingScores("runs to compare")
        axes.set_xticks(range(len(scores.tasks)), scores.tasks)
        save_panel(axes, entries, labels, (x_label, shown.label), path)

    return draw


def over_evaluations(
    x: Metric | Curve, y: Metric | Curve, methods: Sequence[str], log_x: bool = False
) -> Callable[[Scores, Path], None]:
    """A figure of one metric against another: a point an evaluation and seed of all tasks, a colour a method."""

    def draw(scores: Scores, path: Path) -> None:
        axes, entries, labels = one_panel(), {}, [scores.label(method) for method in scores.paper.labels]
        for method in (name for name in methods if name in scores.methods):
            runs = [found(lambda task=task, method=method: scores.evaluations(method, task))
                    for task in scores.tasks if scores.declared(method, task)]
            points = [np.concatenate([as_curve(metric).of(run).ravel() for run in runs if run is not None] or [[]])
                      for metric in (x, y)]
            if len(points[0]):
                label = scores.label(method)
                colour = method_style(labels, label)["color"]
                entries[label] = axes.scatter(*points, s=9, color=colour, alpha=0.6, linewidth=0)
        if not entries:
            raise MissingScores("evaluations to draw")
        if log_x:
            axes.set_xscale("log")
        save_panel(axes, entries, labels, [as_curve(metric).metric.label for metric in (x, y)], path)

    return draw
