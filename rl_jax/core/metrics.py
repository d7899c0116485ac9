"""Where a run's numbers go: metrics.jsonl (the record), TensorBoard, Weights & Biases when asked, one progress line.

metrics.jsonl holds one JSON object a line, each with its `step`. A value is a number, or a list with one number a run
when several seeds train side by side. A resumed run first drops the lines written after its checkpoint, so that none
is there twice and none is missing. A non-finite value is written as null. Names that begin with `time/` or `system/`
are of the clock and the machine; all other values are the same at every repetition of the run.
"""

import contextlib
import json
import math
import os
import sys
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from absl import logging
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from tensorboardX import SummaryWriter

from rl_jax.core.extras import require
from rl_jax.core.files import naming, write_atomically

Values = Mapping[str, Any]


def plain(value: Any) -> Any:
    """A metric as JSON holds it: a float, or a list of floats where there are several runs; null if not finite."""
    array = np.asarray(value, np.float64)
    if array.ndim == 0 or array.size == 1:
        number = float(array.reshape(()))
        return number if math.isfinite(number) else None
    return [number if math.isfinite(number) else None for number in array.tolist()]


class MetricWriter:
    """Writes the metrics of one run.

    Args:
      workdir: the run's folder.
      step: where the run starts or resumes.
      lines: how many lines metrics.jsonl had then; later ones are dropped, and a warning says where some are missing.
      crc: the checksum of these lines; None for one that is not known.
      tensorboard: whether to write event files beside the JSONL.
      wandb_project: the project to log to; empty for none.
      config: what W&B shows as the run's configuration.
      groups: rows of a metric [S] by name: TensorBoard and W&B get their means, one curve a group; all S if not given.
    """

    def __init__(
        self, workdir: Path, *, step: int, lines: int, tensorboard: bool, wandb_project: str, config: Mapping[str, Any],
        groups: Mapping[str, slice] | None = None, crc: int | None = None,
    ):
        self._groups = groups or {"": slice(None)}
        self._path = workdir / "metrics.jsonl"
        self.crc = _keep_lines(self._path, lines, crc)  # of all lines
        self._file = self._path.open("ab", buffering=0)
        self._board = None
        if tensorboard:
            self._board = SummaryWriter(str(workdir / "tensorboard"), purge_step=step + 1)
        self._wandb = None
        if wandb_project:
            wandb = require("wandb", "wandb")
            self._wandb = wandb.init(
                project=wandb_project, name=workdir.name, dir=str(workdir), config=dict(config),
                id=_run_id(workdir), resume="allow",
            )

    def write(self, step: int, metrics: Values) -> None:
        """Writes one line; every metric is a number or an array [S]."""
        line = {"step": step} | {name: plain(value) for name, value in metrics.items()}
        text = (json.dumps(line, allow_nan=False) + "\n").encode()
        with naming(self._path):
            self._file.write(text)
        self.crc = zlib.crc32(text, self.crc)
        means = {}
        for name, value in metrics.items():
            value = np.asarray(value, np.float64)
            groups = self._groups if value.ndim else {"": ...}
            means |= {f"{name}/{group}".rstrip("/"): float(value[rows].mean()) for group, rows in groups.items()}
        if self._board is not None:
            for name, mean in means.items():
                self._board.add_scalar(name, mean, step)
            self._board.flush()
        if self._wandb is not None:
            self._wandb.log(means, step=step)

    def close(self) -> None:
        self._file.close()
        if self._board is not None:
            self._board.close()
        if self._wandb is not None:
            self._wandb.finish()


def _run_id(workdir: Path) -> str:
    """The W&B id of this run, kept in the run's folder so that a resumed run continues the same one."""
    path = workdir / "wandb_id"
    if not path.exists():
        path.write_text(os.urandom(6).hex())
    return path.read_text()


