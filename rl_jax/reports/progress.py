"""Runs while they go on: one line each with step, rate and time left, read from their folders."""

import datetime
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from absl import logging
from rich.console import Console
from rich.live import Live
from rich.table import Table

from rl_jax.core.files import read_object
from rl_jax.core.metrics import recent_lines

LIVE_SECONDS, LOG_SECONDS = 2.0, 60.0
RATE = "time/updates_per_s"


class Status(NamedTuple):
    """How far a run is.

    Attributes:
      step, total: gradient steps done, and of the whole run; None where its folder does not say them yet.
      rate: updates a second.
    """

    step: int | None
    total: int | None
    rate: float | None

    @property
    def seconds_left(self) -> float | None:
        if self.step is None or self.total is None or not self.rate:
            return None
        return max(self.total - self.step, 0) / self.rate

    def texts(self) -> tuple[str, str, str]:
        """Step, rate and time left as a reader wants them."""
        step = "starts" if self.step is None else f"{self.step:,} of {self.total:,}" if self.total else f"{self.step:,}"
        rate = "" if self.rate is None else f"{self.rate:,.3g} updates/s"
        left = self.seconds_left
        return step, rate, "" if left is None else str(datetime.timedelta(seconds=round(left)))


def status(workdir: Path) -> Status:
    """How far the run in a folder is; a file that is being written does not disturb."""
    try:
        total = read_object(workdir / "config.json").get("num_steps")
        lines = recent_lines(workdir / "metrics.jsonl")
    except (OSError, ValueError):
        return Status(None, None, None)
    rate = next((line[RATE] for line in reversed(lines) if line.get(RATE)), None)
    return Status(lines[-1]["step"] if lines else None, total, rate)


class Progress:
    """A live table on a terminal, a log line a run now and then elsewhere.

    Args:
      folder: holds the folders of the runs by their names.
    """

    def __init__(self, folder: Path):
        self._folder, self._last = folder, time.monotonic()
        console = Console(file=sys.stderr)
        self._live = Live(console=console, auto_refresh=False, transient=True) if console.is_terminal else None
        self._stream: Any = None

    def __enter__(self) -> "Progress":
        if self._live is not None:
            self._live.start()
            # Rich prints above its table what goes to sys.stderr; absl's handler holds the stream from before.
            self._stream = logging.get_absl_handler().python_handler.setStream(sys.stderr)
        return self

    def __exit__(self, *exc: Any) -> None:
        if self._stream is not None:
            logging.get_absl_handler().python_handler.setStream(self._stream)
        if self._live is not None:
            self._live.stop()

    def show(self, names: Sequence[str]) -> None:
        """Shows the runs that go on, if it is time to."""
        if time.monotonic() - self._last < (LIVE_SECONDS if self._live is not None else LOG_SECONDS):
            return
        self._last = time.monotonic()
        rows = [(name, *status(self._folder / name).texts()) for name in names]
        if self._live is None:
            for name, *texts in rows:
                logging.info("%s: %s", name, ", ".join(filter(None, [*texts[:2], texts[2] and f"{texts[2]} left"])))
            return
        table = Table("run", "step", "rate", "time left", box=None)
        for row in rows:
            table.add_row(*row)
        self._live.update(table, refresh=True)
