"""Figures of off-policy evaluation: estimates beside the truth, distributions of returns, return against risk."""

import os
from collections.abc import Mapping

import numpy as np

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
    from matplotlib.figure import Figure

    count = len(estimates)
    columns = min(count, 4)
    rows = -(-count // columns)
    most = max(len(row) for row in estimates.values())
    figure = Figure(figsize=(2.1 * columns + 1.0, (0.24 * most + 0.8) * rows + 0.3), dpi=200, layout="constrained")
    panels = figure.subplots(rows, columns, squeeze=False)
    for place, (policy, row) in enumerate(estimates.items()):
        axes = panels[divmod(place, columns)]
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
        axes.set_title(policy, fontsize=SMALL + 1)
        axes.tick_params(labelsize=SMALL)
        axes.set_xlabel(value_label, fontsize=SMALL)
        thin_frame(axes, "x")
    for place in range(count, rows * columns):
        panels[divmod(place, columns)].set_visible(False)
    handles = panels[0, 0].get_legend_handles_labels()
    figure.legend(*handles, fontsize=SMALL, frameon=False, loc="outside lower center", ncols=2)
    save_figure(figure, path)
