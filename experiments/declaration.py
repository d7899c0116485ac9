"""What a paper declares so that `experiments.reproduce` can regenerate its results: runs, claims, published numbers.

`experiments/<paper>/reproduce.py` exports `PAPER`, a `Paper`. A run is one start of a binary on one task; what it is
worth is read from its folder as scores of S seeds in E episodes (or prompts, or samples) at T evaluations.
"""

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from rl_jax.evaluation.aggregate import (
    Estimate,
    interquartile_mean,
    interquartile_mean_difference,
    probability_of_improvement,
)
from rl_jax.evaluation.records import read_episodes
from rl_jax.evaluation.scores import normalized_score


class Run(NamedTuple):
    """One method on one task, its seeds side by side: `python -m MODULE --config=CONFIG --config.FIELD=VALUE ...`."""

    method: str
    task: str
    module: str  # the binary: "experiments.<paper>.train"
    config: str  # "configs/<paper>.py:<preset>"
    overrides: Mapping[str, Any] = {}  # by dotted field of the configuration

    @property
    def name(self) -> str:
        return f"{self.method}-{self.task}"


class Evaluations(NamedTuple):
    """What a finished run is worth."""

    steps: np.ndarray  # [T] int64, increasing
    scores: np.ndarray  # [T, S, E] float64: what tables and claims speak of
    returns: np.ndarray  # [T, S, E] float64: the raw outcomes that the scores come from
    reference_score: float | None = None  # where learning starts from, such as the policy that made the data


class MissingScores(LookupError):
    """Cells that a statistic needs and that have no scores."""


class Scores:
    """The saved scores of a preset, as claims see them.

    Args:
      runs: what the preset declares, in its order.
      evaluations: by a run's name, those that are there.
    """

    def __init__(self, runs: Sequence[Run], evaluations: Mapping[str, Evaluations]):
        self._names = {(run.method, run.task): run.name for run in runs}
        self._evaluations = evaluations
        self.methods = tuple(dict.fromkeys(run.method for run in runs))
        self.tasks = tuple(dict.fromkeys(run.task for run in runs))

    def evaluations(self, method: str, task: str) -> Evaluations:
        """Raises MissingScores where there are none, KeyError where none are declared."""
        name = self._names[method, task]
        if name not in self._evaluations:
            raise MissingScores(name)
        return self._evaluations[name]

    def final(self, method: str, tasks: Sequence[str] | None = None) -> np.ndarray:
        """The score of each seed on each task, [S, T]: the mean over the episodes of its last evaluation.

        Args:
          tasks: all of the preset where left out.

        Raises:
          MissingScores: not all of them are there; every absent one is named.
          ValueError: the tasks have different numbers of seeds.
        """
        columns, missing = [], []
        for task in self.tasks if tasks is None else tasks:
            try:
                columns.append(self.evaluations(method, task).scores[-1].mean(1))
            except MissingScores as error:
                missing += error.args
        if missing:
            raise MissingScores(*missing)
        if len({len(column) for column in columns}) > 1:
            counts = [len(column) for column in columns]
            raise ValueError(f"{method} has {counts} seeds on its tasks: give all the same number")
        return np.stack(columns, axis=1)

    def reference(self, tasks: Sequence[str] | None = None) -> np.ndarray:
        """The reference score of each task, [T].

        Raises:
          MissingScores: no run on a task is there, or none that knows it.
          ValueError: the runs on a task disagree: they did not read the same data.
        """
        values = []
        for task in self.tasks if tasks is None else tasks:
            names = {name: self._evaluations.get(name) for (_, other), name in self._names.items() if other == task}
            known = {
                name: run.reference_score
                for name, run in names.items()
                if run is not None and run.reference_score is not None
            }
            if not known:
                raise MissingScores(*names)
            if not np.allclose(list(known.values()), next(iter(known.values())), rtol=1e-6, atol=0):
                raise ValueError(f"the runs on {task} disagree on its reference score, so their data differ: {known}")
            values.append(next(iter(known.values())))
        return np.array(values)


class Finding(NamedTuple):
    """What the scores say of a claim."""

    value: float
    interval: tuple[float, float]
    passed: bool
    detail: str = ""


