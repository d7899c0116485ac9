"""Runs as data: what each says of itself, and all their metrics as one long table, which Parquet keeps for other tools.

The table has a row a logged value, with all that is known of its run beside it. `scan` finds the runs.
"""

import dataclasses
import functools
import json
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np

from rl_jax.core.extras import require
from rl_jax.core.files import atomically
from rl_jax.reports.series import Series

# What a row of the long table says of its value; everything else in it is an attribute of the run.
COLUMNS = ("run", "column", "seed", "step", "wall_seconds", "metric", "value")
OWN = "columns"  # the attribute with the seed and the swept fields of each column


@dataclasses.dataclass(frozen=True)
class Run:
    """One run's folder, or one run of an export.

    Attributes:
      name: its path below the root.
      attributes: what it says of itself, by dotted name: all fields of its configuration, its provenance (git.revision,
        packages.jax, devices.kind, inputs.checksum, ...), and library, task, tag, last_step and state (finished, failed
        or preempted; running where no end is recorded: it goes on, or was killed).
      columns: of each run that trained side by side in it what it has of its own: its seed (None where nothing says
        it) and its swept fields.
      load: reads its metrics.
    """

    name: str
    attributes: Mapping[str, Any]
    columns: tuple[Mapping[str, Any], ...]
    load: Callable[[], list[Series]]

    @functools.cached_property
    def series(self) -> dict[tuple[str, int | None], Series]:
        """Its metrics, by name and column."""
        return {(series.metric, series.column): series for series in self.load()}

    def find(self, metric: str, column: int) -> Series | None:
        """The metric of one column, or the one that all columns share."""
        return self.series.get((metric, column)) or self.series.get((metric, None))


def long_table(runs: Sequence[Run]) -> Any:
    """A pyarrow table with a row a logged value: COLUMNS, then the attributes of all runs in alphabetical order.

    `column`, `seed` and swept fields are null for a metric that all columns of a run share, `wall_seconds` where its
    source does not say it, `value` where it was not finite. A run that logged nothing has one row without a metric. An
    attribute whose values have no common type is JSON text, and the field's metadata says so. The remarks of the series
    are in the metadata of the table.
    """
    pa = require("pyarrow", "analysis")
    if not runs:
        raise ValueError("there is no run to make a table of")
    blocks = {name: [] for name in COLUMNS[1:]}
    # What is known of each column of each run, the name of that run, and which of them each row shows.
    places, owners, rows = [], [], []
    remarks: dict[str, dict[str, Sequence[str]]] = {}
    whole = all(series.steps.dtype.kind == "i" for run in runs for series in run.series.values())
    step_type = pa.int64() if whole else pa.float64()
    for run in runs:
        nothing = Series(None, None, np.array([0]), np.array([np.nan]), np.array([np.nan]))
        known = {}
        for series in run.series.values() or [nothing]:
            count, own = len(series.steps), {} if series.column is None else run.columns[series.column]
            if series.column not in known:
                known[series.column] = len(places)
                places.append({**run.attributes, **own, OWN: [dict(column) for column in run.columns]})
                owners.append(run.name)
            rows.append(np.full(count, known[series.column]))
            blocks["column"].append(pa.array([series.column] * count, pa.int32()))
            blocks["seed"].append(pa.array([own.get("seed")] * count, pa.int64()))
            blocks["step"].append(pa.array(series.steps, step_type) if series.metric else pa.nulls(1, step_type))
            blocks["wall_seconds"].append(pa.array(series.wall_seconds, from_pandas=True))
            blocks["metric"].append(pa.array([series.metric] * count, pa.string()))
            blocks["value"].append(pa.array(series.values, from_pandas=True))
            if series.remarks:
                remarks.setdefault(run.name, {})[series.metric] = series.remarks
    fields, attributes = [pa.field("run", pa.string())], [pa.array(owners)]
    for name in sorted({name for place in places for name in place} - {"seed"}):
        field, column = _attribute_column(pa, name, [place.get(name) for place in places])
        fields.append(field)
        attributes.append(column)
    known = pa.table(attributes, schema=pa.schema(fields)).take(pa.array(np.concatenate(rows)))
    table = known.select(["run"])
    for name, block in blocks.items():
        table = table.append_column(name, pa.chunked_array(block))
    for field in fields[1:]:
        table = table.append_column(field, known[field.name])
    return table.replace_schema_metadata({"remarks": json.dumps(remarks)} if remarks else None)


