"""Runs a paper's binaries, several at once, each after the runs that it needs; `local` and `slurm` say where.

A run that fails does not stop the others, except those that need it.
"""

import contextlib
import signal
import time
from collections.abc import Callable, Collection, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple, Protocol

from absl import logging

from rl_jax.core.runtime import PREEMPTED_EXIT_CODE
from rl_jax.reports.declaration import Run
from rl_jax.reports.progress import Progress

ROOT = Path(__file__).resolve().parents[1]
POLL_SECONDS = 0.2


class Job(Protocol):
    """A run that was started."""

    place: str  # where it runs, for the log

    def poll(self) -> int | None:
        """Its exit code; None while it goes on."""


class Launcher(Protocol):
    """Starts runs somewhere."""

    slots: int  # how many at once
    requeues: bool  # whether a run that was told to stop by others starts again at once

    def start(self, run: Run, arguments: Sequence[str], folder: Path) -> Job | None:
        """Starts `python ARGUMENTS`, its standard error in folder/<run>.log; None where an earlier start still runs."""

    def stop(self, jobs: Sequence[Job]) -> None:
        """This process is told to stop: tells the runs to save and waits for them, or leaves them to go on."""


class _Active(NamedTuple):
    run: Run
    job: Job
    begin: float
    logged: int  # bytes of the log that earlier starts wrote


def command(run: Run, folder: Path) -> list[str]:
    """The arguments of `python` that start a run in folder/<name>, or go on with the one that is there."""
    fields = {**run.overrides, **{field: folder / needed for field, needed in run.needs.items()}}
    overrides = [f"--config.{name}={value}" for name, value in fields.items()]
    return ["-m", run.module, f"--config={run.config}", f"--workdir={folder / run.name}", *overrides]


def run_all(
    runs: Sequence[Run], folder: Path, launcher: Launcher, finished: Callable[[Run, Path], None],
    done: Collection[str] = (),
) -> dict[str, str]:
    """Runs each in folder/<name>, in the order given but after the runs that it needs.

    Args:
      finished: called with a run that ended well and its folder; what it raises is that run's failure.
      done: names of runs that are finished already.

    Returns:
      What went wrong, by a run's name.

    Raises:
      SystemExit: SIGTERM or Ctrl-C, with PREEMPTED_EXIT_CODE, after the launcher has stopped.
    """
    folder.mkdir(parents=True, exist_ok=True)
    waiting, active, errors, begun, told, there = list(runs), [], {}, 0, set(), set(done)
    with contextlib.ExitStack() as stack:
        stop = stack.enter_context(_stop_signal())
        stack.callback(lambda: launcher.stop([one.job for one in active]))
        progress = stack.enter_context(Progress(folder))
        while waiting or active:
            if stop:
                raise SystemExit(PREEMPTED_EXIT_CODE)
            for run in list(waiting):
                lacking = [needed for needed in run.needs.values() if needed not in there]
                coming = {one.run.name for one in active} | {other.name for other in waiting}
                if lacking and lacking[0] in coming:
                    continue
                if lacking:
                    waiting.remove(run)
                    errors[run.name] = f"not run: needs {lacking[0]}"
                    logging.error("%s: %s", run.name, errors[run.name])
                elif len(active) < launcher.slots:
                    logged = _size(folder / f"{run.name}.log")
                    job = launcher.start(run, command(run, folder), folder)
                    if job is not None:
                        waiting.remove(run)
                        begun += 1
                        active.append(_Active(run, job, time.monotonic(), logged))
                        logging.info("%s: run %d of %d, %s", run.name, begun, len(runs), job.place)
                    elif run.name not in told:
                        logging.warning("%s still runs from an earlier start: waiting for it", run.name)
                        told.add(run.name)
            for one in list(active):
                code = one.job.poll()
                if code is None:
                    continue
                active.remove(one)
                if code == PREEMPTED_EXIT_CODE and launcher.requeues:
                    logging.warning("%s was told to stop and has saved: it starts again", one.run.name)
                    waiting.append(one.run)
                    begun -= 1
                    continue
                try:
                    if code:
                        raise ValueError(_failure(code, folder / f"{one.run.name}.log", one.logged))
                    finished(one.run, folder / one.run.name)
                    there.add(one.run.name)
                    logging.info("%s: finished after %.0f s", one.run.name, time.monotonic() - one.begin)
                # One run's damaged folder is that run's failure; the others go on.
                except (ValueError, OSError, LookupError) as error:
                    errors[one.run.name] = str(error)
                    logging.error("%s failed: %s", one.run.name, error)
            progress.show([one.run.name for one in active])
            time.sleep(POLL_SECONDS)
    return errors


def _failure(code: int, log: Path, logged: int) -> str:
    """Why a run ended with an exit code other than 0."""
    if code == PREEMPTED_EXIT_CODE:
        return "it was told to stop and has saved; start again to go on"
    if code < 0:
        return f"killed by {signal.Signals(-code).name} (see {log})"
    lines = log.read_bytes()[logged:].decode(errors="replace").strip().splitlines() if log.exists() else []
    message = lines[-1].strip().removeprefix("error: ") if lines else "no message"
    return f"{message} (exit code {code}, see {log})"


def _size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0


@contextlib.contextmanager
def _stop_signal() -> Iterator[list[int]]:
    """A list that SIGTERM and Ctrl-C are put on; a second Ctrl-C interrupts the wait for the runs."""
    heard: list[int] = []
    previous = {}

    def catch(number: int, frame: Any) -> None:
        del frame
        heard.append(number)
        if number == signal.SIGINT:
            signal.signal(number, signal.default_int_handler)

    # Outside the main thread nothing can be caught.
    with contextlib.suppress(ValueError):
        for number in (signal.SIGTERM, signal.SIGINT):
            # A background job of a shell ignores Ctrl-C, and goes on ignoring it.
            if signal.getsignal(number) != signal.SIG_IGN:
                previous[number] = signal.signal(number, catch)
    try:
        yield heard
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)