def read_metrics(path: str | os.PathLike) -> list[dict[str, Any]]:
    """The lines of a metrics.jsonl, in order; a last line that is still being written is passed over.

    Raises:
      FileNotFoundError: there is no such file.
      ValueError: a line is not a JSON object with a step; file and line are named.
    """
    lines = []
    for number, text in enumerate(Path(path).read_bytes().split(b"\n")[:-1], start=1):
        try:
            line = json.loads(text)
            line["step"] = int(line["step"])
        except (KeyError, TypeError, ValueError, OverflowError, RecursionError) as error:
            raise ValueError(f"{os.fspath(path)}, line {number}: not a JSON object with a step") from error
        lines.append(line)
    return lines


def recent_lines(path: str | os.PathLike, tail: int = 1 << 16) -> list[dict[str, Any]]:
    """The whole lines at the end of a metrics.jsonl, in order, without damaged ones; none where there is no such file.

    Only the last `tail` bytes are read, which a run that goes on is asked for often; all where they hold no line.
    """
    path = Path(path)
    size = path.stat().st_size if path.exists() else 0
    if not size:
        return []
    with path.open("rb") as file:
        file.seek(max(0, size - tail))
        texts = file.read().split(b"\n")[:-1]
    lines = []
    for text in texts:
        with contextlib.suppress(KeyError, TypeError, ValueError, OverflowError, RecursionError):
            line = json.loads(text)
            lines.append(line | {"step": int(line["step"])})
    return lines if lines or size <= tail else recent_lines(path, size)


def last_step(path: str | os.PathLike) -> int:
    """The step of the last whole line of a metrics.jsonl; 0 where there is none."""
    lines = recent_lines(path)
    return lines[-1]["step"] if lines else 0


def _keep_lines(path: Path, count: int, crc: int | None) -> int:
    """Drops what was written after the first `count` lines; the checksum of what stays.

    A run whose record was cut or changed goes on, since its state is whole, and says so.
    """
    whole = path.read_bytes().split(b"\n")[:-1] if path.exists() else []
    kept = b"".join(line + b"\n" for line in whole[:count])
    if len(whole) < count:
        logging.warning(
            "%s has %d of the %d lines that the run had written: the others are lost, unless you stop it and put a "
            "copy of the file back", path, len(whole), count,
        )
    elif crc is not None and zlib.crc32(kept) != crc:
        logging.warning("%s is not what the run had written: something has changed its lines", path)
    if path.exists():
        write_atomically(path, kept)
    return zlib.crc32(kept)


class ProgressLine:
    """One line on stderr with step, rate, time left and the headline metric; silent where stderr is no terminal."""

    def __init__(self, total: int, done: int):
        console = Console(file=sys.stderr)
        self._progress = Progress(
            BarColumn(bar_width=24), MofNCompleteColumn(), TextColumn("steps"), TextColumn("{task.fields[rate]}"),
            TextColumn("ETA"), TimeRemainingColumn(), TextColumn("{task.fields[headline]}"),
            console=console, disable=not console.is_terminal, speed_estimate_period=120,
        )
        self._task = self._progress.add_task("train", total=total, completed=done, rate="", headline="")

    def __enter__(self) -> "ProgressLine":
        self._progress.start()
        # Rich prints above its line what goes to sys.stderr; absl's handler holds the stream from before.
        self._log_stream = logging.get_absl_handler().python_handler.setStream(sys.stderr)
        return self

    def __exit__(self, *exc: Any) -> None:
        if self._log_stream is not None:
            logging.get_absl_handler().python_handler.setStream(self._log_stream)
        self._progress.stop()

    def update(self, step: int, rate: float | None = None, headline: str | None = None) -> None:
        """Shows `step`, and the updates/s and the headline metric where they are given."""
        fields = {}
        if rate is not None:
            fields["rate"] = f"{rate:,.0f} updates/s"
        if headline is not None:
            fields["headline"] = headline
        self._progress.update(self._task, completed=step, **fields)