def _attribute_column(pa: ModuleType, name: str, values: Sequence[Any]) -> tuple[Any, Any]:
    kinds = {type(value) for value in values if value is not None}
    if name != OWN and (len(kinds) <= 1 or kinds == {int, float}):
        try:
            column = pa.array([float(x) if float in kinds and x is not None else x for x in values])
            return pa.field(name, column.type), column
        except (pa.ArrowInvalid, pa.ArrowTypeError, OverflowError):
            pass
    column = pa.array([None if value is None else json.dumps(value) for value in values], pa.string())
    return pa.field(name, pa.string(), metadata={"encoding": "json"}), column


def write_table(runs: Sequence[Run], path: str | os.PathLike) -> int:
    """Writes the long table as a Parquet file, in one rename; returns the number of its rows."""
    parquet = require("pyarrow.parquet", "analysis")
    table, path = long_table(runs), Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    with atomically(path) as file:
        parquet.write_table(table, file, compression="zstd", write_page_checksum=True)
    return table.num_rows


def read_table(path: str | os.PathLike) -> list[Run]:
    """The runs of a Parquet file that `write_table` wrote; none where the file is another table.

    Raises:
      ValueError: the file is damaged.
    """
    pa, parquet = require("pyarrow", "analysis"), require("pyarrow.parquet", "analysis")
    try:
        schema = parquet.read_schema(path)
        if not set(COLUMNS) <= set(schema.names):
            return []
        return _runs_of(parquet.read_table(path, page_checksum_verification=True))
    except (pa.ArrowException, OSError, KeyError, TypeError, ValueError) as error:
        raise ValueError(f"{path} is damaged: {error}") from error


def _runs_of(table: Any) -> list[Run]:
    """The runs of a long table."""
    pa, schema = require("pyarrow", "analysis"), table.schema
    remarks = json.loads((schema.metadata or {}).get(b"remarks", b"{}"))
    frame = table.select(list(COLUMNS)).to_pandas()
    encoded = {field.name for field in schema if (field.metadata or {}).get(b"encoding") == b"json"}
    firsts = frame.drop_duplicates("run").index
    known = table.select([name for name in schema.names if name not in COLUMNS]).take(pa.array(firsts)).to_pylist()
    runs = []
    for attributes, (name, rows) in zip(known, frame.groupby("run", sort=False), strict=True):
        attributes = {
            field: json.loads(value) if field in encoded else value
            for field, value in attributes.items()
            if value is not None
        }
        columns = tuple(map(dict, attributes.pop(OWN)))
        swept = {field for column in columns for field in column}
        attributes = {field: value for field, value in attributes.items() if field not in swept}
        rows = rows[rows["metric"].notna()]
        series = [
            Series(metric, None if column != column else int(column), _whole(part["step"].to_numpy()),
                   part["wall_seconds"].to_numpy(np.float64), part["value"].to_numpy(np.float64),
                   tuple(remarks.get(name, {}).get(metric, ())))
            for (metric, column), part in rows.groupby(["metric", "column"], sort=False, dropna=False)
        ]
        runs.append(Run(name, attributes, columns, functools.partial(list, series)))
    return runs


def _whole(steps: np.ndarray) -> np.ndarray:
    """Steps as int64, if all of them are whole."""
    whole = steps.astype(np.int64)
    return whole if (whole == steps).all() else steps
