"""Metrics over time, as trackers write them: our metrics.jsonl, TensorBoard event files, Weights & Biases exports.

Event files are records of TensorFlow's framing (length, its checksum, an Event message, its checksum); tensorboardX,
which writes ours, brings the messages. A chart that W&B exports is a CSV of the columns `Step` and, for each run,
`<run> - <metric>` with its `__MIN` and `__MAX`; a history is one row a logged step, in JSON, JSON lines or CSV.
"""

import csv
import io
import json
import math
import struct
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from absl import logging

from rl_jax.core.metrics import read_metrics

WALL_SECONDS = "time/wall_seconds"
# A record of 1 GiB is no scalar but a length that was read from the middle of something else.
MAX_RECORD = 1 << 30


class Series(NamedTuple):
    """One metric of one run, in the order in which it was logged."""

    metric: str
    column: int | None  # which of the runs that train side by side; None: of all of them at once
    steps: np.ndarray  # [T] int64
    wall_seconds: np.ndarray  # [T] float64 since the run's first start; nan where the source does not say
    values: np.ndarray  # [T] float64; nan where a value was not finite


class _Builder:
    """Gathers points as they come and makes the series of them."""

    def __init__(self) -> None:
        self._points: dict[tuple[str, int | None], list[tuple[int, float, float]]] = {}

    def add(self, metric: str, column: int | None, step: int, wall_seconds: float, value: float) -> None:
        self._points.setdefault((metric, column), []).append((step, wall_seconds, value))

    def drop_from(self, step: int, metric: str | None = None) -> None:
        """Drops the points at `step` and after it, of one metric or of all."""
        for (name, _), points in self._points.items():
            if metric in (None, name):
                points[:] = [point for point in points if point[0] < step]

    def series(self) -> list[Series]:
        made = []
        for (metric, column), points in self._points.items():
            if points:
                steps, seconds, values = zip(*points, strict=True)
                arrays = np.array(steps, np.int64), np.array(seconds, np.float64), np.array(values, np.float64)
                made.append(Series(metric, column, *arrays))
        return made


def read_metrics_file(path: Path, num_runs: int) -> list[Series]:
    """Reads a metrics.jsonl of `num_runs` runs side by side; a last line that is still being written is passed over.

    Raises:
      ValueError: a line is not an object with a step, or a value is neither a number nor a list of `num_runs` numbers;
        the file, and the line or step, are named.
    """
    builder = _Builder()
    for line in read_metrics(path):
        step, seconds = line.pop("step"), _number(line.pop(WALL_SECONDS, None))
        where = f"{path}, step {step}"
        for metric, value in line.items():
            values = value if isinstance(value, list) else [value]
            if len(values) not in (1, num_runs):
                raise ValueError(f"{where}: {metric} has {len(values)} values and the run's config says {num_runs}")
            for column, one in enumerate(values):
                if not (one is None or isinstance(one, int | float)):
                    raise ValueError(f"{where}: {metric} is {one!r}, not a number")
                own = column if len(values) == num_runs else None
                builder.add(metric, own, step, seconds, _number(one))
    return builder.series()


def read_events(paths: Iterable[Path]) -> list[Series]:
    """Reads the scalars of one run's TensorBoard event files; wall seconds count from its first event.

    What a restarted run writes again replaces what it wrote before: from the step that its START event names, or, where
    it has none, from the first step of each metric in the later file. A last record that is cut off is passed over.

    Raises:
      ValueError: a file is damaged; it and the byte are named.
    """
    builder, begin = _Builder(), None
    for path in sorted(paths):
        known: set[str] = set()
        for event in _events(path):
            begin = event.wall_time if begin is None else min(begin, event.wall_time)
            if event.session_log.status == event.session_log.START:
                builder.drop_from(event.step)
            for value in event.summary.value:
                number = _scalar(value)
                if number is None:
                    continue
                if value.tag not in known:
                    builder.drop_from(event.step, value.tag)
                    known.add(value.tag)
                builder.add(value.tag, 0, event.step, event.wall_time, _number(number))
    return [series._replace(wall_seconds=series.wall_seconds - begin) for series in builder.series()]


def _events(path: Path) -> Iterator[Any]:
    from tensorboardX.proto.event_pb2 import Event
    from tensorboardX.record_writer import masked_crc32c

    raw, at = path.read_bytes(), 0
    while at + 12 <= len(raw):
        header = raw[at : at + 8]
        length, checksum = *struct.unpack("<Q", header), *struct.unpack("<I", raw[at + 8 : at + 12])
        if length > MAX_RECORD or masked_crc32c(header) != checksum:
            raise ValueError(f"{path}, byte {at}: damaged, not the header of a TensorBoard record")
        end = at + 12 + length
        if end + 4 > len(raw):
            break
        try:
            yield Event.FromString(raw[at + 12 : end])
        except Exception as error:  # noqa: BLE001: protobuf's own error class depends on its implementation
            raise ValueError(f"{path}, byte {at}: damaged, not a TensorBoard event") from error
        at = end + 4


