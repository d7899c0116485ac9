"""The saved scores of a preset, as claims, tables and figures see them."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

from rl_jax.core.config import unknown
from rl_jax.reports.declaration import Paper, Preset, Reference, Shown
from rl_jax.reports.measures import Evaluations, Measure, MissingScores, Values, as_measure


class BestOf(NamedTuple):
    """The best of several methods for each seed and task, as if it were one method, and what to call it."""

    methods: tuple[str, ...]
    label: str


Method = str | BestOf


def names_of(method: Method) -> tuple[str, ...]:
    """The methods of which one, or the best, is meant."""
    return (method,) if isinstance(method, str) else tuple(method.methods)


class Scores:
    """Looks up what finished runs are worth.

    Args:
      paper, preset: the declaration.
      evaluations: by a run's name, of those that are finished.
    """

    def __init__(self, paper: Paper, preset: Preset, evaluations: Mapping[str, Evaluations]):
        self.paper, self.preset = paper, preset
        self.published = paper.published if preset.published is None else preset.published
        self._names = {(run.method, run.task): run.name for run in preset.runs}
        self._evaluations = evaluations
        there = {run.method for run in preset.runs}
        self.methods = tuple(method for method in paper.labels if method in there)
        self.memo: dict = {}  # what tables and figures both show and is costly: a bootstrap
        self.tasks = tuple(dict.fromkeys(run.task for run in preset.runs))
        shown = paper.measure if preset.measure is None else preset.measure
        by_task = shown if isinstance(shown, Mapping) else dict.fromkeys(self.tasks, shown)
        lacking = [task for task in self.tasks if task not in by_task]
        if lacking:
            raise ValueError(f"the measure of the preset says nothing of the tasks {', '.join(lacking)}")
        made: dict[int, Measure] = {}
        self._measures = {task: made.setdefault(id(by_task[task]), as_measure(by_task[task])) for task in self.tasks}

    def label(self, method: Method) -> str:
        """What tables and figures call a method."""
        return self.paper.labels[method] if isinstance(method, str) else method.label

    def groups(self) -> list[tuple[Measure, tuple[str, ...]]]:
        """The measures that tables show, each with its tasks, in their order."""
        found: dict[int, tuple[Measure, list[str]]] = {}
        for task, measure in self._measures.items():
            found.setdefault(id(measure), (measure, []))[1].append(task)
        return [(measure, tuple(tasks)) for measure, tasks in found.values()]

    def measure(self, measure: Shown | None = None, tasks: Sequence[str] | None = None) -> Measure:
        """A measure that is given, or the one that tables show for the tasks.

        Raises:
          ValueError: tables show several for these tasks.
        """
        if measure is not None:
            return as_measure(measure)
        names = self.tasks if tasks is None else tasks
        shown = {id(self._measures[task]): self._measures[task] for task in names}
        if len(shown) != 1:
            raise ValueError(f"the tasks {', '.join(names)} are shown by different measures: name one, or one's tasks")
        return next(iter(shown.values()))

    def declared(self, method: Method, task: str) -> bool:
        return all((name, task) in self._names for name in names_of(method))

    def evaluations(self, method: str, task: str) -> Evaluations:
        """Of a finished run.

        Raises:
          MissingScores: it is not there.
          KeyError: it is not declared.
        """
        name = self._names[method, task]
        if name not in self._evaluations:
            raise MissingScores(name)
        return self._evaluations[name]

    def values(self, method: Method, measure: Shown | None = None, tasks: Sequence[str] | None = None) -> Values:
        """What each seed is worth on each task, [S, tasks].

        Args:
          method: of a `BestOf` the best value of a seed and task; it is known where one of them is.
          measure: the one that tables show if None.
          tasks: all of the preset if None.

        Raises:
          MissingScores: not all of them are there; every absent one is named.
          ValueError: the tasks have different numbers of seeds, or different measures.
        """
        measure = self.measure(measure, tasks)
        each, missing = [], []
        for name in names_of(method):
            columns = []
            for task in self.tasks if tasks is None else tasks:
                try:
                    columns.append(measure.of(self.evaluations(name, task)))
                except MissingScores as error:
                    missing += error.args
            each.append(columns)
        if missing:
            raise MissingScores(*missing)
        if len({len(column.values) for columns in each for column in columns}) > 1:
            counts = [len(column.values) for columns in each for column in columns]
            raise ValueError(f"{self.label(method)} has {counts} seeds on its tasks: give all the same number")
        values = np.stack([np.stack([column.values for column in columns], 1) for columns in each])
        known = np.stack([np.stack([column.known for column in columns], 1) for columns in each])
        return Values(measure.sign * (measure.sign * values).max(0), known.any(0))

    def reference(self, reference: Reference | None = None, tasks: Sequence[str] | None = None) -> np.ndarray:
        """The reference of each task, [tasks]; the paper's if None.

        Raises:
          MissingScores: no finished run on a task knows it.
          ValueError: the runs on a task disagree (they did not read the same data), or the paper has none.
        """
        reference = self.paper.reference if reference is None else reference
        if reference is None:
            raise ValueError("the paper declares no reference")
        values = []
        for task in self.tasks if tasks is None else tasks:
            names = [name for (_, other), name in self._names.items() if other == task]
            finished = {name: self._evaluations[name].summary for name in names if name in self._evaluations}
            known = {name: line[reference.field] for name, line in finished.items() if reference.field in line}
            if not known:
                raise MissingScores(*names)
            if not np.allclose(list(known.values()), next(iter(known.values())), rtol=1e-6, atol=0):
                raise ValueError(f"the runs on {task} disagree on {reference.field}, so their data differ: {known}")
            values.append(next(iter(known.values())))
        return np.array(values, np.float64)


def check_declared(preset: Preset, labels: Mapping[str, str]) -> None:
    """What is wrong in a declaration comes up before hours of runs, not after.

    Raises:
      ValueError: two runs or claims have one name, a method has no label, a claim speaks of a run that is not declared,
        or a run needs one that is not.
    """
    names = [run.name for run in preset.runs]
    for kind, named in (("runs", names), ("claims", [claim.name for claim in preset.claims])):
        twice = sorted({name for name in named if named.count(name) > 1})
        if twice:
            raise ValueError(f"the preset declares {kind} of one name: {', '.join(twice)}")
    unnamed = sorted({run.method for run in preset.runs} - set(labels))
    if unnamed:
        raise ValueError(f"the preset runs methods without a label: {', '.join(unnamed)}")
    for run in preset.runs:
        for needed in run.needs.values():
            if needed not in names:
                raise ValueError(f"run {run.name} needs {unknown('run', needed, names)}")
    declared = {(run.method, run.task) for run in preset.runs}
    tasks = tuple(dict.fromkeys(run.task for run in preset.runs))
    for claim in preset.claims:
        if claim.elsewhere:
            continue
        for method in claim.methods:
            for task in tasks if claim.tasks is None else claim.tasks:
                if (method, task) not in declared:
                    raise ValueError(f"claim {claim.name!r} speaks of {method} on {task}: the preset has no such run")
