"""SCOPE-RL's figures: errors of all estimators, estimates beside the truth, and what each estimator would select."""

from pathlib import Path

import numpy as np

from rl_jax.control.tabular_evaluation import COMPARED
from rl_jax.evaluation.off_policy.estimators import ESTIMATORS
from rl_jax.evaluation.off_policy.selection import portfolio, rank_correlation, regret, sharpe_ratio
from rl_jax.reports.curves import COLOURS, save_figure, thin_frame
from rl_jax.reports.scores import Scores

SMALL = 8
SHOWN = ("dm", "snpdis", "sndr", "sm_is", "sam_is", "drl")
CONTROL = "control"  # the task of the runs that judge estimators


def errors(scores: Scores, path: Path) -> None:
    """RMSE of every estimator in the tabular study, a dot a seed."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8.4, 3.4), dpi=200, layout="constrained")
    axes = figure.subplots()
    for place, method in enumerate(scores.methods):
        (task,) = scores.tasks
        found = scores.evaluations(method, task).outcomes
        for at, name in enumerate(COMPARED):
            values = found[f"rmse/{name}"][-1].mean(1)
            axes.plot(np.full(len(values), at + 0.22 * (place - 1)), values, "o", color=COLOURS[place], markersize=3.5,
                      label=scores.label(method) if at == 0 else None)
    axes.set_yscale("log")
    labels = [ESTIMATORS[name].label if name in ESTIMATORS else name.upper().replace("_", "-") for name in COMPARED]
    axes.set_xticks(range(len(COMPARED)), labels, rotation=45, ha="right")
    axes.tick_params(labelsize=SMALL)
    axes.set_ylabel("RMSE", fontsize=SMALL)
    axes.legend(fontsize=SMALL, frameon=False)
    thin_frame(axes)
    save_figure(figure, path)


def estimates(scores: Scores, path: Path) -> None:
    """Of the first seed of every task: what each candidate earns, by several estimators with 95% intervals."""
    from matplotlib.figure import Figure

    methods = [method for method in scores.methods if scores.declared(method, CONTROL)]
    columns = min(len(methods), 4)
    rows = -(-len(methods) // columns)
    figure = Figure(figsize=(max(3.0 * columns, 5.2) + 0.4, 2.4 * rows + 0.5), dpi=200, layout="constrained")
    panels = figure.subplots(rows, columns, squeeze=False)
    for axes in panels.ravel()[len(methods) :]:
        axes.set_visible(False)
    for place, method in enumerate(methods):
        axes, found = panels[divmod(place, columns)], scores.evaluations(method, CONTROL).outcomes
        truth = found["truth"][-1, 0]
        order = np.argsort(truth)
        for at, value in enumerate(truth[order]):
            axes.plot([at - 0.45, at + 0.45], [value, value], color="black", linewidth=1.2,
                      label="truth" if at == 0 else None)
        axes.axhline(found["behaviour"][-1, 0, 0], color="0.6", linestyle=(0, (2, 1.5)), linewidth=1.0, zorder=0,
                     label="behaviour policy")
        for number, name in enumerate(SHOWN):
            if f"estimate/{name}" not in found:
                continue
            value, low, high = (found[f"{kind}/{name}"][-1, 0][order] for kind in ("estimate", "low", "high"))
            x = np.arange(len(truth)) + 0.13 * (number - 2.5)
            axes.vlines(x, low, high, color=COLOURS[number], linewidth=1.0)
            axes.plot(x, value, "o", markersize=2.5, color=COLOURS[number], label=ESTIMATORS[name].label)
        margin = 0.6 * np.ptp(truth)
        axes.set_ylim(truth.min() - margin, truth.max() + margin)  # an estimate far away is cut off
        axes.set_xticks([])
        axes.set_title(scores.label(method), fontsize=SMALL + 1)
        axes.tick_params(labelsize=SMALL)
        axes.set_xlabel("candidates, the worst first", fontsize=SMALL)
        if place % columns == 0:
            axes.set_ylabel("discounted return", fontsize=SMALL)
        thin_frame(axes)
    handles = panels[0, 0].get_legend_handles_labels()
    figure.legend(*handles, fontsize=SMALL, frameon=False, loc="outside lower center", ncols=4)
    save_figure(figure, path)


def selection(scores: Scores, path: Path) -> None:
    """Return against risk of the top 4 of every estimator, a dot a seed, and by estimator three means over seeds.

    A dot has the colour of its estimator's name, and is filled where that is bold.
    """
    from matplotlib.figure import Figure

    methods = [method for method in scores.methods if scores.declared(method, CONTROL)]
    names = [name for name in ESTIMATORS if f"estimate/{name}" in scores.evaluations(methods[0], CONTROL).outcomes]
    width = max(len(methods), 3)
    figure = Figure(figsize=(max(1.5 * width, 8.4), 0.23 * len(names) + 3.6), dpi=200, layout="constrained")
    above, below = figure.subfigures(2, 1, height_ratios=(2.0, 0.23 * len(names) + 0.9))
    panels = above.subplots(1, width), below.subplots(1, 3)
    colours = [COLOURS[row % len(COLOURS)] for row in range(len(names))]
    fills = [colour if row < len(COLOURS) else "none" for row, colour in enumerate(colours)]
    for axes in panels[0]:
        axes.set_visible(False)
    tables = np.zeros((3, len(names), len(methods)))
    for place, method in enumerate(methods):
        found, axes = scores.evaluations(method, CONTROL).outcomes, panels[0][place]
        axes.set_visible(True)
        for row, name in enumerate(names):
            judged = []
            for chosen, truth, base in zip(found[f"estimate/{name}"][-1], found["truth"][-1], found["behaviour"][-1]):
                top = portfolio(chosen, truth)
                axes.plot(top.std[3], top.best[3] - base[0], "o", color=colours[row], markersize=4,
                          markerfacecolor=fills[row])
                judged.append((rank_correlation(chosen, truth), regret(chosen, truth),
                               sharpe_ratio(chosen, truth, base[0], 4)))
            tables[:, row, place] = np.mean(judged, 0)
        axes.set_title(scores.label(method), fontsize=SMALL)
        axes.set_xlabel("std@4", fontsize=SMALL)
        axes.set_ylabel("best@4 less behaviour" if place == 0 else "", fontsize=SMALL)
        axes.tick_params(labelsize=SMALL)
        thin_frame(axes, "both")
    for at, (words, table) in enumerate(zip(("Spearman's rho", "Regret@1", "SharpeRatio@4"), tables, strict=True)):
        axes = panels[1][at]
        axes.imshow(-table if at == 1 else table, cmap="Blues", aspect="auto", alpha=0.6)
        for (row, column), number in np.ndenumerate(table):
            axes.text(column, row, f"{number:.2g}", ha="center", va="center", fontsize=SMALL - 2)
        axes.set_xticks(range(len(methods)), [scores.label(one).replace(", ", ",\n") for one in methods],
                        fontsize=SMALL - 3)
        axes.set_yticks(range(len(names)), [ESTIMATORS[name].label for name in names] if at == 0 else [""] * len(names),
                        fontsize=SMALL - 2)
        for row, tick in enumerate(axes.get_yticklabels()):  # the dots above
            tick.set_color(colours[row])
            tick.set_fontweight("bold" if fills[row] != "none" else "normal")
        axes.set_title(words, fontsize=SMALL)
    save_figure(figure, path)
