"""Metrics over time, as trackers write them: our metrics.jsonl, TensorBoard event files, Weights & Biases exports.

Event files are records of TensorFlow's framing (length, its checksum, an Event message, its checksum); tensorboardX,
which writes ours, brings the messages. A chart that W&B exports is a CSV of the columns `Step` and, for each run,
`<run> - <metric>` with its `__MIN` and `__MAX`; a history is one row a logged step, in JSON, JSON lines or CSV.
"""

import collections
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

from rl_jax.core.files import read_text
from rl_jax.core.metrics import read_metrics

WALL_SECONDS = "time/wall_seconds"
# A record of 1 GiB is no scalar but a length that was read from the middle of something else.
MAX_RECORD = 1 << 30
# Longer records are pictures and texts; to compute the checksum of a longer one takes a while.
MAX_CHECKED = 1 << 16
KEPT = 0.1  # of what is there, at the least, by a run that was started again from a checkpoint
MAX_STEP = 1 << 53  # up to here a float holds every whole number


class Series(NamedTuple):
    """One metric of one run, in the order of its steps."""

    metric: str
    column: int | None  # which of the runs that train side by side; None: of all of them at once
    steps: np.ndarray  # [T] int64, or float64 where one is not whole; none is below the one before it
    wall_seconds: np.ndarray  # [T] float64 since the run's first start; nan where the source does not say
    values: np.ndarray  # [T] float64; nan where a value was not finite
    remarks: tuple[str, ...] = ()  # what was dropped when it was read


class _Builder:
    """Gathers points as they come and makes the series of them. From where the steps of a metric go back, later points
    replace the earlier ones, and a remark says so."""

    def __init__(self) -> None:
        self._points: dict[tuple[str, int | None], list[tuple[float, float, float]]] = {}
        self._remarks: dict[str, dict[str, None]] = collections.defaultdict(dict)
        self.begin = math.inf  # of the clock, where points have its times

    def left(self, firsts: Mapping[str, float]) -> float | None:
        """The largest share of a metric's points that lies before the step given for the metric; None where the run has
        none of these metrics."""
        shared = [(self._points.get((metric, 0)), first) for metric, first in firsts.items()]
        shares = (sum(point[0] < first for point in points) / len(points) for points, first in shared if points)
        return max(shares, default=None)

    def add(self, metric: str, column: int | None, step: float, wall_seconds: float, value: float) -> None:
        points = self._points.setdefault((metric, column), [])
        if points and step < (last := points[-1][0]):
            self._drop(metric, points, step, f"its steps go back from {last} to {step}")
        points.append((step, wall_seconds, value))

    def drop_from(self, step: float, metric: str | None = None, why: str = "") -> None:
        """Drops the points at `step` and after it, of one metric or of all; a remark says `why`, if that is given."""
        for (name, _), points in self._points.items():
            if metric in (None, name):
                self._drop(name, points, step, why)

    def _drop(self, metric: str, points: list[tuple[float, float, float]], step: float, why: str) -> None:
        count = len(points)
        while points and points[-1][0] >= step:
            points.pop()
        if why and len(points) < count:
            self._remarks[metric][f"{why}: {count - len(points)} earlier values of {metric} are replaced"] = None

    def series(self) -> list[Series]:
        made = []
        for (metric, column), points in self._points.items():
            if points:
                steps, seconds, values = zip(*points, strict=True)
                # An array of whole numbers is int64, one with a fraction among them float64.
                arrays = np.array(steps), np.array(seconds, np.float64), np.array(values, np.float64)
                made.append(Series(metric, column, *arrays, tuple(self._remarks[metric])))
        return made


def read_metrics_file(path: Path, num_runs: int) -> list[Series]:
    """Reads a metrics.jsonl of `num_runs` runs side by side; a last line that is still being written is passed over.

    Raises:
      ValueError: a line is not an object with a step, or a value is neither a number nor a list of `num_runs` numbers;
        the file, and the line or step, are named.
    """
    builder = _Builder()
    for line in read_metrics(path):
        step = _step(line.pop("step"), "step", path)
        where = f"{path}, step {step}"
        seconds = _plain(line.pop(WALL_SECONDS, None), WALL_SECONDS, where)
        for metric, value in line.items():
            values = value if isinstance(value, list) else [value]
            if len(values) not in (1, num_runs):
                raise ValueError(f"{where}: {metric} has {len(values)} values and the run's config says {num_runs}")
            for column, one in enumerate(values):
                own = column if len(values) == num_runs else None
                builder.add(metric, own, step, seconds, _plain(one, metric, where))
    return builder.series()


