"""Plots that compare many methods: learning curves by task, performance profiles, probabilities of improvement.

Profiles and probabilities as in Agarwal et al. 2021, arXiv 2108.13264. A method looks the same in all of them: its
place in `labels` decides its colour and line. `figures` draws them from saved scores.
"""

import math
import os
import textwrap
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import ArrayLike

from rl_jax.reports.aggregate import Estimate
from rl_jax.reports.curves import COLOURS, count_steps, save_figure, thin_frame
from rl_jax.reports.statistics import bootstrap_interval

# As many methods as colours are solid, the next ones repeat the colours in these lines.
LINES = ("-", (0, (5, 1.6)), (0, (1.2, 1.2)))
WIDTH, SMALL = 8.4, 8  # inches, points: at a README's width the text is as large as the page's
COLUMNS = 3


def plot_curves(
    tasks: Mapping[str, Mapping[str, tuple[ArrayLike, ArrayLike]]],
    path: str | os.PathLike,
    *,
    labels: Sequence[str],
    references: Mapping[str, float] = {},
    reference_label: str = "",
    score: str | Mapping[str, str] = "normalised score",
    x_label: str = "gradient steps",
) -> None:
    """One panel a task: the mean over seeds against gradient steps, with its 95% bootstrap interval.

    Args:
      tasks: task -> label -> (steps [T], scores [T, S]); each method keeps its own steps.
      path: of the PNG to write.
      labels: all methods, in their order.
      references: task -> score of a dashed line.
      reference_label: what that line is.
      score: names the y-axis, of all panels or of each task's.
      x_label: names the x-axis.

    Raises:
      ValueError: there is nothing to draw, or a curve's arrays do not fit together.
    """
    from matplotlib.figure import Figure

    if not any(tasks.values()):
        raise ValueError("there is no curve to draw")
    columns = min(COLUMNS, len(tasks))
    rows = math.ceil(len(tasks) / columns)
    # The wider legend of a lone panel needs the width of two.
    figure = Figure(figsize=(WIDTH * max(columns, 2) / COLUMNS, 2.3 * rows + 0.7), dpi=200, layout="constrained")
    panels = figure.subplots(rows, columns, squeeze=False)
    entries = {}
    for place, (task, curves) in enumerate(tasks.items()):
        axes = panels[divmod(place, columns)]
        for label, (steps, values) in curves.items():
            steps, values = np.asarray(steps), np.asarray(values)
            if steps.ndim != 1 or values.ndim != 2 or len(steps) != len(values) or not values.size:
                raise ValueError(
                    f"curve {label!r} on {task} needs steps [T] and values [T, S], got {steps.shape} and {values.shape}"
                )
            style = method_style(labels, label)
            marker = "o" if len(steps) == 1 else None
            (entries[label],) = axes.plot(steps, values.mean(1), linewidth=1.4, marker=marker, markersize=3, **style)
            if values.shape[1] > 1:
                low, high = bootstrap_interval(values.T)
                axes.fill_between(steps, low, high, color=style["color"], alpha=0.13, linewidth=0)
        if task in references:
            entries[reference_label] = axes.axhline(
                references[task], color="black", linestyle=(0, (2, 1.5)), linewidth=1.0, zorder=1
            )
        axes.set_title(task, fontsize=SMALL + 1)
        axes.tick_params(labelsize=SMALL)
        count_steps(axes, 4)
        thin_frame(axes)
        axes.margins(x=0.02)
        if isinstance(score, Mapping) or place % columns == 0:
            y_label = score[task] if isinstance(score, Mapping) else score
            axes.set_ylabel(textwrap.fill(y_label, 36), fontsize=SMALL)  # as long as a panel is high
        if place + columns >= len(tasks):
            axes.set_xlabel(x_label, fontsize=SMALL)
    for place in range(len(tasks), rows * columns):
        panels[divmod(place, columns)].set_visible(False)
    _legend(figure, entries, [*labels, reference_label], columns=True)
    save_figure(figure, path)


