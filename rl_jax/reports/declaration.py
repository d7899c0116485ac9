"""What a paper declares so that `experiments.reproduce` can regenerate its results: runs, claims, published numbers.

`experiments/<paper>/claims.py` exports `PAPER`, a `Paper`. A run is one start of a binary on one task, its seeds side
by side; what it is worth is read from its folder, `outcomes.npz` and `result.json`, the same way for every paper.
"""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from rl_jax.core.experiment import Metric
from rl_jax.reports.measures import Curve, Measure

Scores = Any  # rl_jax.reports.scores.Scores, which is made of these declarations

Shown = Metric | Curve | Measure


class Run(NamedTuple):
    """One method on one task, its seeds side by side: `python -m MODULE --config=CONFIG --config.FIELD=VALUE ...`.

    Attributes:
      method, task: its place in the tables; its name is <method>-<task>.
      module: the binary, "experiments.<paper>.train".
      config: "configs/<paper>.py:<preset>".
      overrides: by dotted field of the configuration.
      needs: dotted field of the configuration -> name of the run whose folder is put there, such as {"init_from.run":
        "iql-hopper-medium"}. That run is done first; without it this one is not run.
    """

    method: str
    task: str
    module: str
    config: str
    overrides: Mapping[str, Any] = {}
    needs: Mapping[str, str] = {}

    @property
    def name(self) -> str:
        return f"{self.method}-{self.task}"


def grid(
    methods: Sequence[str],
    tasks: Sequence[str],
    *,
    module: str,
    config: str,
    common: Mapping[str, Any] = {},
    by_method: Mapping[str, Mapping[str, Any]] = {},
    by_task: Mapping[str, Mapping[str, Any]] = {},
    presets: Mapping[str, str] = {},
    needs: Mapping[str, str] = {},
) -> tuple[Run, ...]:
    """Every method on one task after the other, so that a grid that was stopped has whole tasks.

    Args:
      methods, tasks: what tables call them.
      module: the binary of all.
      config: a template with {method} and {task}, as "configs/offline_rl.py:{method}/{task}".
      common: overrides of all runs.
      by_method, by_task: overrides of some, which stand above the common ones; a task's stand above a method's.
      presets: what {method} or {task} becomes in `config` where it is called otherwise there.
      needs: as `Run.needs`, templates with {method} and {task}.
    """

    def run(method: str, task: str) -> Run:
        called = {"method": presets.get(method, method), "task": presets.get(task, task)}
        overrides = {**common, **by_method.get(method, {}), **by_task.get(task, {})}
        needed = {field: name.format(method=method, task=task) for field, name in needs.items()}
        return Run(method, task, module, config.format(**called), overrides, needed)

    return tuple(run(method, task) for task in tasks for method in methods)


class Finding(NamedTuple):
    """What the scores say of a claim.

    Attributes:
      value: the statistic of the rule.
      interval: its ends; what they are the rule says.
      passed: whether the rule holds.
      detail: what a reader should see beside it.
    """

    value: float
    interval: tuple[float, float]
    passed: bool
    detail: str = ""


class Claim(NamedTuple):
    """A sentence of a paper with the rule that decides it, fixed before the numbers are seen.

    The constructors of `claims` make rule and check from the same parameters, so that they say the same.

    Attributes:
      name: identifies it in report.json.
      text: the sentence; {method} stands for a method's label.
      rule: the statistic and when it passes, in words.
      check: scores -> Finding; may raise MissingScores.
      methods: whom it speaks of; all of them are checked to be declared on `tasks`.
      tasks: where it speaks of them; None for all tasks of the preset.
      measure: what it compares; None for the one that tables show.
      published: the same statistic of the published numbers: a number, or a function of the tasks.
      elsewhere: why it is not judged in this preset, such as "needs an accelerator: preset `full`"; empty if it is.
    """

    name: str
    text: str
    rule: str
    check: Callable[[Scores], Finding]
    methods: tuple[str, ...] = ()
    tasks: tuple[str, ...] | None = None
    measure: Shown | None = None
    published: float | Callable[[Sequence[str]], float | None] | None = None
    elsewhere: str = ""


class Published(NamedTuple):
    """Numbers of others, shown in a column of their own.

    Attributes:
      label: heads the column.
      source: where they stand, with the revision, and what they were measured on.
      values: method -> task -> mean, standard deviation over seeds; NaN for one that is not published.
      comparable: whether they were measured on the same data; if not, the column says so.
    """

    label: str
    source: str
    values: Mapping[str, Mapping[str, tuple[float, float]]]
    comparable: bool = False


class Preset(NamedTuple):
    """What one value of --preset runs and judges.

    Attributes:
      runs: one a method and task; `grid` makes them.
      claims: in their order.
      measure: what its tables show, where it is not the paper's: one for all tasks, or one by task. Tasks of one and
        the same measure are aggregated; nothing is aggregated over several.
      beside: metrics that stand in the tables next to the measure, before and after: the guards of a reward.
      notes: what a reader of its tables has to know, after the paper's notes.
      figures, published: as the paper's, where they are not those.
    """

    runs: tuple[Run, ...]
    claims: tuple[Claim, ...] = ()
    measure: Shown | Mapping[str, Shown] | None = None
    beside: tuple[Metric | Curve, ...] = ()
    notes: tuple[str, ...] = ()
    figures: Mapping[str, Callable[[Scores, Path], None]] | None = None
    published: tuple[Published, ...] | None = None


class Reference(NamedTuple):
    """A number of a task that runs are held against, such as the score of the policy that made the data.

    Attributes:
      field: of a run's last line; all runs on a task agree on it. It is on the scale of the measure that is shown.
      label: what tables and figures call it.
    """

    field: str
    label: str


class Paper(NamedTuple):
    """A paper whose results can be regenerated.

    Attributes:
      title: heads the tables.
      labels: what tables and figures call each method, in their order.
      baseline: the method that the others are compared with.
      measure: what tables show where a preset says nothing else.
      presets: by name; each is a function, so that the ones not asked for cost nothing.
      published: other people's numbers.
      reference: what runs are held against, if anything.
      notes: what a reader of the tables has to know.
      figures: file name -> function of (scores, path) that draws it; the first is the picture of the README. Those of
        `figures.DEFAULT` (curves.png, profile.png, improvement.png) if nothing is said. A function that has nothing to
        draw raises MissingScores.
    """

    title: str
    labels: Mapping[str, str]
    baseline: str
    measure: Shown
    presets: Mapping[str, Callable[[], Preset]]
    published: tuple[Published, ...] = ()
    reference: Reference | None = None
    notes: tuple[str, ...] = ()
    figures: Mapping[str, Callable[[Scores, Path], None]] | None = None
