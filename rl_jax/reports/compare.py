"""What the chosen runs say: final values by task, means and spreads over runs, IQM with intervals, curves.

A run's value is the mean of its last K logged values of the metric; runs of one task and filter make a cell. Curves of
a cell are laid on one grid of steps or seconds that ends where its shortest run ends: nothing is extrapolated.
"""

import collections
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from rl_jax.core.config import unknown
from rl_jax.core.provenance import MAY_CHANGE
from rl_jax.data.scores import reference_returns
from rl_jax.reports.aggregate import Estimate, interquartile_mean, probability_of_improvement
from rl_jax.reports.filters import Filter, Member
from rl_jax.reports.series import Series

DDOF = 1
GRID_POINTS = 1000
# Attributes in which the runs of one cell differ by right.
OWN_FIELDS = (
    *MAY_CHANGE, "run", "column", "seed", "num_seeds", "sweep", "preset", "tag", "command", "python", "git", "packages",
    "devices", "machine", "inputs", "starts", "started", "state", "last_step", "error",
)


class Group(NamedTuple):
    """A filter and what it chose."""

    filter: Filter
    members: Sequence[Member]
    metric: str
    by: str

    @property
    def label(self) -> str:
        return self.filter.label


class Unit(NamedTuple):
    """One run that logged the metric; several columns that share one series are one unit."""

    member: Member
    name: str
    series: Series


class Cell(NamedTuple):
    """The runs of one task that one filter chose; `values` are in the order of `units`."""

    task: str
    label: str
    units: tuple[Unit, ...]
    without: tuple[Member, ...]  # chosen, and without any value of the metric
    values: np.ndarray  # [R]
    used: np.ndarray  # [R] how many logged values each is the mean of

    @property
    def mean(self) -> float:
        return float(self.values.mean()) if len(self.values) else float("nan")

    @property
    def std(self) -> float:
        return float(self.values.std(ddof=DDOF)) if len(self.values) > DDOF else float("nan")

    @property
    def last_steps(self) -> np.ndarray:
        return np.array([unit.series.steps[-1] for unit in self.units])


Cells = dict[tuple[str, str], Cell]  # by task and label


def make_cells(groups: Sequence[Group], last: int) -> Cells:
    """One cell for each task and filter that has runs, in the order of the filters.

    Args:
      last: K, of how many logged values a run's value is the mean.

    Raises:
      ValueError: a filter's runs know no such metric, or a run does not say its task.
    """
    cells: Cells = {}
    for group in groups:
        names = {metric for member in group.members for metric, _ in member.run.series}
        if group.metric not in names:
            missing = unknown("metric", group.metric, names) if names else "its runs have logged nothing yet"
            raise ValueError(f"--filters={group.filter.text!r}: {missing}")
        tasks = collections.defaultdict(list)
        for member in group.members:
            task = member.fields.get(group.by)
            if task is None:
                raise ValueError(
                    f"{member.name} has no {group.by}, by which the table is made: give --by=FIELD, by=FIELD or "
                    f"{group.by}:=NAME in its filter, or {group.by} in a run.json in its folder"
                )
            tasks[str(task)].append(member)
        for task, members in tasks.items():
            cells[task, group.label] = _make_cell(task, group, members, last)
    return cells


def _make_cell(task: str, group: Group, members: Sequence[Member], last: int) -> Cell:
    units: dict[str, Unit] = {}
    without = []
    for member in members:
        series = member.run.find(group.metric, member.column)
        if series is None:
            without.append(member)
        else:
            name = member.run.name if series.column is None else member.name
            units.setdefault(name, Unit(member, name, series))
    values = np.array([unit.series.values[-last:].mean() for unit in units.values()])
    used = np.array([len(unit.series.values[-last:]) for unit in units.values()], np.int64)
    return Cell(task, group.label, tuple(units.values()), tuple(without), values, used)


# Normalisation


