"""Reads any tree of runs, chooses some by filters, and writes their table, their figures and a manifest.

    python -m experiments.open_rl_benchmark.query --root=runs \
        --filters="agent.name=td3_bc&cl=TD3+BC" --filters="agent.name=bc&cl=BC" --metric=eval/normalized_score

Huang, Gallouédec, Felten, Raffin et al. 2024, "Open RL Benchmark: Comprehensive Tracked Experiments for Reinforcement
Learning", arXiv 2402.03046. A root is a folder with run folders, TensorBoard event files or W&B exports somewhere below
it, or a Parquet file of --parquet. `filters.py` says how a filter is written, README.md what is written to --out. The
last line on standard output is one JSON object.
"""

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from absl import flags

from experiments.open_rl_benchmark import report
from experiments.open_rl_benchmark.compare import (
    DDOF,
    Group,
    constants,
    make_cells,
    normalized,
    remarks,
    total_interval,
)
from experiments.open_rl_benchmark.filters import parse, select
from rl_jax.core.provenance import write_atomically
from rl_jax.core.runtime import run_binary
from rl_jax.evaluation.runs import write_table
from rl_jax.evaluation.scan import scan

NORMALIZE = ("none", "reference", "minmax")
FILES = ("table.md", "table.csv", "curves.png", "wall.png", "system.png", "manifest.json")


class Query(NamedTuple):
    """What the flags say; their help texts say what each is."""

    roots: Sequence[str]
    filters: Sequence[str]
    metric: str = "eval/normalized_score"
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
    for axis, (name, draw) in report.DRAW.items():
        if axis in query.x:
            grids[name] = draw(cells, labels, out / name, score)
    grids["system.png"] = report.draw_system(groups, out / "system.png")
    table = report.markdown(
        cells, totals, value=score, last=query.last, repetitions=query.repetitions, remarks=said
    )
    write_atomically(out / "table.md", table)
    write_atomically(out / "table.csv", report.comma_separated(cells, totals, query.repetitions))
    manifest = {
        "query": query._asdict() | {"roots": list(query.roots), "filters": list(query.filters), "x": list(query.x)},
        "filters": [
            {"text": group.filter.text, "label": group.label, "metric": group.metric, "by": group.by,
             "runs": report.run_records(cells, group.label)}
            for group in groups
        ],
        "normalisation": {task: list(ends) for task, ends in scale.items()},
        "statistics": {"ddof": DDOF, "values_in_mean": query.last, "confidence": 0.95, "strata": "tasks",
                       "bootstrap_repetitions": query.repetitions, "bootstrap_seed": 0},
        "grids": grids,
        "remarks": said,
        "versions": report.versions(),
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
    try:
        loaded = json.loads(Path(normalize).read_text(encoding="utf-8"))
    except (OSError, json.JSONDecodeError) as error:
        raise ValueError(
            f"--normalize={normalize}: neither one of {', '.join(NORMALIZE)} nor a JSON file with constants ({error})"
        ) from error
    loaded = loaded.get("normalisation", loaded)
    if not loaded:
        raise ValueError(f"--normalize={normalize} has no constants")
    return loaded


def main() -> None:
    defaults = Query((), ())
    flags.DEFINE_multi_string("root", ["runs"], "A folder or Parquet file of runs; repeat it for several.")
    flags.DEFINE_multi_string("filters", None, "FIELD=VALUE&...&cl=LABEL: one curve; repeat it for several.")
    flags.DEFINE_string("metric", defaults.metric, "What is compared; a filter's metric= stands above it.")
    flags.DEFINE_string("by", defaults.by, "The field that names a run's task; a filter's by= stands above it.")
    flags.DEFINE_multi_enum("x", list(defaults.x), list(report.DRAW), "The x-axis; a figure for each.")
    flags.DEFINE_integer("last", defaults.last, "A run's value is the mean of so many last values.", lower_bound=1)
    flags.DEFINE_string(
        "normalize", defaults.normalize,
        f"{', '.join(NORMALIZE)}, or a JSON file with constants, such as an earlier manifest.",
    )
    flags.DEFINE_integer("repetitions", defaults.repetitions, "Bootstrap resamples of an interval.", lower_bound=100)
    flags.DEFINE_string("out", defaults.out, "The folder to write to.")
    flags.DEFINE_string("parquet", defaults.parquet, "A Parquet file to write the long table of the chosen runs to.")
    flags.mark_flag_as_required("filters")
    for name in ("root", *Query._fields[1:]):
        flags.FLAGS.register_key_flag_for_module(sys.argv[0], flags.FLAGS[name])

    def guarded(argv: Sequence[str]) -> None:
        if len(argv) > 1:
            raise ValueError(f"unexpected argument {argv[1]!r}: give each filter its own --filters=")
        values = flags.FLAGS
        print(json.dumps(answer(Query(values.root, *(values[name].value for name in Query._fields[1:])))), flush=True)

    run_binary(guarded)


if __name__ == "__main__":
    main()
