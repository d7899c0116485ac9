"""Learning curves: read from a run's `metrics.jsonl` and drawn with the interval over its training runs."""

import itertools
import os
from collections.abc import Mapping

import numpy as np

from rl_jax.core.files import atomically
from rl_jax.core.metrics import read_metrics
from rl_jax.reports.statistics import bootstrap_interval

# Okabe & Ito's colours, told apart by colour-blind readers too; black is kept for levels.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")


def read_metric(path: str | os.PathLike, metric: str) -> tuple[np.ndarray, np.ndarray]:
    """Reads one metric of a `metrics.jsonl`; lines without it are passed over.

    Returns:
      steps [T] int64, values [T, S] float64 (S = 1 where the file has plain numbers).

    Raises:
      FileNotFoundError: there is no such file.
      ValueError: the file is damaged, a value is not a number or S changes, or the metric occurs nowhere (those that do
        are listed).
    """
    lines = read_metrics(path)
    there = [line for line in lines if metric in line]
    if not there:
        names = sorted({name for line in lines for name in line})
        raise ValueError(f"{os.fspath(path)} has no {metric}: it has {', '.join(names) or 'no lines'}")
    try:
        values = np.array([np.atleast_1d(np.asarray(line[metric], np.float64)) for line in there])
    except (TypeError, ValueError) as error:
        raise ValueError(f"{os.fspath(path)}: {metric} is not a number or a list of S numbers in every line") from error
    return np.array([line["step"] for line in there], np.int64), values


def plot_learning_curve(
    curves: Mapping[str, tuple[np.ndarray, np.ndarray]],
    path: str | os.PathLike,
    *,
    levels: Mapping[str, float] = {},
    title: str = "",
    score: str = "normalised score",
) -> None:
    """Draws a score against gradient steps: mean over the training runs and their 95% bootstrap interval.

    The picture appears under `path` in one rename. pyplot and its global state are not touched.

    Args:
      curves: label -> (steps [T], values [T, S]) as `read_metric` gives them, drawn in that order.
      path: of the PNG to write.
      levels: label -> a score that is no run's, such as that of the policy that collected the data: broken lines.
      title: above the axes.
      score: what the vertical axis is called.

    Raises:
      ValueError: there is no curve, or its arrays do not fit together.
    """
    from matplotlib.figure import Figure

    if not curves:
        raise ValueError("there is no curve to draw")
    figure = Figure(figsize=(5.2, 3.4), dpi=200, layout="constrained")
    axes = figure.add_subplot()
    for index, (label, (steps, values)) in enumerate(curves.items()):
        _draw_curve(axes, label, np.asarray(steps), np.asarray(values), COLOURS[index % len(COLOURS)])
    for (label, level), gaps in zip(levels.items(), itertools.cycle(((5, 3), (1, 2), (7, 2, 1, 2)))):
        axes.axhline(level, color="black", linestyle=(0, gaps), linewidth=1.1, zorder=1, label=label)
    _dress(axes, title, score)
    save_figure(figure, path)


def save_figure(figure, path: str | os.PathLike) -> None:
    """Writes a matplotlib figure as a PNG that appears under `path` in one rename."""
    with atomically(path) as file:
        figure.savefig(file, format="png")


def _draw_curve(axes, label: str, steps: np.ndarray, values: np.ndarray, colour: str) -> None:
    if steps.ndim != 1 or values.ndim != 2 or len(steps) != len(values) or not values.size:
        raise ValueError(f"curve {label!r} needs steps [T] and values [T, S], got {steps.shape} and {values.shape}")
    num_runs = values.shape[1]
    what = "1 run" if num_runs == 1 else f"mean of {num_runs} runs, 95% bootstrap interval"
    # Every evaluation is marked while the marks are far enough apart to be seen as such.
    marker = "o" if len(steps) <= 30 else None
    axes.plot(
        steps,
        values.mean(1),
        color=colour,
        linewidth=1.6,
        marker=marker,
        markersize=3.2,
        zorder=3,
        label=f"{label}: {what}" if label else what,
    )
    if num_runs > 1:
        low, high = bootstrap_interval(values.T)
        axes.fill_between(steps, low, high, color=colour, alpha=0.2, linewidth=0, zorder=2)


def _dress(axes, title: str, score: str) -> None:
    axes.set_xlabel("gradient steps")
    axes.set_ylabel(score)
    axes.set_title(title, fontsize="medium")
    count_steps(axes, 6)
    thin_frame(axes)
    axes.margins(x=0.02)
    axes.legend(facecolor="white", edgecolor="none", framealpha=0.9, fontsize="small", loc="best")


def count_steps(axes, num_ticks: int) -> None:
    """An x-axis of whole numbers, shortened: 25k, 1.5M."""
    from matplotlib.ticker import FuncFormatter, MaxNLocator

    axes.xaxis.set_major_locator(MaxNLocator(num_ticks, integer=True))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda step, _: _short_number(step)))


def thin_frame(axes, grid: str = "y") -> None:
    """Two spines and a pale grid behind the drawing."""
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(axis=grid, color="0.9", linewidth=0.8)
    axes.set_axisbelow(True)


def _short_number(number: float) -> str:
    """25000 -> 25k, 1500000 -> 1.5M."""
    for unit, suffix in ((1e6, "M"), (1e3, "k")):
        if abs(number) >= unit:
            return f"{number / unit:g}{suffix}"
    return f"{number:g}"