def read_events(paths: Iterable[Path]) -> list[list[Series]]:
    """Reads the scalars of one folder's TensorBoard event files: the series of each run in it.

    A later file goes on with the run before it where it names its START, or begins in the midst of what is there: from
    its first step on, of each metric, its values replace the earlier ones, with a remark. One that would leave less
    than KEPT of every metric is a run of its own. Wall seconds count from a run's first event; a last record that is
    cut off is passed over.

    Raises:
      ValueError: a file is damaged, and it and the byte are named, or goes on with one of several runs.
    """
    runs: list[_Builder] = []
    for path in sorted(paths):
        events = list(_events(path))
        points = [
            (value.tag, event.step, event.wall_time, number)
            for event in events for value in event.summary.value if (number := _scalar(value)) is not None
        ]
        firsts: dict[str, int] = {}
        for tag, step, _, _ in points:
            firsts.setdefault(tag, step)
        if not firsts:
            continue
        started = [event.step for event in events if event.session_log.status == event.session_log.START]
        left = {number: share for number, run in enumerate(runs) if (share := run.left(firsts)) is not None}
        known = [runs[number] for number in left]
        if known and not started and max(left.values()) < KEPT:
            known = []
        elif not known and len(runs) == 1:  # other metrics of the one run
            known = runs
        if len(known) > 1:
            raise ValueError(
                f"{path} goes on with one of {len(known)} runs whose event files lie in its folder: move the files of "
                "each run into a folder of its own"
            )
        if not known:
            runs.append(_Builder())
        run = known[0] if known else runs[-1]
        for step in started:
            run.drop_from(step, why=f"{path.name} starts again at step {step}")
        for tag, step in firsts.items():
            run.drop_from(step, tag, f"{path.name} begins at step {step} again (two runs need a folder each)")
        for event in events:
            run.begin = min(run.begin, event.wall_time)
        for tag, step, wall_time, number in points:
            run.add(tag, 0, step, wall_time, _number(number))
    if len(runs) > 1:
        logging.warning(
            "%s: its event files begin anew and are read as %d runs: where one of them is another one that was started "
            "again, remove the earlier file", path.parent, len(runs),
        )
    return [
        [series._replace(wall_seconds=series.wall_seconds - run.begin) for series in run.series()] for run in runs
    ]


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
        data, checksum = raw[at + 12 : end], struct.unpack("<I", raw[end : end + 4])[0]
        if length <= MAX_CHECKED and masked_crc32c(data) != checksum:
            raise ValueError(f"{path}, byte {at}: damaged, the checksum of a TensorBoard record is another")
        try:
            yield Event.FromString(data)
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
    size = 4 * tensor.dtype
    if not given and len(tensor.tensor_content) != size:
        return None
    return float(given[0]) if given else float(np.frombuffer(tensor.tensor_content, f"<f{size}")[0])


def read_chart(path: Path, step_field: str = "Step") -> dict[tuple[str, int], list[Series]] | None:
    """Reads the CSV of a chart that W&B exports; None where the file is no such chart.

    Args:
      step_field: the header of the x-axis.

    Returns:
      (display name, which of the runs of that name, from 0) -> the run's series.

    Raises:
      ValueError: the x-axis is another one, or a cell is not a number; file and line are named.
    """
    rows = _table(path)
    header = next(rows, ("", []))[1]
    if len(header) < 2 or not all(" - " in name for name in header[1:]):
        return None
    if header[0] != step_field:
        raise ValueError(
            f"{path}: its x-axis is {header[0]!r}, not {step_field!r}: export the chart by step, or give the name of "
            "the column that counts steps as \"step_field\" in a run.json beside it"
        )
    # Two runs may have one display name, so that a header does not tell a column from all others.
    counts: collections.Counter[str] = collections.Counter()
    columns: dict[tuple[str, int], int] = {}
    for index, name in enumerate(header[1:], start=1):
        columns[name, counts[name]] = index
        counts[name] += 1
    plotted = {key: index for key, index in columns.items() if not key[0].endswith(("__MIN", "__MAX"))}
    builders: dict[tuple[str, int], _Builder] = {}
    spread = False
    for where, row in rows:
        step = _step(row[0], step_field, where)
        try:
            numbers = {index: float(cell) for index, cell in enumerate(row[1:], start=1) if cell != ""}
        except ValueError as error:
            raise ValueError(f"{where}: a cell is not a number ({error})") from error
        for (name, place), index in plotted.items():
            if index in numbers:
                run, _, metric = name.rpartition(" - ")
                builder = builders.setdefault((run, place), _Builder())
                builder.add(metric, 0, step, math.nan, _number(numbers[index]))
                low, high = (columns.get((f"{name}__{end}", place), index) for end in ("MIN", "MAX"))
                spread |= row[low : low + 1] != row[high : high + 1]
    if spread:
        logging.warning("%s: minima and maxima differ: its points are means, of grouped runs or of several steps", path)
    for run in sorted({run for run, place in builders if place}):
        logging.warning("%s: several runs are called %r: their order in a chart tells them apart", path, run)
    return {run: builder.series() for run, builder in builders.items()}