def constants(normalize: str, cells: Cells, given: Mapping[str, Sequence[float]]) -> dict[str, tuple[float, float]]:
    """For each task the value that becomes 0 and the one that becomes 100; empty for none.

    Args:
      normalize: "none"; "reference" (D4RL's random and expert returns); "minmax" (the least and the largest value of
        the runs shown, so that another choice of runs gives other scores); or "given".
      given: what "given" takes, such as the constants of an earlier manifest.

    Raises:
      ValueError: a task has no constants, or they are equal.
    """
    found = {}
    for task in dict.fromkeys(task for task, _ in cells):
        if normalize == "reference":
            found[task] = tuple(map(float, reference_returns(task)))
        elif normalize == "minmax":
            values = np.concatenate([cell.values for (name, _), cell in cells.items() if name == task])
            values = values[np.isfinite(values)]
            found[task] = (float(values.min()), float(values.max())) if values.size else (0.0, 0.0)
        elif normalize == "given":
            if task not in given:
                raise ValueError(unknown("task of the normalisation", task, given))
            found[task] = (float(given[task][0]), float(given[task][1]))
        if task in found and not found[task][1] > found[task][0]:
            raise ValueError(f"normalising {task} needs two values, the lower one first, not {found[task]}")
    return found


def normalized(cells: Cells, scale: Mapping[str, tuple[float, float]]) -> Cells:
    """The cells with 100 * (value - low) / (high - low) in place of every value."""
    if not scale:
        return cells
    made = {}
    for (task, label), cell in cells.items():
        low, high = scale[task]

        def score(values: np.ndarray, low: float = low, high: float = high) -> np.ndarray:
            return 100.0 * (values - low) / (high - low)

        units = tuple(
            unit._replace(series=unit.series._replace(values=score(unit.series.values))) for unit in cell.units
        )
        made[task, label] = cell._replace(units=units, values=score(cell.values))
    return made


# Aggregates


def cell_interval(cell: Cell, repetitions: int) -> Estimate | None:
    """IQM over the runs of a cell with its 95% interval; None for a single run or a value that is not finite."""
    if len(cell.values) < 2 or not np.isfinite(cell.values).all():
        return None
    return interquartile_mean(cell.values[:, None], repetitions=repetitions)


def score_matrix(cells: Cells, label: str) -> np.ndarray | str:
    """The values [S, T] of a filter on all tasks, or in words why there is no such matrix."""
    columns = {}
    for task in dict.fromkeys(task for task, _ in cells):
        if (task, label) not in cells or not len(cells[task, label].values):
            return f"no run on {task}"
        columns[task] = cells[task, label].values
        if not np.isfinite(columns[task]).all():
            return f"a value on {task} is not finite"
    counts = {task: len(values) for task, values in columns.items()}
    if len(set(counts.values())) > 1:
        # The reference would drop the extra runs without a word.
        listed = ", ".join(f"{count} on {task}" for task, count in counts.items())
        return f"the tasks have different numbers of runs ({listed}): choose some by seed="
    if min(counts.values()) < 2:
        return "one run a task has no interval"
    return np.stack(list(columns.values()), axis=1)


def total_interval(cells: Cells, label: str, *, comparable: bool, repetitions: int) -> Estimate | str:
    """IQM over all runs and tasks of a filter, stratified by task, or in words why there is none.

    Args:
      comparable: whether the values of different tasks are on one scale.
      repetitions: bootstrap resamples.
    """
    if not comparable and len({task for task, _ in cells}) > 1:
        return "every task has its own scale: give --normalize"
    scores = score_matrix(cells, label)
    return scores if isinstance(scores, str) else interquartile_mean(scores, repetitions=repetitions)


def improvements(
    cells: Cells, labels: Sequence[str], repetitions: int, better: str = "higher"
) -> dict[tuple[str, str], Estimate]:
    """P(a run of the first filter is better than one of another), mean over tasks, where both have all tasks.

    Args:
      better: which way is good, "higher" or "lower".
    """
    sign = 1.0 if better == "higher" else -1.0
    found = {label: score_matrix(cells, label) for label in labels}
    scores = {label: sign * matrix for label, matrix in found.items() if not isinstance(matrix, str)}
    return {
        (labels[0], other): probability_of_improvement(scores[labels[0]], scores[other], repetitions=repetitions)
        for other in labels[1:]
        if labels[0] in scores and other in scores
    }


# Curves


