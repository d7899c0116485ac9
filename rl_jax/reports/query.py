"""Answers a query of runs: scans roots, chooses runs by filters, writes their table, figures and a manifest."""

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from rl_jax.core.files import read_json, write_atomically
from rl_jax.reports import comparison
from rl_jax.reports.compare import DDOF, Group, constants, make_cells, normalized, remarks, total_interval
from rl_jax.reports.filters import parse, select
from rl_jax.reports.runs import write_table
from rl_jax.reports.scan import scan

NORMALIZE = ("none", "reference", "minmax")
FILES = ("table.md", "table.csv", "curves.png", "wall.png", "system.png", "manifest.json")


class Query(NamedTuple):
    """What is asked.

    Attributes:
      roots: folders or Parquet files of runs.
      filters: FIELD=VALUE&...&cl=LABEL, one curve each.
      metric, by: what is compared, and the field that names a run's task; a filter's own stand above them.
      better: which way of the metric is good, "higher" or "lower".
      x: the x-axes to draw, "step" or "wall".
      last: of how many last values a run's value is the mean.
      normalize: one of NORMALIZE, or a JSON file with constants, such as an earlier manifest.
      repetitions: bootstrap resamples of an interval.
      out: the folder to write to.
      parquet: a Parquet file for the long table of the chosen runs; none if empty.
    """

    roots: Sequence[str]
    filters: Sequence[str]
    metric: str = "eval/normalized_score"
    better: str = "higher"
    by: str = "task"
    x: Sequence[str] = ("step", "wall")
    last: int = 1
    normalize: str = "none"
    repetitions: int = 2000
    out: str = "runs/query"
    parquet: str = ""


def answer(query: Query) -> dict[str, Any]:
    """Answers a query with files in its `out`; nothing is written before all of it is known to work.

    Returns:
      The last line of standard output.

    Raises:
      ValueError: a root, a filter, the metric or the normalisation cannot be used; what to mend is named.
    """
    runs = scan(query.roots)
    chosen = [parse(text) for text in query.filters]
    labels = [one.label for one in chosen]
    if len(set(labels)) < len(labels):
        raise ValueError(f"two filters are called {next(x for x in labels if labels.count(x) > 1)!r}: give cl=LABEL")
    groups = [Group(one, select(runs, one), one.metric or query.metric, one.by or query.by) for one in chosen]
    cells = make_cells(groups, query.last)
    given = _given(query.normalize)
    scale = constants("given" if given else query.normalize, cells, given)
    said = [text for cell in cells.values() for text in remarks(cell, query.last)]
    cells = normalized(cells, scale)
    value = " / ".join(dict.fromkeys(group.metric for group in groups))
    score = f"normalised {value}" if scale else value
    comparable = bool(scale) or all("normal" in group.metric for group in groups)
    totals = {
        label: total_interval(cells, label, comparable=comparable, repetitions=query.repetitions) for label in labels
    }

    out = Path(query.out)
    out.mkdir(parents=True, exist_ok=True)
    for name in FILES:
        (out / name).unlink(missing_ok=True)
    grids = {}
    for axis, (name, draw) in comparison.DRAW.items():
        if axis in query.x:
            grids[name] = draw(cells, labels, out / name, score)
    grids["system.png"] = comparison.draw_system(groups, out / "system.png")
    table = comparison.markdown(
        cells, totals, value=score, better=query.better, last=query.last, repetitions=query.repetitions, remarks=said
    )
    write_atomically(out / "table.md", table)
    write_atomically(out / "table.csv", comparison.comma_separated(cells, totals, query.repetitions))
    manifest = {
        "query": query._asdict() | {"roots": list(query.roots), "filters": list(query.filters), "x": list(query.x)},
        "filters": [
            {"text": group.filter.text, "label": group.label, "metric": group.metric, "by": group.by,
             "runs": comparison.run_records(cells, group.label)}
            for group in groups
        ],
        "normalisation": {task: list(ends) for task, ends in scale.items()},
        "statistics": {"ddof": DDOF, "values_in_mean": query.last, "confidence": 0.95, "strata": "tasks",
                       "bootstrap_repetitions": query.repetitions, "bootstrap_seed": 0},
        "grids": grids,
        "remarks": said,
        "versions": comparison.versions(),
    }
    write_atomically(out / "manifest.json", json.dumps(manifest, indent=1, allow_nan=False) + "\n")
    print(table, file=sys.stderr)
    shown = {id(member.run): member.run for group in groups for member in group.members}
    rows = write_table(list(shown.values()), query.parquet) if query.parquet else None
    return {
        "metric": value,
        "runs": {group.label: len(group.members) for group in groups},
        "mean": {label: {task: cell.mean for (task, name), cell in cells.items() if name == label} for label in labels},
        "iqm": {label: None if isinstance(total, str) else total._asdict() for label, total in totals.items()},
        "remarks": len(said),
        "rows": rows,
        "out": str(out),
    }


def _given(normalize: str) -> dict[str, Sequence[float]]:
    """The constants of a JSON file {task: [value of 0, value of 100]} or of an earlier manifest; {} for no file."""
    if normalize in NORMALIZE:
        return {}
    if not Path(normalize).is_file():
        known = ", ".join(NORMALIZE)
        raise ValueError(f"--normalize={normalize}: neither one of {known} nor a JSON file with constants")
    loaded = read_json(normalize)
    loaded = loaded.get("normalisation", loaded) if isinstance(loaded, dict) else loaded
    if not loaded:
        raise ValueError(f"--normalize={normalize} has no constants")
    for task, ends in loaded.items() if isinstance(loaded, dict) else [("the whole", loaded)]:
        if not (isinstance(ends, list) and len(ends) == 2 and all(type(end) in (int, float) for end in ends)):
            raise ValueError(f"--normalize={normalize}: {task} is {ends!r}: give {{task: [value of 0, value of 100]}}")
    return loaded
