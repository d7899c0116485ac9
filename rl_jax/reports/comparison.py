"""The files of a query: the table for people and for programs, the figures, the manifest."""

import csv
import importlib.metadata
import io
import math
import platform
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from rl_jax.reports.aggregate import Estimate
from rl_jax.reports.compare import (
    DDOF,
    Cells,
    Group,
    cell_interval,
    common_grid,
    curves_by_task,
    improvements,
)
from rl_jax.reports.plots import plot_curves
from rl_jax.reports.tables import table

SYSTEM_METRICS = ("system/cpu_percent", "system/memory_gb", "system/device_memory_gb", "time/updates_per_s")
PACKAGES = ("rl_jax", "numpy", "pyarrow", "matplotlib")
CSV_FIELDS = (
    "task", "filter", "runs", "mean", "std", "iqm", "iqm_low", "iqm_high", "first_end", "last_end", "without_value",
)


Totals = Mapping[str, Estimate | str]  # label -> IQM of all runs, or why there is none


def markdown(
    cells: Cells, totals: Totals, *, value: str, better: str, last: int, repetitions: int, remarks: Sequence[str]
) -> str:
    """The table: a row a task, a column a filter, then the aggregate over all tasks and what a reader has to know.

    Args:
      value: what the numbers are, such as "eval/normalized_score".
      better: which way is good, "higher" or "lower".
    """
    tasks, labels = list(dict.fromkeys(task for task, _ in cells)), list(totals)
    rows = [[task, *(_cell_text(cells, task, label) for label in labels)] for task in tasks]
    if any(isinstance(total, Estimate) for total in totals.values()):
        texts = [_interval_text(total) if isinstance(total, Estimate) else "-" for total in totals.values()]
        rows.append(["IQM of all runs", *texts])
    lines = [table(["task", *labels], rows)]
    counted = "last logged value" if last == 1 else f"mean of its last {last} logged values"
    how = f"mean ± standard deviation (ddof = {DDOF}) over runs, and their number; a run counts with the {counted}"
    lines += [
        "",
        f"{value}, {better} is better: {how}. Square brackets: 95% bootstrap interval; the runs of each task are "
        "resampled apart.",
    ]
    pairs = improvements(cells, labels, repetitions, better)
    lines += [""] * bool(pairs)
    for (one, other), estimate in pairs.items():
        lines.append(f"- P({one} better than {other}) = {_interval_text(estimate)}")
    reasons = {label: total for label, total in totals.items() if isinstance(total, str)}
    said = [*(f"{label}: no IQM of all runs: {reason}" for label, reason in reasons.items()), *remarks]
    lines += [""] * bool(said)
    lines += [f"- {text}" for text in said]
    return "\n".join(lines) + "\n"


def _cell_text(cells: Cells, task: str, label: str) -> str:
    cell = cells.get((task, label))
    if cell is None or not len(cell.values):
        return "-"
    spread = f" ± {_short(cell.std, 3)}" if len(cell.values) > 1 else ""
    return f"{_short(cell.mean)}{spread} ({len(cell.values)})"


def _interval_text(estimate: Estimate) -> str:
    return f"{_short(estimate.value)} [{_short(estimate.low)}, {_short(estimate.high)}]"


def _short(value: float, digits: int = 4) -> str:
    return f"{value:.0f}" if abs(value) >= 10 ** (digits - 1) else f"{value:#.{digits}g}".rstrip(".")


def comma_separated(cells: Cells, totals: Totals, repetitions: int) -> str:
    """The same with all digits: a row a task and filter, then a row a filter over all tasks."""
    text = io.StringIO()
    writer = csv.DictWriter(text, CSV_FIELDS, lineterminator="\n")
    writer.writeheader()

    def write(task: str, label: str, estimate: Estimate | None, **row: Any) -> None:
        if estimate is not None:
            row |= {"iqm": estimate.value, "iqm_low": estimate.low, "iqm_high": estimate.high}
        writer.writerow({"task": task, "filter": label, **row})

    for (task, label), cell in cells.items():
        ends = {"first_end": cell.last_steps.min(), "last_end": cell.last_steps.max()} if len(cell.values) else {}
        write(
            task, label, cell_interval(cell, repetitions), runs=len(cell.values), mean=cell.mean, std=cell.std,
            without_value=len(cell.without), **ends,
        )
    for label, total in totals.items():
        if isinstance(total, Estimate):
            write("all", label, total, runs=sum(len(cell.values) for (_, name), cell in cells.items() if name == label))
    return text.getvalue()


