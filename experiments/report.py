"""The report of a paper's preset, made from saved scores alone: table.md, table.csv, three figures, report.json."""

import csv
import io
import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from experiments.declaration import Claim, MissingScores, Paper, Preset, Published, Scores
from experiments.score_file import SavedRun
from rl_jax.core.metrics import plain
from rl_jax.core.provenance import write_atomically
from rl_jax.evaluation.aggregate import (
    Estimate,
    interquartile_mean,
    performance_profile,
    probability_of_improvement,
)
from rl_jax.evaluation.figures import plot_curves, plot_improvement, plot_profiles
from rl_jax.evaluation.statistics import bootstrap_interval

NUM_THRESHOLDS = 401  # of a performance profile


class Aggregate(NamedTuple):
    """A method over all tasks."""

    iqm: Estimate
    mean: float
    improvement: Estimate | None  # on the baseline; None for the baseline and where the baseline has gaps


def write_report(
    paper: Paper, preset: Preset, saved: Mapping[str, SavedRun], outdir: Path, head: Mapping[str, Any]
) -> dict[str, Any]:
    """Writes the report's files into `outdir`.

    Args:
      saved: by a run's name, the finished runs of this preset.
      head: `paper` and `preset`, their names, and `missing`, the reason why each absent run is absent.

    Returns:
      The content of report.json: paper, preset, seeds, claims, missing and the paths written.
    """
    scores = Scores(preset.runs, {name: run.evaluations for name, run in saved.items()})
    claims = [judge(claim, scores) for claim in preset.claims]
    aggregates = {method: _aggregate(paper, scores, method) for method in scores.methods}
    text = _markdown(paper, preset, saved, scores, aggregates, claims, head)
    write_atomically(outdir / "table.md", text)
    write_atomically(outdir / "table.csv", _csv(paper, scores, aggregates))
    written = ["table.md", "table.csv", *_figures(paper, scores, aggregates, outdir), "report.json"]
    report = {
        "paper": head["paper"],
        "preset": head["preset"],
        "seeds": sorted({len(run.record["seeds"]) for run in saved.values()}),
        # What never happens, such as a level that is not reached, has no number in JSON.
        "claims": [claim | {name: plain(claim[name]) for name in ("value", "interval")} for claim in claims],
        "missing": dict(head["missing"]),
        "paths": {name: str(outdir / name) for name in (["scores.npz", "scores.json"] if saved else []) + written},
    }
    if len(report["seeds"]) == 1:
        report["seeds"] = report["seeds"][0]
    write_atomically(outdir / "report.json", json.dumps(report, indent=1, allow_nan=False) + "\n")
    return report


def judge(claim: Claim, scores: Scores) -> dict[str, Any]:
    """The verdict on a claim: pass, fail, or missing with the runs that it lacks."""
    verdict = {"name": claim.name, "text": claim.text, "rule": claim.rule, "paper_value": claim.paper_value}
    try:
        found = claim.check(scores)
    except MissingScores as error:
        return verdict | {"verdict": "missing", "value": None, "interval": None, "detail": ", ".join(error.args)}
    return verdict | {
        "verdict": "pass" if found.passed else "fail", "value": found.value, "interval": list(found.interval),
        "detail": found.detail,
    }


def _aggregate(paper: Paper, scores: Scores, method: str) -> Aggregate | None:
    """None where a task of the method is missing: an aggregate over fewer tasks would be another number."""
    final = _or_none(lambda: scores.final(method))
    if final is None:
        return None
    baseline = None if method == paper.baseline else _or_none(lambda: scores.final(paper.baseline))
    improvement = None if baseline is None else probability_of_improvement(final, baseline)
    return Aggregate(interquartile_mean(final), float(final.mean()), improvement)


def _or_none(compute: Callable[[], Any]) -> Any:
    try:
        return compute()
    except (MissingScores, KeyError):
        return None


# Tables


