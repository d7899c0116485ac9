"""Figures of off-policy evaluation: estimates with intervals, and distributions of returns with bands, a panel a
policy."""

import os
from collections.abc import Mapping
from typing import Any

import numpy as np

from rl_jax.evaluation.off_policy.intervals import Interval
from rl_jax.evaluation.off_policy.return_distribution import ReturnDistribution
from rl_jax.reports.curves import COLOURS, save_figure, thin_frame

SMALL = 8


def plot_estimates(
    estimates: Mapping[str, Mapping[str, Mapping[str, float]]], path: str | os.PathLike, *,
    truth: Mapping[str, float], behaviour: float, labels: Mapping[str, str], value_label: str = "J",
) -> None:
    """One panel a policy: a dot and a bar for each estimator, a line for the truth and a dashed one for the behaviour.

    Args:
      estimates: policy -> estimator -> "value", "low", "high".
      path: of the PNG to write.
      truth: policy -> what it really earns; may lack some.
      behaviour: what the policy that made the data earns.
      labels: of estimators.
      value_label: names the axis.
    """
    most = max(len(row) for row in estimates.values())
    figure, panels, columns = _panels(len(estimates), 0.24 * most + 0.8)
    for place, (policy, row) in enumerate(estimates.items()):
        axes = panels[place]
        heights = -np.arange(len(row))
        for height, one in zip(heights, row.values(), strict=True):
            axes.plot([one["low"], one["high"]], [height, height], color=COLOURS[0], linewidth=1.6)
            axes.plot(one["value"], height, "o", color=COLOURS[0], markersize=3.5)
        axes.axvline(behaviour, color="0.6", linestyle=(0, (2, 1.5)), linewidth=1.0, zorder=0, label="behaviour policy")
        if policy in truth:
            axes.axvline(truth[policy], color="black", linewidth=1.0, zorder=0, label="truth")
        # A few estimators may be far off: the axis shows where most intervals are.
        inner = sorted([end for one in row.values() for end in (one["low"], one["high"])])
        trim = len(inner) // 6
        ends = [inner[trim], inner[-1 - trim], truth.get(policy, behaviour), behaviour]
        margin = 0.25 * (max(ends) - min(ends)) or 1.0
        axes.set_xlim(min(ends) - margin, max(ends) + margin)
        axes.set_yticks(heights, [labels[name] for name in row] if place % columns == 0 else [""] * len(row))
        _dress(axes, policy, value_label)
    _save(figure, panels[0], path)


def plot_distributions(
    distributions: Mapping[str, Mapping[str, tuple[ReturnDistribution, Interval]]], path: str | os.PathLike, *,
    truth: Mapping[str, float], behaviour: np.ndarray, labels: Mapping[str, str], threshold: float | None = None,
) -> None:
    """One panel a policy: F of its returns by each estimator with a band, and dashed that of the behaviour's returns.

    Args:
      distributions: policy -> estimator -> F at M thresholds, and intervals of it, [M].
      path: of the PNG to write.
      truth: policy -> the true mean of its returns, a line; may lack some.
      behaviour: returns of the policy that made the data, [n].
      labels: of estimators.
      threshold: a dotted line, if not None.
    """
    figure, panels, columns = _panels(len(distributions), 2.5)
    ranks = np.arange(1, len(behaviour) + 1) / len(behaviour)
    for place, (policy, row) in enumerate(distributions.items()):
        axes = panels[place]
        axes.step(np.sort(behaviour), ranks, where="post", color="0.6", linestyle=(0, (2, 1.5)), linewidth=1.0,
                  label="behaviour policy")
        for colour, (name, (found, band)) in zip(COLOURS, row.items()):
            axes.fill_between(found.thresholds, *band, step="post", color=colour, alpha=0.2, linewidth=0)
            axes.step(found.thresholds, found.cdf, where="post", color=colour, linewidth=1.4, label=labels[name])
        if policy in truth:
            axes.axvline(truth[policy], color="black", linewidth=1.0, zorder=0, label="true mean")
        if threshold is not None:
            axes.axvline(threshold, color="black", linestyle=":", linewidth=1.0, zorder=0, label="threshold")
        axes.set_ylim(-0.03, 1.03)
        axes.set_ylabel("share of returns" if place % columns == 0 else "", fontsize=SMALL)
        _dress(axes, policy, "return")
    _save(figure, panels[0], path)


def _panels(count: int, height: float) -> tuple[Any, np.ndarray, int]:
    """A figure, its panels row by row, of which the first `count` are visible, and how many a row has."""
    from matplotlib.figure import Figure

    columns = min(count, 4)
    rows = -(-count // columns)
    figure = Figure(figsize=(2.1 * columns + 1.0, height * rows + 0.3), dpi=200, layout="constrained")
    panels = figure.subplots(rows, columns, squeeze=False).ravel()
    for axes in panels[count:]:
        axes.set_visible(False)
    return figure, panels, columns


def _dress(axes: Any, title: str, x_label: str) -> None:
    axes.set_title(title, fontsize=SMALL + 1)
    axes.tick_params(labelsize=SMALL)
    axes.set_xlabel(x_label, fontsize=SMALL)
    thin_frame(axes, "x")


def _save(figure: Any, panel: Any, path: str | os.PathLike) -> None:
    """With the legend of one panel."""
    handles = panel.get_legend_handles_labels()
    figure.legend(*handles, fontsize=SMALL, frameon=False, loc="outside lower center", ncols=2)
    save_figure(figure, path)
