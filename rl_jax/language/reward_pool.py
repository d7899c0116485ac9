"""Processes that score responses and can be killed: no response can stop a run by what it makes a checker do.

A checker that runs in a thread cannot be interrupted, and one that sets an alarm works in a main thread alone. So each
item runs in a process of its own kind (reward_worker.py), which sees no accelerator, has a deadline an item and a limit
of memory; a process that overstays is killed and another one started. What became of an item is its outcome, which is
counted: a time-out is no answer of 0.
"""

import json
import math
import os
import queue
import select
import subprocess
import sys
import weakref
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from absl import logging
from ml_collections import ConfigDict

from rl_jax.language import rewards
from rl_jax.language.rewards import Score

SECONDS_TO_START = 60.0
NO_DEVICES = {"JAX_PLATFORMS": "cpu", "CUDA_VISIBLE_DEVICES": "", "HIP_VISIBLE_DEVICES": "", "TPU_VISIBLE_CHIPS": ""}


class Scorer:
    """A registered reward in this process: for checkers that can neither hang nor grow, such as "arithmetic"."""

    def __init__(self, name: str, options: Mapping[str, Any] = {}):
        self._reward = rewards.reward(name, **options)

    def scores(self, rows: Sequence[Mapping[str, Any]], responses: Sequence[str], progress: float) -> list[Score]:
        """One score an item, in their order."""
        return [self._reward(*item, progress) for item in zip(rows, responses, strict=True)]

    def close(self) -> None:
        """Nothing is open."""


class RewardPool:
    """A registered reward in processes of its own, which start with the first items.

    Args:
      name, options: of the reward.
      module: where its registry REWARDS stands; a paper names its own.
      workers: processes.
      deadline: seconds of an item, after which its process is killed.
      memory_bytes: of a process's address space.

    Raises:
      ValueError: there is no such reward, or a number is not above 0.
    """

    def __init__(
        self, name: str, options: Mapping[str, Any] = {}, *, module: str = rewards.__name__, workers: int = 2,
        deadline: float = 5.0, memory_bytes: int = 2**30,
    ):
        numbers = {"workers": workers, "deadline": deadline, "memory_bytes": memory_bytes}
        for field, value in numbers.items():
            if not value > 0:
                raise ValueError(f"a pool of rewards with {field}={value}: give a number above 0")
        told = {"module": module, "name": name, "options": options, "memory_bytes": memory_bytes, "deadline": deadline}
        self._told, self._deadline = json.dumps(told), deadline
        self._threads = ThreadPoolExecutor(workers, thread_name_prefix="reward")
        self._free: queue.SimpleQueue[_Worker] = queue.SimpleQueue()
        for _ in range(workers):
            self._free.put(_Worker(self._told))

    def scores(self, rows: Sequence[Mapping[str, Any]], responses: Sequence[str], progress: float) -> list[Score]:
        """One score an item, in their order.

        Raises:
          RuntimeError: a process does not start; the message has what the reward said.
        """
        items = [
            json.dumps({"row": dict(row), "response": response, "progress": progress})
            for row, response in zip(rows, responses, strict=True)
        ]
        return list(self._threads.map(self._one, items))

    def _one(self, item: str) -> Score:
        worker = self._free.get()
        try:
            return worker.ask(item, self._deadline)
        finally:
            self._free.put(worker)

    def close(self) -> None:
        """Ends the processes; items that are being scored are finished first."""
        self._threads.shutdown(wait=True, cancel_futures=True)
        while not self._free.empty():
            self._free.get().stop()


class _Worker:
    """One process at a time, started when there is something to ask."""

    def __init__(self, told: str):
        self._told = told
        self._process: subprocess.Popen | None = None

    def ask(self, item: str, deadline: float) -> Score:
        if self._process is None:
            self._start()
        said = self._exchange(item, deadline)
        if said is None:
            self.stop()
            return Score(0.0, outcome="timed_out")
        if not said:
            self.stop()
            return Score(0.0, outcome="died")
        if said["message"]:
            logging.log_first_n(logging.WARNING, "a reward raised: %s", 5, said["message"])
        if said["outcome"] == "out_of_memory":
            self.stop()  # what it has taken may not come back
        score = said["score"] if math.isfinite(said["score"]) else 0.0
        return Score(score, said["parts"], said["outcome"] if score == said["score"] else "raised")

    def _start(self) -> None:
        environment = os.environ | NO_DEVICES | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
        self._process = subprocess.Popen(
            [sys.executable, "-P", "-m", "rl_jax.language.reward_worker"], stdin=subprocess.PIPE,
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=environment,
        )
        self._finalizer = weakref.finalize(self, _kill, self._process)
        if not self._exchange(self._told, SECONDS_TO_START):
            self._process.kill()
            last = self._process.stderr.read().decode(errors="replace").strip().splitlines()[-1:]
            self.stop()
            raise RuntimeError(f"a process of rewards does not start: {' '.join(last) or 'it says nothing'}")

    def _exchange(self, line: str, seconds: float) -> dict[str, Any] | None:
        """What the process answers; {} if it has ended, None if it is too late."""
        process = self._process
        try:
            process.stdin.write(line.encode() + b"\n")
            process.stdin.flush()
        except BrokenPipeError:
            return {}
        if not select.select([process.stdout], [], [], seconds)[0]:
            return None
        said = process.stdout.readline()  # the process writes whole lines
        return json.loads(said) if said.endswith(b"\n") else {}

    def stop(self) -> None:
        if self._process is not None:
            self._finalizer()
            self._process = None


def _kill(process: subprocess.Popen) -> None:
    process.kill()
    process.wait()
    for pipe in (process.stdin, process.stdout, process.stderr):
        try:
            pipe.close()
        except BrokenPipeError:
            pass


def scorer_of(told: ConfigDict, name: str, options: Mapping[str, Any] = {}) -> "Scorer | RewardPool":
    """A registered reward in this process, or in `told.workers` of its own with `told.deadline` seconds an item."""
    if not told.workers:
        return Scorer(name, options)
    return RewardPool(name, options, workers=told.workers, deadline=told.deadline)
