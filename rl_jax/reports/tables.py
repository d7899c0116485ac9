"""The tables of a preset: table.md for people, table.csv for programs.

A table speaks of one measure and of the tasks that share it; nothing is aggregated over several.
"""

import csv
import functools
import io
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from rl_jax.reports.aggregate import Estimate, interquartile_mean, probability_of_improvement
from rl_jax.reports.declaration import Published
from rl_jax.reports.judging import interval_of
from rl_jax.reports.measures import Curve, Measure, MissingScores, Values, as_curve
from rl_jax.reports.scores import Scores

WIDE = 4  # more tasks than this make the rows of a table of their own
NOTES = "## Notes"  # heads what a README leaves out
ARROW = " -> "


class Aggregate(NamedTuple):
    """A method over all tasks of a measure, on the measure's scale."""

    iqm: Estimate
    mean: Estimate
    improvement: Estimate | None  # on the baseline; None for the baseline and where the baseline has gaps


def aggregate(scores: Scores, method: str, measure: Measure, tasks: Sequence[str]) -> Aggregate | None:
    """None where a task is missing (an aggregate over fewer tasks would be another number) or there is one seed."""
    key = (method, measure, tuple(tasks))
    if key not in scores.memo:
        scores.memo[key] = _aggregate(scores, method, measure, tasks)
    return scores.memo[key]


def _aggregate(scores: Scores, method: str, measure: Measure, tasks: Sequence[str]) -> Aggregate | None:
    baseline = scores.paper.baseline
    own = found(lambda: scores.values(method, measure, tasks))
    if own is None or len(own.values) < 2:
        return None
    other = None if method == baseline else found(lambda: scores.values(baseline, measure, tasks))
    improvement = None
    if other is not None and len(other.values) > 1:
        improvement = probability_of_improvement(measure.sign * own.values, measure.sign * other.values)
    means = own.values.mean(1)
    return Aggregate(interquartile_mean(own.values), Estimate(float(means.mean()), *interval_of(means)), improvement)


def found(compute: Callable[[], Any]) -> Any:
    """What it computes, or None where runs for it are missing or not declared."""
    try:
        return compute()
    except (MissingScores, KeyError):
        return None


def markdown(scores: Scores, title: str, made: Sequence[str], claims: Sequence[Mapping], missing: Mapping) -> str:
    """The whole page.

    Args:
      title: heads it.
      made: paragraphs on how the numbers came about.
      claims: as `judging.judge` gives them.
      missing: by a run's name, why it is not there.
    """
    parts = [f"# {title}", *made]
    if missing:
        parts += ["## Missing", table(["run", "reason"], list(map(list, missing.items())))]
    parts.append("## Claims")
    parts.append(claims_table(claims) if claims else "This preset makes none.")
    for measure, tasks in scores.groups():
        parts += _measure_section(scores, measure, tasks)
    if scores.published:
        sources = [f"- {_heading(source)}: {source.source}" for source in scores.published]
        parts += ["## Other people's numbers", "\n".join(sources)]
    parts += [NOTES, *scores.paper.notes, *scores.preset.notes, "## Each seed", *_each_seed(scores)]
    return "\n\n".join(parts) + "\n"


def claims_table(claims: Sequence[Mapping[str, Any]]) -> str:
    """One row a claim."""
    published = any(claim["paper_value"] is not None for claim in claims)
    rows = []
    for claim in claims:
        said = "never" if claim["value"] is None else _interval(Estimate(claim["value"], *claim["interval"]))
        verdict = {"fail": "**fail**"}.get(claim["verdict"], claim["verdict"])
        if claim["verdict"] in ("missing", "not run here"):
            said, verdict = "", f"{verdict}: {claim['detail']}"
        elif claim["detail"]:
            said += f"; {claim['detail']}"
        row = [claim["text"], said, verdict, claim["rule"]]
        rows.append([*row, "" if claim["paper_value"] is None else number(claim["paper_value"])] if published else row)
    return table(["claim", "value [interval]", "verdict", "rule", *["published"] * published], rows)