class Claim(NamedTuple):
    """A sentence of a paper with the rule that decides it, fixed before the numbers are seen."""

    name: str
    text: str
    rule: str  # in words: the statistic and when it passes
    check: Callable[[Scores], Finding]
    paper_value: float | None = None  # the same statistic of the published numbers


class Preset(NamedTuple):
    """What one value of --preset runs and judges."""

    runs: tuple[Run, ...]
    claims: tuple[Claim, ...]


class Published(NamedTuple):
    """Numbers of others, shown in a column of their own."""

    label: str  # heads the column
    source: str  # where they stand, with the revision, and what they were measured on
    values: Mapping[str, Mapping[str, tuple[float, float]]]  # method -> task -> mean, standard deviation


class Paper(NamedTuple):
    """A paper whose results can be regenerated.

    Attributes:
      title: heads the tables.
      labels: what tables and figures call each method, in their order.
      baseline: the method that the others are compared with.
      presets: by name; each is a function, so that the ones not asked for cost nothing.
      read: (a run's folder, the JSON object of its last line) -> Evaluations.
      published: other people's numbers.
      score: names the scores' axis of a figure.
      reference: names what `Evaluations.reference_score` is the score of.
      notes: what a reader of the tables has to know.
      draw: figures of the paper's own: (scores, folder) -> the files written there. It may raise MissingScores.
    """

    title: str
    labels: Mapping[str, str]
    baseline: str
    presets: Mapping[str, Callable[[], Preset]]
    read: Callable[[Path, Mapping[str, Any]], Evaluations]
    published: tuple[Published, ...] = ()
    score: str = "normalised score"
    reference: str = "behaviour policy"
    notes: tuple[str, ...] = ()
    draw: Callable[[Scores, Path], Sequence[str]] | None = None


def read_returns(workdir: Path, summary: Mapping[str, Any]) -> Evaluations:
    """The normalised returns of a control run: its episodes.npz, and the task that its provenance.json names.

    Raises:
      ValueError: a file is damaged, or the last evaluation is not of the run's last step.
    """
    record = read_episodes(workdir / "episodes.npz")
    if record.steps[-1] != summary["step"]:
        raise ValueError(f"{workdir} was evaluated last at step {record.steps[-1]}, not at its end, {summary['step']}")
    returns = np.asarray(record.episodes.returns, np.float64)
    env_id = json.loads((workdir / "provenance.json").read_text())["starts"][-1]["inputs"]["env_id"]
    return Evaluations(record.steps, normalized_score(env_id, returns), returns, summary["behaviour_score"])


# Rules that many papers share


def finding(estimate: Estimate, threshold: float, detail: str = "") -> Finding:
    """Passed where the whole interval lies above the threshold."""
    return Finding(estimate.value, (estimate.low, estimate.high), bool(estimate.low > threshold), detail)


def better_than(method: str, baseline: str, threshold: float = 0.5) -> Callable[[Scores], Finding]:
    """A run of the method scores higher than one of the baseline with a probability above the threshold."""
    return lambda scores: finding(
        probability_of_improvement(scores.final(method), scores.final(baseline)), threshold
    )


def not_worse_than(method: str, baseline: str, margin: float) -> Callable[[Scores], Finding]:
    """The method's IQM is at most `margin` below the baseline's."""
    return lambda scores: finding(
        interquartile_mean_difference(scores.final(method), scores.final(baseline)), -margin
    )


def best_above_reference(methods: Sequence[str]) -> Callable[[Scores], Finding]:
    """The IQM of (score - reference score of the task) of the best of several methods lies above 0.

    The best one is chosen by the scores that judge it, so its interval is at 1 - 0.05 / number of methods
    (Bonferroni): it holds for all methods at once.
    """

    def check(scores: Scores) -> Finding:
        reference, confidence = scores.reference(), 1.0 - 0.05 / len(methods)
        gains = {name: interquartile_mean(scores.final(name) - reference, confidence=confidence) for name in methods}
        best = max(gains, key=lambda name: gains[name].value)
        return finding(gains[best], 0.0, detail=best)

    return check
