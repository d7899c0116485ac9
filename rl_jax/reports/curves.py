"""Learning curves: read from a run's `metrics.jsonl` and drawn with the interval over its training runs."""

import json
import os
from collections.abc import Mapping

import numpy as np

from rl_jax.reports.statistics import bootstrap_interval

METRICS_FILE = "metrics.jsonl"
SCORE = "eval/normalized_score"

# Okabe & Ito's colours, told apart by colour-blind readers too; black is kept for the behaviour policy.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")


def read_metric(path: str | os.PathLike, metric: str) -> tuple[np.ndarray, np.ndarray]:
    """Reads one metric of a `metrics.jsonl`: an object a line, with "step" and a number or list of S numbers a name.

    Lines without the metric are passed over, as is a last line that is still being written.

    Returns:
      steps [T] int64, values [T, S] float64 (S = 1 where the file has plain numbers).

    Raises:
      FileNotFoundError: there is no such file.
      ValueError: a line is not an object with a step, a value is not a number or S changes (file and line are named),
        or the metric occurs nowhere (those that do are listed).
    """
    steps, values, names = [], [], set()
    with open(path, encoding="utf-8") as file:
        for number, line in enumerate(file, start=1):
            if not line.endswith("\n"):
                break
            where = f"{os.fspath(path)}, line {number}"
            try:
                record = json.loads(line)
                step = record["step"]
            except (json.JSONDecodeError, KeyError, TypeError) as error:
                raise ValueError(f"{where}: not a JSON object with a step") from error
            names.update(record)
            if metric not in record:
                continue
            try:
                row = np.atleast_1d(np.asarray(record[metric], np.float64))
            except (TypeError, ValueError) as error:
                raise ValueError(f"{where}: {metric} is neither a number nor a list of numbers") from error
            if row.ndim != 1 or (values and len(row) != len(values[0])):
                raise ValueError(f"{where}: {metric} has shape {row.shape}, not {values[0].shape if values else '[S]'}")
            steps.append(step)
            values.append(row)
    if not values:
        raise ValueError(f"{os.fspath(path)} has no {metric}: it has {', '.join(sorted(names)) or 'no lines'}")
    return np.array(steps, np.int64), np.array(values)


def plot_learning_curve(
    curves: str | os.PathLike | Mapping[str, tuple[np.ndarray, np.ndarray]],
    path: str | os.PathLike,
    *,
    behaviour_score: float | None = None,
    title: str = "",
    score: str = "normalised score",
) -> None:
    """Draws a score against gradient steps: mean over the training runs and their 95% bootstrap interval.

    The picture appears under `path` in one rename. pyplot and its global state are not touched.

    Args:
      curves: a run's folder, or label -> (steps [T], values [T, S]) as `read_metric` gives them, drawn in that order.
      path: of the PNG to write.
      behaviour_score: score of the policy that collected the data: a dashed line.
      title: above the axes.
      score: what the vertical axis is called.

    Raises:
      ValueError: there is no curve, or its arrays do not fit together.
    """
    from matplotlib.figure import Figure

    if not isinstance(curves, Mapping):
        curves = {"": read_metric(os.path.join(curves, METRICS_FILE), SCORE)}
    if not curves:
        raise ValueError("there is no curve to draw")
    figure = Figure(figsize=(5.2, 3.4), dpi=200, layout="constrained")
    axes = figure.add_subplot()
    for index, (label, (steps, values)) in enumerate(curves.items()):
        _draw_curve(axes, label, np.asarray(steps), np.asarray(values), COLOURS[index % len(COLOURS)])
    if behaviour_score is not None:
        axes.axhline(
            behaviour_score, color="black", linestyle=(0, (5, 3)), linewidth=1.1, zorder=1, label="behaviour policy"
        )
    _dress(axes, title, score)
    save_figure(figure, path)


def save_figure(figure, path: str | os.PathLike) -> None:
    """Writes a matplotlib figure as a PNG that appears under `path` in one rename."""
    temporary = f"{os.fspath(path)}.tmp"
    try:
        figure.savefig(temporary, format="png")
        os.replace(temporary, path)
    finally:
        if os.path.exists(temporary):
            os.remove(temporary)


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