def plot_profiles(
    panels: Mapping[str, tuple[Mapping[str, Estimate], ArrayLike, str]],
    path: str | os.PathLike,
    *,
    labels: Sequence[str],
) -> None:
    """Performance profiles, one panel a score: the fraction of all runs that are better than each threshold.

    Args:
      panels: name of the score -> label -> arrays [K], as `aggregate.performance_profile` gives them; thresholds [K];
        and which way is better, "higher" or "lower".
      path: of the PNG to write.
      labels: all methods, in their order.

    Raises:
      ValueError: there is nothing to draw.
    """
    from matplotlib.figure import Figure

    if not panels:
        raise ValueError("there is no profile to draw")
    figure = Figure(figsize=(WIDTH * (0.75 if len(panels) == 1 else 1.0), 3.3), dpi=200, layout="constrained")
    entries = {}
    for axes, (score, (profiles, thresholds, better)) in zip(_row(figure, len(panels)), panels.items(), strict=True):
        for label, profile in profiles.items():
            style = method_style(labels, label)
            (entries[label],) = axes.plot(thresholds, profile.value, linewidth=1.4, **style)
            axes.fill_between(thresholds, profile.low, profile.high, color=style["color"], alpha=0.1, linewidth=0)
        axes.set_xlabel(f"{score} $\\tau$", fontsize=SMALL)
        axes.set_ylabel(f"fraction of runs {'above' if better == 'higher' else 'below'} $\\tau$", fontsize=SMALL)
        axes.tick_params(labelsize=SMALL)
        axes.set_ylim(-0.02, 1.02)
        axes.margins(x=0.01)
        thin_frame(axes)
    _legend(figure, entries, labels, columns=False)
    save_figure(figure, path)


def plot_scatter(
    panels: Mapping[str, tuple[ArrayLike, ArrayLike, ArrayLike]],
    path: str | os.PathLike,
    *,
    names: Sequence[str],
    x_label: str,
    y_label: str,
    log: bool = True,
) -> None:
    """One panel a method: one quantity against another, with the diagonal.

    Args:
      panels: label -> (x [N], y [N], whether both are known [N] bool); points of which one is only a bound are hollow.
      path: of the PNG to write.
      names: [N]; the points carry their numbers, and a list beside the panels says which they are.
      x_label, y_label: name the axes.
      log: whether both axes are logarithmic; all numbers are positive then.

    Raises:
      ValueError: there is nothing to draw.
    """
    from matplotlib.figure import Figure

    if not panels or not len(names):
        raise ValueError("there is no point to draw")
    figure = Figure(figsize=(WIDTH, 3.4), dpi=200, layout="constrained")
    row = figure.subplots(1, len(panels), squeeze=False)[0]
    for axes, (label, (x, y, known)) in zip(row, panels.items(), strict=True):
        x, y, known = np.asarray(x), np.asarray(y), np.asarray(known, bool)
        for filled in (True, False):
            rows = known == filled
            axes.scatter(x[rows], y[rows], s=14, color="C0", facecolors="C0" if filled else "none", zorder=3)
        for number, place in enumerate(zip(x, y, strict=True), start=1):
            axes.annotate(str(number), place, textcoords="offset points", xytext=(3, 3), fontsize=SMALL - 2)
        low, high = min(x.min(), y.min()), max(x.max(), y.max())
        ends = [low / 1.5, high * 1.5] if log else [low, high]
        axes.plot(ends, ends, color="black", linestyle=(0, (2, 1.5)), linewidth=0.8, zorder=1)
        if log:
            axes.set(xscale="log", yscale="log")
        axes.set_title(label, fontsize=SMALL + 1)
        axes.set_xlabel(x_label, fontsize=SMALL)
        axes.tick_params(labelsize=SMALL)
        thin_frame(axes)
    row[0].set_ylabel(y_label, fontsize=SMALL)
    numbers = [row[0].scatter([], [], s=0, label=f"{number}  {name}") for number, name in enumerate(names, start=1)]
    figure.legend(handles=numbers, loc="outside right center", fontsize=SMALL - 1, frameon=False, handlelength=0)
    save_figure(figure, path)


