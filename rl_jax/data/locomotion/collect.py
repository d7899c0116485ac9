"""Collects the episodes of a `locomotion-2` set with a pool of roll-out worker processes."""

import collections
import concurrent.futures
import contextlib
import io
import json
import math
import os
import queue
import struct
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np

from rl_jax.core.extras import require
from rl_jax.data.episodes import Episodes
from rl_jax.data.locomotion.rollout import BLOCK_EPISODES
from rl_jax.data.locomotion.sets import TIME_LIMIT, LocomotionSet
from rl_jax.data.progress import ProgressBar

PACKAGE_ROOT = Path(__file__).parents[3]


class WorkerPool:
    """Roll-out processes; `submit` gives a job to the next idle one. A context manager that ends them all."""

    def __init__(self, num_workers: int):
        self._errors = tempfile.TemporaryFile()
        self._folder = tempfile.TemporaryDirectory()  # MuJoCo writes a log of warnings into the working directory
        inherited = [os.path.abspath(path) for path in os.environ.get("PYTHONPATH", "").split(os.pathsep) if path]
        environment = {
            **os.environ,
            "PYTHONPATH": os.pathsep.join([str(PACKAGE_ROOT), *inherited]),
            "OPENBLAS_NUM_THREADS": "1",
            "OMP_NUM_THREADS": "1",
            "MKL_NUM_THREADS": "1",
        }
        command = [sys.executable, "-m", "rl_jax.data.locomotion.worker"]
        self._processes = [
            subprocess.Popen(
                command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self._errors, env=environment,
                cwd=self._folder.name,
            )
            for _ in range(num_workers)
        ]
        self._idle = queue.SimpleQueue()
        for process in self._processes:
            self._idle.put(process)
        self._threads = concurrent.futures.ThreadPoolExecutor(num_workers)

    def __enter__(self) -> "WorkerPool":
        return self

    def __exit__(self, *exception) -> None:
        for process in self._processes:
            process.kill()
        self._threads.shutdown(cancel_futures=True)
        for process in self._processes:
            process.wait()
            with contextlib.suppress(BrokenPipeError):  # what was not written yet has no reader any more
                process.stdin.close()
            process.stdout.close()
        self._errors.close()
        self._folder.cleanup()

    def submit(self, job: dict) -> concurrent.futures.Future:
        """A future of the arrays that `roll_out_block` returns for the job."""
        return self._threads.submit(self._run, job)

    def _run(self, job: dict) -> dict[str, np.ndarray]:
        process = self._idle.get()
        try:
            process.stdin.write((json.dumps(job) + "\n").encode())
            process.stdin.flush()
            size = struct.unpack("<Q", process.stdout.read(8))[0]
            answer = process.stdout.read(size)
            if len(answer) != size:
                raise EOFError("answer cut off")
            return dict(np.load(io.BytesIO(answer), allow_pickle=False))
        except (OSError, EOFError, struct.error) as error:
            self._errors.seek(0)
            lines = self._errors.read().decode(errors="replace").strip().splitlines() or ["no message"]
            what = f"a roll-out worker of {job['env_id']} (policy {job['policy']}) died"
            raise RuntimeError(f"{what}: {lines[-1]}") from error
        finally:
            self._idle.put(process)


def collect(spec: LocomotionSet, num_steps: int, seed: int, num_workers: int | None = None) -> Iterator[Episodes]:
    """Rolls out exactly `num_steps` steps, policy by policy in equal shares; yields blocks of whole episodes in order.

    Episode i of policy p is a function of (seed, p, i) alone, so the number of workers changes nothing. The last
    episode of each share is cut where the share is full, and counts as truncated there. Shows a progress bar on
    standard error if that is a terminal.

    Args:
      spec: which set.
      num_steps: steps in all, at least one per policy.
      seed: of the environments' resets and of the action noise.
      num_workers: processes; by default one a core.
    """
    require("gymnasium", "mujoco")  # say what is missing here, once, and not in each worker
    require("mujoco", "mujoco")
    shares = np.diff(np.linspace(0, num_steps, len(spec.policies) + 1).astype(int))
    if num_steps < len(spec.policies):
        raise ValueError(f"{spec.name}: num_steps is {num_steps}, expected at least {len(spec.policies)}, one a policy")
    num_workers = num_workers or available_cores()
    with WorkerPool(num_workers) as pool, ProgressBar(spec.name, num_steps) as advance:
        for index, (policy, share) in enumerate(zip(spec.policies, shares)):
            job = {"env_id": spec.env_id, "policy": policy, "seed_sequence": [seed, index]}
            for part in _collect_share(pool, job, int(share), num_workers):
                advance(len(part))
                yield part


def _collect_share(pool: WorkerPool, job: dict, share: int, num_workers: int) -> Iterator[Episodes]:
    pending = collections.deque()
    submitted, done, steps = 0, 0, 0
    while steps < share:
        # Ask for as many blocks as those seen so far say; before the first, as if every episode ran to the time limit.
        steps_per_block = steps / done if done else BLOCK_EPISODES * TIME_LIMIT
        while len(pending) < min(math.ceil((share - steps) / steps_per_block), 2 * num_workers):
            pending.append(pool.submit({**job, "block": submitted, "max_steps": share - steps}))
            submitted += 1
        block = to_episodes(pending.popleft().result()).first_steps(share - steps)
        done, steps = done + 1, steps + len(block)
        yield block
    for future in pending:
        future.cancel()


def to_episodes(block: Mapping[str, np.ndarray]) -> Episodes:
    """What `roll_out_block` gave as Episodes: one that did not terminate was truncated by the time limit."""
    steps = dict(block)
    lengths = steps.pop("lengths")
    ends = np.cumsum(lengths)
    truncated = np.zeros_like(steps["terminated"])
    truncated[ends - 1] = ~steps["terminated"][ends - 1]
    return Episodes(**steps, truncated=truncated, starts=(ends - lengths).astype(np.int64))


def available_cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