def _scalar(value: Any) -> float | None:
    """The number of a summary's value: TensorFlow 1 and tensorboardX have a field for it, TensorFlow 2 a tensor."""
    kind = value.WhichOneof("value")
    if kind == "simple_value":
        return value.simple_value
    if kind != "tensor" or any(dim.size != 1 for dim in value.tensor.tensor_shape.dim):
        return None
    tensor = value.tensor
    name = {1: "float", 2: "double"}.get(tensor.dtype)
    if name is None:
        return None
    given = list(getattr(tensor, f"{name}_val"))
    return float(given[0]) if given else float(np.frombuffer(tensor.tensor_content, f"<f{4 * tensor.dtype}")[0])


def read_chart(path: Path, step_field: str = "Step") -> dict[str, list[Series]] | None:
    """Reads the CSV of a chart that W&B exports: run name -> its series; None where the file is no such chart.

    Args:
      step_field: the header of the x-axis.

    Raises:
      ValueError: the x-axis is another one, or a cell is not a number; file and line are named.
    """
    rows = list(csv.reader(io.StringIO(path.read_text(encoding="utf-8-sig"))))
    header = rows[0] if rows else []
    if len(header) < 2 or not all(" - " in name for name in header[1:]):
        return None
    if header[0] != step_field:
        raise ValueError(
            f"{path}: its x-axis is {header[0]!r}, not {step_field!r}: export the chart by step, or give the name of "
            "the column that counts steps as \"step_field\" in a run.json beside it"
        )
    builders: dict[str, _Builder] = {}
    spread = False
    for number, row in enumerate(rows[1:], start=2):
        cells = dict(zip(header, row, strict=False))
        try:
            step = int(float(row[0]))
            numbers = {name: float(cell) for name, cell in cells.items() if name != header[0] and cell != ""}
        except (ValueError, IndexError) as error:
            raise ValueError(f"{path}, line {number}: a cell is not a number ({error})") from error
        for name, value in numbers.items():
            if not name.endswith(("__MIN", "__MAX")):
                run, _, metric = name.rpartition(" - ")
                builders.setdefault(run, _Builder()).add(metric, 0, step, math.nan, _number(value))
                spread |= numbers.get(f"{name}__MIN", value) != numbers.get(f"{name}__MAX", value)
    if spread:
        logging.warning("%s: minima and maxima differ: its points are means, of grouped runs or of several steps", path)
    return {run: builder.series() for run, builder in builders.items()}


def read_history(path: Path, step_field: str = "_step") -> list[Series] | None:
    """Reads a run's history as W&B's API gives it; None where the file is none.

    `_runtime`, or `_timestamp` less its first value, is the wall-clock time. A row without a value did not log it.

    Args:
      step_field: the field that counts steps: `_step` counts log calls where the program did not say otherwise.

    Raises:
      ValueError: a JSON line, or a row's step, is damaged; file and line are named.
    """
    rows = _rows(path, step_field)
    if rows is None:
        return None
    builder, begin = _Builder(), None
    for where, row in rows:
        if row.get(step_field) in (None, ""):
            continue
        try:
            step = int(float(row[step_field]))
        except (TypeError, ValueError) as error:
            raise ValueError(f"{where}: {step_field} is {row[step_field]!r}, not a number") from error
        seconds, stamp = _logged(row.get("_runtime")), _logged(row.get("_timestamp"))
        if seconds is None and stamp is not None:
            begin = stamp if begin is None else begin
            seconds = stamp - begin
        if None in row:
            raise ValueError(f"{where}: has more cells than the header")
        for name, value in row.items():
            number = None if name == step_field or name.startswith("_") else _logged(value)
            if number is not None:
                builder.add(name, 0, step, math.nan if seconds is None else seconds, number)
    return builder.series()


def _rows(path: Path, step_field: str) -> Sequence[tuple[str, Mapping[str, Any]]] | None:
    """The rows of a history with where each stands; None where the file is none."""
    text = path.read_text(encoding="utf-8-sig")
    rows: list[tuple[str, Any]] = []
    if path.suffix == ".csv":
        table = csv.DictReader(io.StringIO(text))
        rows = [(f"{path}, line {number}", row) for number, row in enumerate(table, start=2)]
    elif path.suffix == ".jsonl":
        for number, line in enumerate(text.splitlines(keepends=True), start=1):
            where = f"{path}, line {number}"
            try:
                rows.append((where, json.loads(line)))
            except json.JSONDecodeError as error:
                if not rows:
                    return None
                if not line.endswith("\n"):
                    break
                raise ValueError(f"{where}: not JSON") from error
    else:
        try:
            whole = json.loads(text)
        except json.JSONDecodeError:
            return None
        rows = [(f"{path}, row {number}", row) for number, row in enumerate(whole)] if isinstance(whole, list) else []
    if not any(isinstance(row, Mapping) and step_field in row for _, row in rows):
        return None
    for where, row in rows:
        if not isinstance(row, Mapping):
            raise ValueError(f"{where}: not an object")
    return rows


def _logged(value: Any) -> float | None:
    """A cell of a history as a number (nan where it is not finite); None for an empty cell, a text or a picture."""
    if value is None or value == "" or isinstance(value, bool | list | Mapping):
        return None
    try:
        return _number(float(value))
    except ValueError:
        return None


def _number(value: float | None) -> float:
    """nan for what is not finite, or was not (our files have null there)."""
    return float(value) if value is not None and math.isfinite(value) else math.nan
