"""Runs as jobs of Slurm, submitted with submitit: the same commands, resume and collection as on one machine.

Folders have to lie where the nodes see them. A job that Slurm takes its node from, or whose time is up, saves and is
queued again. Jobs go on when `experiments.reproduce` is stopped; the next start finds them by the ids that it kept.
"""

import json
import shlex
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import psutil
from absl import logging

from experiments.launch import ROOT
from rl_jax.core.extras import require
from rl_jax.core.files import read_object, write_atomically
from rl_jax.reports.declaration import Run

POLL_SECONDS = 0.5
LOST = 1  # the exit code of a job that has left no result


class Command:
    """What a job does: runs `python ARGUMENTS`; returns its exit code."""

    def __init__(self, arguments: Sequence[str], log: Path):
        self.arguments, self.log = list(arguments), log

    def __call__(self) -> int:
        with self.log.open("a") as errors:
            print(f"$ python {shlex.join(self.arguments)}", file=errors, flush=True)
            popen = subprocess.Popen(
                [sys.executable, *self.arguments], cwd=ROOT, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
                stderr=errors,
            )
            self._pid = popen.pid
            while (code := popen.poll()) is None:
                time.sleep(POLL_SECONDS)
        return code

    def checkpoint(self) -> Any:
        """Slurm takes the node, or the time is up: the run saves, and the job is queued again."""
        # Not popen.wait(): this is a signal handler, and the code that it interrupts may hold popen's lock.
        child = psutil.Process(self._pid)
        child.terminate()
        child.wait()
        return require("submitit", "slurm").helpers.DelayedSubmission(Command(self.arguments, self.log))


class SlurmJob:
    """A job of submitit."""

    def __init__(self, job: Any):
        self.job, self.place = job, f"job {job.job_id}"

    def poll(self) -> int | None:
        if not self.job.done():
            return None
        try:
            return self.job.result()
        # submitit raises its own errors for jobs that were cancelled, or that left no result.
        except Exception as error:  # noqa: BLE001
            logging.error("%s: %s", self.place, str(error).strip().splitlines()[-1:])
            return LOST


class SlurmLauncher:
    """Submits jobs.

    Args:
      options: of submitit's AutoExecutor, such as {"timeout_min": 600, "slurm_partition": "gpu", "gpus_per_node": 1}.
      jobs: how many in the queue at once.
      cluster: where submitit runs them; "local" and "debug" are for tests.
    """

    requeues = True

    def __init__(self, options: Mapping[str, Any], jobs: int, cluster: str = "slurm"):
        self.slots, self._options, self._cluster = jobs, dict(options), cluster

    def start(self, run: Run, arguments: Sequence[str], folder: Path) -> SlurmJob:
        """Submits the run, or takes over the job that an earlier start has left in the queue."""
        executor = require("submitit", "slurm").AutoExecutor(folder / ".submitit", cluster=self._cluster)
        note = folder / f".{run.name}.job"
        if note.exists():
            earlier = executor.job_class(**read_object(note))
            if not earlier.done():
                return SlurmJob(earlier)
        executor.update_parameters(name=run.name, **self._options)
        job = executor.submit(Command(arguments, folder / f"{run.name}.log"))
        write_atomically(note, json.dumps({"folder": str(folder / ".submitit"), "job_id": job.job_id}))
        return SlurmJob(job)

    def stop(self, jobs: Sequence[SlurmJob]) -> None:
        for job in jobs:
            logging.warning("%s goes on in the queue: start again to collect it", job.place)


def parse_options(text: str) -> dict[str, Any]:
    """KEY=VALUE,... as a dict; whole numbers become int.

    Raises:
      ValueError: a part is not KEY=VALUE.
    """
    options: dict[str, Any] = {}
    for part in filter(None, text.split(",")):
        key, equals, value = part.partition("=")
        if not equals or not value:
            raise ValueError(f"--slurm={text}: {part!r} is not KEY=VALUE, such as slurm_partition=gpu")
        options[key.strip()] = int(value) if value.strip().isdigit() else value.strip()
    return options