def _table(path: Path) -> Iterator[tuple[str, list[str]]]:
    """The rows of a CSV that are not blank, its header first, each with where it stands.

    Raises:
      ValueError: the file is not CSV, or a row has more cells than the header; file and line are named.
    """
    reader, width = csv.reader(io.StringIO(read_text(path))), None
    while True:
        try:
            row = next(reader, None)
        except csv.Error as error:
            raise ValueError(f"{path}, line {reader.line_num}: not CSV ({error})") from error
        if row is None:
            return
        where, width = f"{path}, line {reader.line_num}", len(row) if width is None else width
        if len(row) > width:
            raise ValueError(f"{where}: has more cells than the header")
        if row:
            yield where, row


def read_history(path: Path, step_field: str = "_step") -> list[Series] | None:
    """Reads a run's history as W&B's API gives it; None where the file is none.

    `_runtime`, or `_timestamp` less its first value, is the wall-clock time. A row without a value did not log it.

    Args:
      step_field: the field that counts steps: `_step` counts log calls where the program did not say otherwise.

    Raises:
      ValueError: the file, or a row's step, is damaged, or two columns have one name; file and line are named.
    """
    rows = _rows(path, step_field)
    if rows is None:
        return None
    builder, begin = _Builder(), None
    for where, row in rows:
        if row.get(step_field) in (None, ""):
            continue
        step = _step(row[step_field], step_field, where)
        seconds, stamp = _logged(row.get("_runtime")), _logged(row.get("_timestamp"))
        if seconds is None and stamp is not None:
            begin = stamp if begin is None else begin
            seconds = stamp - begin
        for name, value in row.items():
            number = None if name == step_field or name.startswith("_") else _logged(value)
            if number is not None:
                builder.add(name, 0, step, math.nan if seconds is None else seconds, number)
    return builder.series()


def _rows(path: Path, step_field: str) -> Sequence[tuple[str, Mapping[str, Any]]] | None:
    """The rows of a history with where each stands; None where the file is none."""
    rows: list[tuple[str, Any]] = []
    if path.suffix == ".csv":
        table = _table(path)
        header = next(table, ("", []))[1]
        if step_field not in header:
            return None
        if len(set(header)) < len(header):
            name = next(name for name in header if header.count(name) > 1)
            raise ValueError(f"{path}: two columns are called {name!r}: rename or remove one of them")
        return [(where, dict(zip(header, row, strict=False))) for where, row in table]
    text = read_text(path)
    lines = text.split("\n") if path.suffix == ".jsonl" else [text]  # only a line feed ends a line of JSON lines
    for number, line in enumerate(lines, start=1):
        where = f"{path}, line {number}"
        if not line.strip():
            continue
        try:
            rows.append((where, json.loads(line)))
        except (ValueError, RecursionError) as error:
            if rows and number == len(lines):
                break  # it is still being written
            if f'"{step_field}"' not in text:
                return None
            raise ValueError(f"{where}: not JSON ({error}): export it again") from error
    if path.suffix != ".jsonl":
        whole = rows[0][1] if rows else None
        rows = [(f"{path}, row {number}", row) for number, row in enumerate(whole)] if isinstance(whole, list) else []
    if not any(isinstance(row, Mapping) and step_field in row for _, row in rows):
        return None
    for where, row in rows:
        if not isinstance(row, Mapping):
            raise ValueError(f"{where}: not an object")
    return rows


def _step(value: Any, field: str, where: str | Path) -> int | float:
    """A step as a number: whole, if it is."""
    try:
        number = float(value)
    except (TypeError, ValueError, OverflowError) as error:
        raise ValueError(f"{where}: {field} is {value!r}, not a number") from error
    if not abs(number) < MAX_STEP:
        raise ValueError(f"{where}: {field} is {value!r}, and steps are finite, below {MAX_STEP}")
    return int(number) if number.is_integer() else number


def _plain(value: Any, name: str, where: str) -> float:
    """A value of our files as a number."""
    if not (value is None or isinstance(value, int | float)):
        raise ValueError(f"{where}: {name} is {value!r}, not a number")
    return _number(value)


def _logged(value: Any) -> float | None:
    """A cell of a history as a number (nan where it is not finite); None for an empty cell, a text or a picture."""
    if value is None or value == "" or isinstance(value, bool | list | Mapping):
        return None
    try:
        return _number(float(value))
    except OverflowError:
        return math.nan
    except ValueError:
        return None


def _number(value: float | None) -> float:
    """nan for what is not finite, or was not (our files have null there)."""
    try:
        return float(value) if value is not None and math.isfinite(value) else math.nan
    except OverflowError:  # a whole number that no float holds
        return math.nan