def _measure_section(scores: Scores, measure: Measure, tasks: Sequence[str]) -> list[str]:
    """The tables of one measure: a row a method; the tasks are its columns where they are few, else rows of another."""
    columns, several = _Columns(scores, measure, tasks), len(tasks) > 1
    methods = [name for name in scores.methods if any(scores.declared(name, task) for task in tasks)]
    heads: list[tuple[str, Callable[[str], str]]] = []
    if several and len(tasks) <= WIDE:
        heads += [(task, functools.partial(columns.cell, task=task)) for task in tasks]
    heads.append(("IQM [95%]" if several else f"{tasks[0]}: mean over seeds [95%]", columns.center))
    heads.append((f"P(better than {scores.label(scores.paper.baseline)}) [95%]", columns.improvement))
    if not several:
        heads.insert(0, ("at the start", columns.start))
    for metric in scores.preset.beside if not several else ():
        curve = as_curve(metric)
        cell = functools.partial(_before_after, scores, task=tasks[0], curve=curve)
        moves = ", before -> after" if any(ARROW in cell(method) for method in methods) else ""
        heads.append((curve.metric.label + moves, cell))
    heads += [("steps", columns.steps), ("seconds of training, all seeds", columns.seconds)]
    heads += [(_heading(source), functools.partial(_published_mean, source, tasks=tasks))
              for source in scores.published]
    rows = [[scores.label(method), *(cell(method) for _, cell in heads)] for method in methods]
    header = ["method", *(name for name, _ in heads)]
    references = columns.references()
    if references and len(tasks) <= WIDE:
        cells = [references.get(name, "") for name, _ in heads]
        if not several:
            cells[1] = references[tasks[0]]
        rows.append([f"*{scores.paper.reference.label}*", *cells])
    kept = [place for place in range(len(header)) if any(row[place] for row in rows)]
    parts = [f"## {_capital(measure.label)}, {measure.metric.better} is better", columns.legend()]
    parts.append(table([header[x] for x in kept], [[row[x] for x in kept] for row in rows]))
    if several and len(tasks) > WIDE:
        last = [scores.paper.reference.label] if references else []
        rows = [
            [task, *(columns.cell(method, task) for method in methods), *(references.get(task, "") for _ in last)]
            for task in tasks
        ]
        parts.append(table(["task", *map(scores.label, methods), *last], rows))
    return parts


class _Columns(NamedTuple):
    """What the columns of a measure's table say of a method."""

    scores: Scores
    measure: Measure
    tasks: Sequence[str]

    def medians(self) -> bool:
        """Whether cells are medians: of what spreads over decades, and where some numbers are only bounds."""
        if self.measure.log10:
            return True
        cells = (self._values(method, task) for method in self.scores.methods for task in self.tasks)
        return any(values is not None and not values.known.all() for values in cells)

    def _values(self, method: str, task: str) -> Values | None:
        return found(lambda: self.scores.values(method, self.measure, [task]))

    def cell(self, method: str, task: str) -> str:
        """What a method is worth on a task, in the metric's own numbers."""
        if not self.scores.declared(method, task):
            return ""
        values = self._values(method, task)
        if values is None:
            return "missing"
        if not self.medians():
            return number(values.values.mean())
        there = "" if values.known.all() else f" ({values.known.sum()} of {values.known.size})"
        middle = float(np.median(values.values))
        return ("-" if values.known.mean() <= 0.5 else number(10.0**middle if self.measure.log10 else middle)) + there

    def center(self, method: str) -> str:
        whole = aggregate(self.scores, method, self.measure, self.tasks)
        if whole is None:
            return self.cell(method, self.tasks[0]) if len(self.tasks) == 1 else ""
        return _interval(whole.iqm if len(self.tasks) > 1 else whole.mean)

    def improvement(self, method: str) -> str:
        whole = aggregate(self.scores, method, self.measure, self.tasks)
        return "" if whole is None or whole.improvement is None else _interval(whole.improvement)

    def steps(self, method: str) -> str:
        """How long the runs are: one length, "a or b", or "shortest to longest" of more."""
        runs = (found(lambda task=task: self.scores.evaluations(method, task)) for task in self.tasks)
        lengths = [f"{step:,}" for step in sorted({int(run.steps[-1]) for run in runs if run is not None})]
        return " or ".join(lengths) if len(lengths) < 3 else f"{lengths[0]} to {lengths[-1]}"

    def seconds(self, method: str) -> str:
        """The mean over the tasks; nothing where a run did not say it."""
        runs = [found(lambda task=task: self.scores.evaluations(method, task)) for task in self.tasks]
        spent = [run.train_seconds[-1] for run in runs if run is not None]
        return number(np.mean(spent)) if spent and np.isfinite(spent).all() else ""

    def start(self, method: str) -> str:
        """The mean over seeds before training, where a run was evaluated then."""
        run = found(lambda: self.scores.evaluations(method, self.tasks[0]))
        if run is None or self.measure.curve is None or run.steps[0] > 0:
            return ""
        return number(self.measure.curve.of(run)[0].mean())

    def references(self) -> dict[str, str]:
        """The paper's reference of each task that has one."""
        if self.scores.paper.reference is None:
            return {}
        known = {task: found(lambda task=task: self.scores.reference(None, [task])[0]) for task in self.tasks}
        show = (lambda x: f"10^{number(x)}") if self.measure.log10 else number
        return {task: show(value) for task, value in known.items() if value is not None}

    def legend(self) -> str:
        if len(self.tasks) == 1:
            return f"Numbers are {self.measure.how}."
        log10 = ", of the log10" if self.measure.log10 else ""
        whole = f" IQM and P(better) are over {len(self.tasks)} tasks{log10}."
        if not self.medians():
            return f"A task's number is the mean over seeds, {self.measure.how}.{whole}"
        return (
            f"A task's number is the median over seeds, {self.measure.how}, of {self.measure.metric.label}; in "
            f"brackets the seeds that got there, where not all did, and - where most did not.{whole}"
        )