# Figures


def draw_curves(cells: Cells, labels: Sequence[str], path: Path, score: str) -> dict[str, Any]:
    """Draws the metric by step; returns the grid of each curve: where it begins and ends, and its points."""
    curves = curves_by_task(cells, lambda series: series.steps)
    if curves:
        plot_curves(curves, path, labels=labels, score=score, x_label="step")
    return _grids(curves)


def draw_wall(cells: Cells, labels: Sequence[str], path: Path, score: str) -> dict[str, Any]:
    """Draws the metric by the wall-clock time since each run's first start; returns the grids, in seconds."""
    curves = curves_by_task(cells, lambda series: series.wall_seconds)
    if curves:
        scaled, unit = _in_unit(curves)
        plot_curves(scaled, path, labels=labels, score=score, x_label=f"wall-clock {unit}")
    return _grids(curves)


def draw_system(groups: Sequence[Group], path: Path) -> dict[str, Any]:
    """Draws what the machine did, a panel a metric: the mean over the folders of each filter by wall-clock time."""
    panels: dict[str, dict[str, tuple[np.ndarray, np.ndarray]]] = {}
    for metric in SYSTEM_METRICS:
        for group in groups:
            folders = {id(member.run): member.run.find(metric, member.column) for member in group.members}
            found = [(series.wall_seconds, series.values) for series in folders.values() if series is not None]
            grid, values = common_grid(found)
            if len(grid):
                panels.setdefault(metric, {})[group.label] = grid, values
    if panels:
        scaled, unit = _in_unit(panels)
        plot_curves(scaled, path, labels=[group.label for group in groups], score="", x_label=f"wall-clock {unit}")
    return _grids(panels)


Curves = Mapping[str, Mapping[str, tuple[np.ndarray, np.ndarray]]]


def _in_unit(curves: Curves) -> tuple[Curves, str]:
    """Curves by seconds as curves by the unit in which the longest has a few ticks."""
    longest = max(grid[-1] for panel in curves.values() for grid, _ in panel.values())
    unit, seconds = ("seconds", 1) if longest < 600 else ("minutes", 60) if longest < 36_000 else ("hours", 3600)
    scaled = {
        task: {label: (grid / seconds, values) for label, (grid, values) in panel.items()}
        for task, panel in curves.items()
    }
    return scaled, unit


def _grids(curves: Curves) -> dict[str, Any]:
    return {
        task: {
            label: {"begin": float(grid[0]), "end": float(grid[-1]), "points": len(grid)}
            for label, (grid, _) in panel.items()
        }
        for task, panel in curves.items()
    }


# Manifest


def run_records(cells: Cells, label: str) -> list[dict[str, Any]]:
    """Every run that a filter chose, whatever became of it, with its value."""
    records = []
    for (task, name), cell in cells.items():
        if name != label:
            continue
        for unit, value, used in zip(cell.units, cell.values.tolist(), cell.used.tolist(), strict=True):
            value = value if math.isfinite(value) else None
            records.append(_record(unit.name, task, unit.member.fields) | {"value": value, "values_in_mean": used})
        for member in cell.without:
            records.append(_record(member.name, task, member.fields) | {"value": None, "values_in_mean": 0})
    return records


def _record(name: str, task: str, fields: Mapping[str, Any]) -> dict[str, Any]:
    shown = ("library", "seed", "state", "last_step", "git.revision", "git.clean", "inputs.checksum")
    return {"run": name, "task": task} | {field: fields[field] for field in shown if fields.get(field) is not None}


def versions() -> dict[str, str]:
    """What made the files."""
    return {"python": platform.python_version()} | {name: importlib.metadata.version(name) for name in PACKAGES}


DRAW: dict[str, tuple[str, Callable[..., dict[str, Any]]]] = {
    "step": ("curves.png", draw_curves),
    "wall": ("wall.png", draw_wall),
}