def plot_improvement(
    panels: Mapping[str, Mapping[str, Estimate]], path: str | os.PathLike, *, labels: Sequence[str], baseline: str
) -> None:
    """P(a run of the method is better than a run of the baseline), one panel a score, one row a method.

    Args:
      panels: name of the score -> label -> numbers, as `aggregate.probability_of_improvement` gives them.
      path: of the PNG to write.
      labels: all methods, in their order.
      baseline: the method compared with.

    Raises:
      ValueError: there is nothing to draw.
    """
    from matplotlib.figure import Figure

    if not any(panels.values()):
        raise ValueError("there is no comparison to draw")
    rows = max(map(len, panels.values()))
    width = WIDTH * (0.62 if len(panels) == 1 else 1.0)
    figure = Figure(figsize=(width, 0.27 * rows + (0.9 if len(panels) == 1 else 1.1)), dpi=200, layout="constrained")
    for axes, (score, estimates) in zip(_row(figure, len(panels)), panels.items(), strict=True):
        for row, (label, estimate) in enumerate(estimates.items()):
            colour = method_style(labels, label)["color"]
            ends = [estimate.low, estimate.high]
            axes.plot(ends, [row, row], color=colour, linewidth=4, alpha=0.4, solid_capstyle="butt")
            axes.plot(estimate.value, row, "o", color=colour, markersize=5)
        axes.axvline(0.5, color="black", linestyle=(0, (2, 1.5)), linewidth=1.0, zorder=1)
        axes.set_yticks(range(len(estimates)), list(estimates), fontsize=SMALL)
        axes.set_ylim(len(estimates) - 0.5, -0.5)
        axes.set_xlim(-0.02, 1.02)
        axes.tick_params(labelsize=SMALL)
        thin_frame(axes, "x")
        if len(panels) > 1:
            axes.set_title(score, fontsize=SMALL)
    figure.supxlabel(f"P(a run is better than one of {baseline}), mean over tasks", fontsize=SMALL)
    save_figure(figure, path)


def one_panel():
    """The axes of a figure that has one panel, with room for a legend at its right."""
    from matplotlib.figure import Figure

    return Figure(figsize=(WIDTH * 0.75, 3.0), dpi=200, layout="constrained").subplots()


def save_panel(axes, entries: Mapping, order: Sequence[str], labels: Sequence[str], path: Path) -> None:
    """Names both axes, x first, adds the legend and writes the figure."""
    axes.set_xlabel(labels[0], fontsize=SMALL)
    axes.set_ylabel(labels[1], fontsize=SMALL)
    axes.tick_params(labelsize=SMALL)
    thin_frame(axes)
    _legend(axes.figure, entries, order, columns=False)
    save_figure(axes.figure, path)


def _row(figure, count: int):
    return figure.subplots(1, count, squeeze=False)[0]


def method_style(labels: Sequence[str], label: str) -> dict:
    """Colour and line of a method among all."""
    line, colour = divmod(list(labels).index(label), len(COLOURS))
    return {"color": COLOURS[colour], "linestyle": LINES[line % len(LINES)]}


def _legend(figure, entries: Mapping, order: Sequence[str], columns: bool) -> None:
    """Below the axes in as many columns as fit, or at their right in one."""
    shown = [label for label in dict.fromkeys(order) if label in entries]
    # In inches: the line, and a letter of the small font.
    widest = 0.62 + 0.062 * max(map(len, shown))
    ncols = max(1, int(figure.get_figwidth() / widest)) if columns else 1
    if columns:
        figure.set_figheight(figure.get_figheight() + 0.17 * (math.ceil(len(shown) / ncols) - 1))
    figure.legend(
        [entries[label] for label in shown], shown, fontsize=SMALL, frameon=False, handlelength=2.6, ncols=ncols,
        loc="outside lower center" if columns else "outside right center",
    )