def _each_seed(scores: Scores) -> list[str]:
    """One row a method and task, with every seed."""
    parts = []
    for measure, tasks in scores.groups():
        beside = [as_curve(metric) for metric in scores.preset.beside]
        rows = []
        for method, task in ((method, task) for task in tasks for method in scores.methods):
            if not scores.declared(method, task):
                continue
            values = found(lambda method=method, task=task: scores.values(method, measure, [task]))
            cells = ["missing", ""]
            if values is not None:
                seeds, known = values.values[:, 0], values.known[:, 0]
                each = " ".join(number(x) + ("" if there else "+") for x, there in zip(seeds, known, strict=True))
                cells = [_interval(Estimate(float(seeds.mean()), *interval_of(seeds))), each]
            rows.append([task, scores.label(method), *cells,
                         *(_before_after(scores, method, task, curve) for curve in beside)])
        bounds = "; + marks a bound, of a seed that did not get there" if any("+" in row[3] for row in rows) else ""
        parts.append(f"{_capital(measure.label)}, {measure.how}{bounds}.")
        header = ["task", "method", "mean over seeds [95%]", "each seed", *(curve.metric.label for curve in beside)]
        parts.append(table(header, rows))
    return parts


def _before_after(scores: Scores, method: str, task: str, curve: Curve) -> str:
    """The mean over seeds at the first and at the last evaluation, or at the only one."""
    values = found(lambda: curve.of(scores.evaluations(method, task)).mean(1))
    if values is None:
        return ""
    return number(values[0]) if len(values) == 1 else f"{number(values[0])}{ARROW}{number(values[-1])}"


def comma_separated(scores: Scores) -> str:
    """One row a statistic, all digits, on the measure's scale; an empty value is a missing one."""
    out = io.StringIO()
    rows = csv.writer(out, lineterminator="\n")
    head = ["measure", "better", "method", "task", "statistic", "value", "low", "high", "seeds", "known", "step"]
    rows.writerow(head)
    baseline = scores.paper.baseline
    for measure, tasks in scores.groups():
        head = [measure.label, measure.metric.better]
        for method in scores.methods:
            for task in (task for task in tasks if scores.declared(method, task)):
                values = found(lambda method=method, task=task: scores.values(method, measure, [task]))
                cells = [""] * 6
                if values is not None:
                    seeds = values.values[:, 0]
                    step = scores.evaluations(method, task).steps[-1]
                    cells = [float(seeds.mean()), *interval_of(seeds), len(seeds), int(values.known.sum()), step]
                rows.writerow([*head, method, task, "mean", *cells])
            if len(tasks) > 1 and (whole := aggregate(scores, method, measure, tasks)) is not None:
                rows.writerow([*head, method, "all", "iqm", *whole.iqm, "", "", ""])
                rows.writerow([*head, method, "all", "mean", *whole.mean, "", "", ""])
                if whole.improvement:
                    statistic = f"probability_of_improvement_on_{baseline}"
                    rows.writerow([*head, method, "all", statistic, *whole.improvement, "", "", ""])
        for source in scores.published:
            for method in scores.methods:
                for task, (mean, _) in source.values.get(method, {}).items():
                    if task in tasks:
                        rows.writerow([*head, method, task, f"published: {_heading(source)}", mean, *[""] * 5])
        for task in tasks if scores.paper.reference else ():
            reference = found(lambda task=task: scores.reference(None, [task])[0])
            if reference is not None:
                rows.writerow([*head, scores.paper.reference.label, task, "reference", reference, *[""] * 5])
    return out.getvalue()


def _capital(label: str) -> str:
    return label[0].upper() + label[1:]


def _heading(source: Published) -> str:
    return source.label + ("" if source.comparable else " (other data)")


def _published_mean(source: Published, method: str, tasks: Sequence[str]) -> str:
    numbers = [source.values.get(method, {})[task] for task in tasks if task in source.values.get(method, {})]
    if not numbers:
        return ""
    if len(tasks) == 1:
        mean, deviation = numbers[0]
        return number(mean) + ("" if np.isnan(deviation) else f" ± {number(deviation)}")
    part = "" if len(numbers) == len(tasks) else f" ({len(numbers)} of {len(tasks)} tasks)"
    return number(np.mean([mean for mean, _ in numbers])) + part


def _interval(estimate: Estimate) -> str:
    return f"{number(estimate.value)} [{number(estimate.low)}, {number(estimate.high)}]"


def number(x: float | None) -> str:
    """Three digits for small numbers, one behind the point for scores, none for what is counted in thousands."""
    if x is None:
        return "inf"
    x = float(x)
    if abs(x) >= 1000:
        return f"{x:,.0f}"
    return f"{x:.{2 if abs(x) < 10 else 1}f}"


def table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A Markdown table."""
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join("| " + " | ".join(str(cell).replace("|", "\\|") for cell in line) + " |" for line in lines)