def common_grid(
    curves: Sequence[tuple[np.ndarray, np.ndarray]], points: int = GRID_POINTS
) -> tuple[np.ndarray, np.ndarray]:
    """Lays curves on one grid: from where the last of them begins to where the first of them ends.

    The grid is every x at which one of them has a point (thinned evenly to `points`); between its own points a curve is
    linear. Where all have the same x, no value is interpolated. A curve ends before its first value that is not finite;
    points of one x are averaged.

    Args:
      curves: R times (x [T_r], values [T_r]), x in any order.

    Returns:
      grid [G] and values [G, R]; G is 0 where they do not overlap.
    """
    merged = [_merge(np.asarray(x, np.float64), np.asarray(y, np.float64)) for x, y in curves]
    if not merged or any(not len(x) for x, _ in merged):
        return np.zeros(0), np.zeros((0, len(merged)))
    low, high = max(x[0] for x, _ in merged), min(x[-1] for x, _ in merged)
    grid = np.unique(np.concatenate([x for x, _ in merged]))
    grid = grid[(grid >= low) & (grid <= high)]
    if len(grid) > points:
        grid = grid[np.linspace(0, len(grid) - 1, points).round().astype(int)]
    return grid, np.stack([np.interp(grid, x, y) for x, y in merged], axis=1)


def _merge(x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    order = np.argsort(x, kind="stable")
    x, y = x[order], y[order]
    bad = ~(np.isfinite(x) & np.isfinite(y))
    if bad.any():
        x, y = x[: bad.argmax()], y[: bad.argmax()]
    unique, place = np.unique(x, return_inverse=True)
    return unique, np.bincount(place, y, minlength=len(unique)) / np.maximum(np.bincount(place), 1)


def curves_by_task(
    cells: Cells, x_of: Callable[[Series], np.ndarray]
) -> dict[str, dict[str, tuple[np.ndarray, np.ndarray]]]:
    """task -> label -> (grid [G], values [G, R]) of the cells whose curves overlap."""
    made: dict[str, dict[str, tuple[np.ndarray, np.ndarray]]] = {}
    for (task, label), cell in cells.items():
        grid, values = common_grid([(x_of(unit.series), unit.series.values) for unit in cell.units])
        if len(grid):
            made.setdefault(task, {})[label] = grid, values
    return made


# What a reader of the table has to know


def remarks(cell: Cell, last: int) -> list[str]:
    """What is not as it should be with a cell: runs that failed, are shorter, lack or replace values, differ, have one
    seed."""
    said = []
    members = [*(unit.member for unit in cell.units), *cell.without]
    if cell.without:
        listed = _listed(f"{member.name} ({member.fields.get('state', 'unknown')})" for member in cell.without)
        said.append(f"{len(cell.without)} of {len(members)} runs logged no value and are not in the mean: {listed}")
    unfinished = {
        f"{unit.member.run.name} {state} at step {unit.member.fields.get('last_step')}"
        for unit in cell.units
        if (state := unit.member.fields.get("state", "finished")) != "finished"
    }
    if unfinished:
        said.append(f"in the mean and not finished: {_listed(sorted(unfinished))}")
    said += [f"{unit.name}: {text}" for unit in cell.units for text in unit.series.remarks]
    if not np.isfinite(cell.values).all():
        bad = [unit.name for unit, value in zip(cell.units, cell.values, strict=True) if not np.isfinite(value)]
        said.append(f"the last value is not finite: {_listed(bad)}")
    if len(set(cell.last_steps.tolist())) > 1:
        said.append(f"the runs end at different steps, {cell.last_steps.min()} to {cell.last_steps.max()}")
    if len(cell.used) and cell.used.min() < last:
        said.append(f"a run has {cell.used.min()} of the {last} values asked for")
    seeds = collections.Counter(member.fields["seed"] for member in members if member.fields["seed"] is not None)
    twice = sorted(seed for seed, count in seeds.items() if count > 1)
    if twice:
        said.append(f"several runs have the seed {_listed(map(str, twice))}")
    for field, values in _differences(members).items():
        said.append(f"the runs differ in {field}: {_listed(values)}")
    return [f"{cell.task}, {cell.label}: {text}" for text in said]


def _differences(members: Sequence[Member]) -> dict[str, list[str]]:
    """The fields of the configuration in which the runs of a cell differ, with their values."""
    different: dict[str, list[str]] = {}
    for field in sorted({field for member in members for field in member.fields}):
        values = list(dict.fromkeys(str(member.fields.get(field, "absent")) for member in members))
        if len(values) > 1 and field.split(".")[0] not in OWN_FIELDS:
            different[field] = values
    return different


def _listed(names: Any, most: int = 4) -> str:
    names = list(names)
    return ", ".join(names[:most]) + (f" and {len(names) - most} more" if len(names) > most else "")