def _markdown(
    paper: Paper,
    preset: Preset,
    saved: Mapping[str, SavedRun],
    scores: Scores,
    aggregates: Mapping[str, Aggregate | None],
    claims: Sequence[Mapping[str, Any]],
    head: Mapping[str, Any],
) -> str:
    label = paper.labels.__getitem__
    parts = [f"# {paper.title}: preset `{head['preset']}`", _how_made(saved, head), *paper.notes]
    if head["missing"]:
        rows = [[name, reason] for name, reason in head["missing"].items()]
        parts += ["## Missing", _table(["run", "reason"], rows)]
    rows = [
        [
            claim["text"] + (f": {label(claim['detail'])}" if claim["detail"] in paper.labels else ""), claim["rule"],
            _interval(claim["value"], *claim["interval"]) if claim["interval"] else "",
            "**fail**" if claim["verdict"] == "fail" else claim["verdict"],
            "" if claim["paper_value"] is None else _number(claim["paper_value"]),
        ]
        for claim in claims
    ]
    header = ["claim", "rule", "value [interval]", "verdict", "published (other data)"]
    parts += ["## Claims", _table(header, rows)]

    others = [f"{source.label} (other data)" for source in paper.published]
    rows = []
    for method in scores.methods:
        row = aggregates[method]
        cells = ["missing", "", "", ""]
        if row is not None:
            improvement = _interval(*row.improvement) if row.improvement else ""
            steps = sorted({int(scores.evaluations(method, task).steps[-1]) for task in scores.tasks})
            cells = [_interval(*row.iqm), _number(row.mean), improvement, " or ".join(f"{step:,}" for step in steps)]
        rows.append([label(method), *cells, *(_published_mean(x, method, scores.tasks) for x in paper.published)])
    reference = _or_none(scores.reference)
    if reference is not None:
        rows.append([f"*{paper.reference}*", "", _number(reference.mean()), "", "", *[""] * len(others)])
    header = ["method", "IQM [95%]", "mean", f"P(better than {label(paper.baseline)}) [95%]", "steps", *others]
    parts += [f"## Over {_count(len(scores.tasks), 'task')}", _table(header, rows)]

    for task in scores.tasks:
        rows = []
        for method in scores.methods:
            evaluations = _or_none(lambda method=method, task=task: scores.evaluations(method, task))
            cells = ["missing", "", ""]
            if evaluations is not None:
                final = evaluations.scores[-1].mean(1)
                each = " ".join(map(_number, final))
                cells = [_interval(*_over_seeds(final)), each, f"{evaluations.steps[-1]:,}"]
            rows.append([label(method), *cells, *(_published_cell(x, method, task) for x in paper.published)])
        reference = _or_none(lambda task=task: scores.reference([task]))
        if reference is not None:
            rows.append([f"*{paper.reference}*", _number(reference[0]), "", "", *[""] * len(others)])
        header = ["method", "mean over seeds [95%]", "each seed", "steps", *others]
        parts += [f"## {task}", _table(header, rows)]
    if paper.published:
        parts += ["## Other people's numbers", *(f"- {source.label}: {source.source}" for source in paper.published)]
    return "\n\n".join(parts).replace("\n\n- ", "\n- ") + "\n"


def _how_made(saved: Mapping[str, SavedRun], head: Mapping[str, Any]) -> str:
    records = [run.record for run in saved.values()]
    command = f"python -m experiments.reproduce --paper={head['paper']} --preset={head['preset']}"
    if not records:
        return f"`{command}` has finished no run yet."
    seeds, episodes = ({value(r) for r in records} for value in (lambda r: len(r["seeds"]), lambda r: r["episodes"]))
    revisions = sorted({
        f"{git['revision'][:12]}{'' if git['clean'] else ' with changes'}" for r in records for git in r["git"] if git
    })
    devices = sorted({device for record in records for device in record["devices"]})
    return (
        f"Made by `{command}` from scores.npz: {_count(len(records), 'run')}, {_numbers(seeds, 'seed')} each. A seed's "
        f"score is the mean over the {_numbers(episodes, 'episode')} of its last evaluation. IQM is the mean of the "
        "middle half of all seeds and tasks; intervals are 95% bootstrap over the seeds of each task."
        + (f" Code: {', '.join(revisions)}." if revisions else "")
        + (f" Devices: {', '.join(devices)}." if devices else "")
    )


