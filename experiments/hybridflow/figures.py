"""The two pictures: what a change of layout moves and holds beside its formula, with learning; and stages."""

from collections.abc import Iterable
from pathlib import Path

import numpy as np

from rl_jax.reports.curves import COLOURS, save_figure, thin_frame
from rl_jax.reports.measures import Evaluations, MissingScores, outcome
from rl_jax.reports.scores import Scores
from rl_jax.reports.statistics import bootstrap_interval
from rl_jax.reports.tables import found as finished

COLUMNS = {"moved": "data moved", "peak": "peak of parameters", "redundant": "redundant memory"}
WAYS = {"deepspeed_chat": "all gather all\n(DeepSpeed-Chat)", "contiguous": "contiguous\n(HybridFlow-V)",
        "hybridflow": "HybridFlow"}
DRIVERS = ("ppo", "remax", "grpo", "safe_rlhf")
LINES = {"training": "-", "one": (0, (3, 1.5))}
PLACES = {"training": "8 devices", "one": "1 device"}
STAGES, PLACEMENTS = ("generate", "score", "update"), {"together": "8", "split": "4+4", "one": "1"}


def there(scores: Scores, names: Iterable[str], tasks: Iterable[str]) -> dict[tuple[str, str], Evaluations]:
    """The runs that are declared and finished, by method and task."""
    declared = [(name, task) for name in names for task in tasks if scores.declared(name, task)]
    found = {run: finished(lambda run=run: scores.evaluations(*run)) for run in declared}
    return {run: evaluations for run, evaluations in found.items() if evaluations is not None}


def overview(scores: Scores, path: Path) -> None:
    """Bars of what is measured of three ways, with a line where the formula is; and the drivers' learning curves.

    Raises:
      MissingScores: there is no way, or no learning, to draw.
    """
    from matplotlib.figure import Figure
    from matplotlib.lines import Line2D

    figure = Figure(figsize=(9.6, 3.3), dpi=200, layout="constrained")
    left, right = figure.subplots(1, 2, width_ratios=(1.15, 1))
    ways = there(scores, WAYS, ("resharding",))
    for place, (column, label) in enumerate(COLUMNS.items()):
        for number, found in enumerate(ways.values()):
            at = number + 0.27 * (place - 1)
            value, formula = (float(outcome(found, x)[-1].mean()) for x in (column, f"{column}_formula"))
            left.bar(at, value, 0.24, color=COLOURS[place], label=label if not number else None)
            left.plot([at - 0.13, at + 0.13], [formula] * 2, color="black", linewidth=1.6)
            left.text(at, value + 0.02, f"{value:.3f}", ha="center", fontsize=6.5)
    left.set_xticks(range(len(ways)), [WAYS[name] for name, _ in ways], fontsize=8)
    left.set_ylabel("share of the model's size M, a device", fontsize=8)
    left.set_title("from training to generation: measured, formulae as lines", fontsize=9)
    left.set_ylim(0, 1.22)
    left.legend(fontsize=7, frameon=False, ncols=3, loc="upper center")
    drawn = there(scores, DRIVERS, LINES)
    if not drawn or not ways:
        raise MissingScores("a way between layouts, or a driver's training")
    for (name, task), found in drawn.items():
        values, colour = outcome(found, "reward"), COLOURS[DRIVERS.index(name)]
        right.plot(found.steps, values.mean(1), color=colour, linestyle=LINES[task], linewidth=1.4)
        if values.shape[1] > 1:
            right.fill_between(found.steps, *bootstrap_interval(values.T), color=colour, alpha=0.12, linewidth=0)
    entries = [
        Line2D([], [], color=COLOURS[DRIVERS.index(name)], label=scores.label(name))
        for name in dict.fromkeys(name for name, _ in drawn)
    ]
    entries += [
        Line2D([], [], color="black", linestyle=LINES[task], label=PLACES[task])
        for task in dict.fromkeys(task for _, task in drawn)
    ]
    right.legend(handles=entries, fontsize=7, frameon=False, loc="lower right")
    right.set_xlabel("iterations", fontsize=8)
    right.set_ylabel("reward, held-out prompts", fontsize=8)
    right.set_title("learning, by driver and placement", fontsize=9)
    for axes in (left, right):
        thin_frame(axes)
        axes.tick_params(labelsize=8)
    save_figure(figure, path)


def stages(scores: Scores, path: Path) -> None:
    """Seconds of each stage of an iteration, and bytes on the fullest device, by driver and placement.

    Raises:
      MissingScores: no driver was placed.
    """
    from matplotlib.figure import Figure

    runs = there(scores, DRIVERS, ("placements",))
    names = [name for name, _ in runs]
    if not names:
        raise MissingScores("a driver on placements")
    figure = Figure(figsize=(9.6, 3.0), dpi=200, layout="constrained")
    left, right = figure.subplots(1, 2)
    ticks = []
    for number, found in enumerate(runs.values()):
        for place, placement in enumerate(PLACEMENTS):
            at, below = number + 0.27 * (place - 1), 0.0
            below_it = f"\n{scores.label(names[number])}" if placement == "split" else ""
            ticks.append((at, PLACEMENTS[placement] + below_it))
            for stage, colour in zip(STAGES, COLOURS, strict=False):
                height = float(np.min(outcome(found, f"seconds_{placement}_{stage}")[-1]))
                left.bar(at, height, 0.24, bottom=below, color=colour, label=stage if not number + place else None)
                below += height
            parts = ("parameters", "temporary")
            sizes = [float(outcome(found, f"{part}_{placement}")[-1].max()) / 2**20 for part in parts]
            for size, base, colour, label in zip(sizes, (0.0, sizes[0]), COLOURS[3:], parts, strict=False):
                right.bar(at, size, 0.24, bottom=base, color=colour, label=label if not number + place else None)
    for axes, title in ((left, "seconds of an iteration (two cores)"), (right, "MiB on the fullest device")):
        axes.set_xticks([at for at, _ in ticks], [text for _, text in ticks], fontsize=7)
        axes.set_title(f"{title}, by the devices of the roles", fontsize=9)
        axes.legend(fontsize=7, frameon=False)
        axes.tick_params(axis="y", labelsize=8)
        thin_frame(axes)
    save_figure(figure, path)
