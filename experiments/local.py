"""Runs as processes of this machine, each on its share of the cores.

A process that this one leaves behind (killed where it stands) goes on, and holds the lock of its run as long: the next
start waits for it instead of starting a second one in the same folder.
"""

import contextlib
import fcntl
import os
import shlex
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from absl import logging

from experiments.launch import ROOT
from rl_jax.reports.declaration import Run


class LocalJob:
    """A process, the files that it holds, and the cores that it runs on."""

    def __init__(self, name: str, popen: subprocess.Popen, files: contextlib.ExitStack, share: Sequence[int] | None):
        self.name, self.popen, self.share = name, popen, share
        self.place = f"pid {popen.pid}" + (f" on cores {','.join(map(str, share))}" if share is not None else "")
        self._files = files

    def poll(self) -> int | None:
        code = self.popen.poll()
        if code is not None:
            self._files.close()
        return code


class LocalLauncher:
    """Starts processes here.

    Args:
      jobs: how many at once; with several, each is pinned to its share of the cores where the system can do that.
    """

    requeues = False

    def __init__(self, jobs: int):
        self.slots = jobs
        self._shares = _shares(jobs)
        self._jobs: list[LocalJob] = []

    def start(self, run: Run, arguments: Sequence[str], folder: Path) -> LocalJob | None:
        """None where a process that an earlier start left behind still holds the run's lock."""
        self._jobs = [job for job in self._jobs if job.popen.poll() is None]
        taken = [job.share for job in self._jobs]
        share = next((share for share in self._shares if share not in taken), self._shares[0])
        with contextlib.ExitStack() as stack:
            lock = stack.enter_context((folder / f".{run.name}.lock").open("a"))
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                return None
            errors = stack.enter_context((folder / f"{run.name}.log").open("a"))
            print(f"$ python {shlex.join(arguments)}", file=errors, flush=True)
            # The lock is the child's too, so that it outlives this process; a session of its own keeps Ctrl-C away.
            with _on_cores(share):
                popen = subprocess.Popen(
                    [sys.executable, *arguments], cwd=ROOT, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
                    stderr=errors, pass_fds=[lock.fileno()], start_new_session=True,
                )
            self._jobs.append(LocalJob(run.name, popen, stack.pop_all(), share))
        return self._jobs[-1]

    def stop(self, jobs: Sequence[LocalJob]) -> None:
        """Tells what still runs to save, and waits for it."""
        for job in jobs:
            job.popen.terminate()
        for job in jobs:
            logging.warning("waiting for %s to save", job.name)
            job.popen.wait()
            job.poll()


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