def _csv(paper: Paper, scores: Scores, aggregates: Mapping[str, Aggregate | None]) -> str:
    """One row a statistic; an empty value is a missing one."""
    out = io.StringIO()
    table = csv.writer(out, lineterminator="\n")
    table.writerow(["method", "task", "statistic", "value", "low", "high", "seeds", "step"])
    for method in scores.methods:
        for task in scores.tasks:
            evaluations = _or_none(lambda method=method, task=task: scores.evaluations(method, task))
            cells = ["", "", "", "", ""]
            if evaluations is not None:
                final = evaluations.scores[-1].mean(1)
                cells = [*_over_seeds(final), len(final), evaluations.steps[-1]]
            table.writerow([method, task, "mean", *cells])
        row = aggregates[method]
        table.writerow([method, "all", "iqm", *(row.iqm if row else ["", "", ""]), "", ""])
        table.writerow([method, "all", "mean", row.mean if row else "", "", "", "", ""])
        if method != paper.baseline:
            improvement = row.improvement if row and row.improvement else ["", "", ""]
            table.writerow([method, "all", f"probability_of_improvement_on_{paper.baseline}", *improvement, "", ""])
    for source in paper.published:
        statistic = f"published: {source.label} (other data)"
        for method in scores.methods:
            for task, (mean, _) in source.values.get(method, {}).items():
                if task in scores.tasks:
                    table.writerow([method, task, statistic, mean, *[""] * 4])
    for task in scores.tasks:
        reference = _or_none(lambda task=task: scores.reference([task]))
        if reference is not None:
            table.writerow([paper.reference, task, "mean", reference[0], "", "", "", ""])
    return out.getvalue()


def _over_seeds(final: np.ndarray) -> Estimate:
    mean = float(final.mean())
    if len(final) == 1:
        return Estimate(mean, mean, mean)
    return Estimate(mean, *(float(x) for x in bootstrap_interval(final)))


def _published_cell(source: Published, method: str, task: str) -> str:
    numbers = source.values.get(method, {}).get(task)
    return "" if numbers is None else f"{numbers[0]:.1f} ± {numbers[1]:.1f}"


def _published_mean(source: Published, method: str, tasks: Sequence[str]) -> str:
    means = [source.values.get(method, {})[task][0] for task in tasks if task in source.values.get(method, {})]
    if not means:
        return ""
    return _number(np.mean(means)) + ("" if len(means) == len(tasks) else f" ({len(means)} of {len(tasks)} tasks)")


def _interval(value: float, low: float, high: float) -> str:
    return f"{_number(value)} [{_number(low)}, {_number(high)}]"


def _number(x: float) -> str:
    """Probabilities, ratios and other numbers below 10 with two digits, scores with one."""
    return f"{x:.{2 if abs(x) < 10 else 1}f}"


def _count(number: int, noun: str) -> str:
    return f"{number:,} {noun}" + ("" if number == 1 else "s")


def _numbers(values: set[int], noun: str) -> str:
    return " or ".join(map(str, sorted(values))) + f" {noun}" + ("" if values == {1} else "s")


def _table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in lines)


# Figures


def _figures(
    paper: Paper, scores: Scores, aggregates: Mapping[str, Aggregate | None], outdir: Path
) -> list[str]:
    """Draws what there are scores for; a figure that there are none for is removed, not left as it was."""
    label = paper.labels.__getitem__
    labels = list(paper.labels.values())
    curves: dict[str, dict[str, tuple[np.ndarray, np.ndarray]]] = {}
    references = {}
    for task in scores.tasks:
        curves[task] = {}
        for method in scores.methods:
            evaluations = _or_none(lambda method=method, task=task: scores.evaluations(method, task))
            if evaluations is not None:
                curves[task][label(method)] = (evaluations.steps, evaluations.scores.mean(2))
        reference = _or_none(lambda task=task: scores.reference([task]))
        if reference is not None:
            references[task] = float(reference[0])
    complete = {method: scores.final(method) for method, row in aggregates.items() if row is not None}
    profiles, thresholds = {}, np.zeros(0)
    if complete:
        values = np.concatenate([final.ravel() for final in complete.values()])
        thresholds = np.linspace(values.min() - 1.0, values.max() + 1.0, NUM_THRESHOLDS)
        profiles = {label(method): performance_profile(final, thresholds) for method, final in complete.items()}
    improvements = {
        label(method): row.improvement for method, row in aggregates.items() if row is not None and row.improvement
    }
    drawings = {
        "curves.png": (any(curves.values()), lambda path: plot_curves(
            curves, path, labels=labels, references=references, reference_label=paper.reference, score=paper.score
        )),
        "profile.png": (profiles, lambda path: plot_profiles(
            profiles, thresholds, path, labels=labels, score=paper.score
        )),
        "improvement.png": (improvements, lambda path: plot_improvement(
            improvements, path, labels=labels, baseline=label(paper.baseline)
        )),
    }
    for name, (there, draw) in drawings.items():
        if there:
            draw(outdir / name)
        else:
            (outdir / name).unlink(missing_ok=True)
    own = _or_none(lambda: paper.draw(scores, outdir)) if paper.draw else None
    return [*(name for name, (there, _) in drawings.items() if there), *(own or [])]
