"""Runs a paper's binaries as processes of their own, several at once, each on its share of the cores.

A process that this one leaves behind (killed where it stands) goes on, and holds the lock of its run as long: the next
start waits for it instead of starting a second one in the same folder.
"""

import contextlib
import fcntl
import json
import os
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import IO, Any, NamedTuple

import numpy as np
from absl import logging

from experiments.declaration import Run
from rl_jax.core.runtime import PREEMPTED_EXIT_CODE

ROOT = Path(__file__).resolve().parents[1]
POLL_SECONDS = 0.2


def command(run: Run, workdir: Path) -> list[str]:
    """The arguments of `python` that start a run, or go on with the one in `workdir`."""
    fields = [f"--config.{name}={value}" for name, value in run.overrides.items()]
    return ["-m", run.module, f"--config={run.config}", f"--workdir={workdir}", *fields]


def run_all(
    runs: Sequence[Run], folder: Path, jobs: int, finished: Callable[[Run, Path, dict[str, Any]], None]
) -> dict[str, str]:
    """Runs each in folder/<name>, at most `jobs` at once; a run that fails does not stop the others.

    What a process writes to standard error is in folder/<name>.log.

    Args:
      jobs: with several, each is pinned to its share of the cores where the system can do that.
      finished: called with a run that ended well, its folder and the JSON object of its last line.

    Returns:
      What went wrong, by a run's name.

    Raises:
      SystemExit: SIGTERM or Ctrl-C, with PREEMPTED_EXIT_CODE, after every process was told to save and has ended.
    """
    folder.mkdir(parents=True, exist_ok=True)
    waiting, active, errors, begun, told = list(runs), {}, {}, 0, set()
    with contextlib.ExitStack() as stack:
        stop = stack.enter_context(_stop_signal())
        stack.callback(lambda: _end(active))
        shares = _shares(jobs)
        while waiting or active:
            if stop:
                raise SystemExit(PREEMPTED_EXIT_CODE)
            for slot in [slot for slot in range(jobs) if slot not in active]:
                for run in list(waiting):
                    process = _start(run, folder, shares[slot])
                    if process is not None:
                        waiting.remove(run)
                        begun += 1
                        active[slot] = process
                        logging.info("%s: run %d of %d, %s", run.name, begun, len(runs), process.place)
                        break
                    if run.name not in told:
                        logging.warning("%s still runs from an earlier start: waiting for it", run.name)
                        told.add(run.name)
            for slot, process in list(active.items()):
                if process.popen.poll() is None:
                    continue
                del active[slot]
                try:
                    with process.files:
                        finished(process.run, folder / process.run.name, process.result())
                    logging.info("%s: finished after %.0f s", process.run.name, time.monotonic() - process.begin)
                # One run's damaged folder is that run's failure; the others go on.
                except (ValueError, OSError, LookupError) as error:
                    errors[process.run.name] = str(error)
                    logging.error("%s failed: %s", process.run.name, error)
            time.sleep(POLL_SECONDS)
    return errors


class _Process(NamedTuple):
    run: Run
    popen: subprocess.Popen
    files: contextlib.ExitStack
    out: IO[bytes]
    log: Path
    logged: int  # bytes of the log that earlier starts wrote
    begin: float
    place: str

    def result(self) -> dict[str, Any]:
        """The JSON object of the last line of a process that ended; ValueError says why there is none."""
        code = self.popen.returncode
        if code == PREEMPTED_EXIT_CODE:
            raise ValueError("it was told to stop and has saved; start again to go on")
        if code < 0:
            raise ValueError(f"killed by {signal.Signals(-code).name} (see {self.log})")
        if code:
            lines = self.log.read_bytes()[self.logged :].decode(errors="replace").strip().splitlines()
            message = lines[-1].strip().removeprefix("error: ") if lines else "no message"
            raise ValueError(f"{message} (exit code {code}, see {self.log})")
        self.out.seek(0)
        lines = self.out.read().decode(errors="replace").splitlines()
        try:
            result = json.loads(lines[-1])
        except (IndexError, json.JSONDecodeError) as error:
            raise ValueError(f"its last line is not a JSON object: {lines[-1:]}") from error
        if not isinstance(result, dict):
            raise ValueError(f"its last line is not a JSON object: {lines[-1:]}")
        return result


def _start(run: Run, folder: Path, cores: Sequence[int] | None) -> _Process | None:
    """Starts a run; None where one that an earlier start left behind still holds its lock."""
    with contextlib.ExitStack() as stack:
        lock = stack.enter_context((folder / f".{run.name}.lock").open("a"))
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return None
        arguments, log = command(run, folder / run.name), folder / f"{run.name}.log"
        out = stack.enter_context((folder / f".{run.name}.out").open("w+b"))
        with log.open("a") as errors:
            print(f"$ python {shlex.join(arguments)}", file=errors, flush=True)
            logged = errors.tell()
            # The lock is the child's too, so that it outlives this process; a session of its own keeps Ctrl-C away.
            with _on_cores(cores):
                popen = subprocess.Popen(
                    [sys.executable, *arguments], cwd=ROOT, stdin=subprocess.DEVNULL, stdout=out, stderr=errors,
                    pass_fds=[lock.fileno()], start_new_session=True,
                )
        place = f"pid {popen.pid}" + (f" on cores {','.join(map(str, cores))}" if cores is not None else "")
        return _Process(run, popen, stack.pop_all(), out, log, logged, time.monotonic(), place)


def _shares(jobs: int) -> list[list[int] | None]:
    """The cores of each of `jobs` processes: None where they are not shared out."""
    if jobs == 1 or not hasattr(os, "sched_setaffinity"):
        return [None] * jobs
    cores = sorted(os.sched_getaffinity(0))
    if len(cores) < jobs:
        return [[cores[job % len(cores)]] for job in range(jobs)]
    return [share.tolist() for share in np.array_split(cores, jobs)]


@contextlib.contextmanager
def _on_cores(cores: Sequence[int] | None) -> Iterator[None]:
    """A process started in here may use these cores alone; None leaves it all that this one may use."""
    if cores is None:
        yield
        return
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, cores)
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


def _end(active: dict[int, _Process]) -> None:
    """Tells what still runs to save, and waits for it."""
    for process in active.values():
        process.popen.terminate()
    for process in active.values():
        logging.warning("waiting for %s to save", process.run.name)
        process.popen.wait()
        process.files.close()


@contextlib.contextmanager
def _stop_signal() -> Iterator[list[int]]:
    """A list that SIGTERM and Ctrl-C are put on; a second Ctrl-C interrupts the wait for the processes."""
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
