"""Runs cases, in this process or in a fresh one.

`python -m tests.promises.runner CASE WORKDIR [CASE WORKDIR ...] [--config.some.field=value ...]` trains the cases one
after another and prints one JSON line each: steps, evaluations, a hash of every leaf; the leaves go to
WORKDIR/leaves.npz. `--die=TERM@13` sends the process that signal when step 13 is reached, `--die=KILL+0.7` that long
after training began.
"""

import ast
import dataclasses
import functools
import hashlib
import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from unittest import mock

import jax
import numpy as np

from rl_jax.core import loop
from rl_jax.core.mesh import gather, make_mesh, path_name
from rl_jax.core.metrics import read_metrics
from rl_jax.core.program import Program, TrainState
from rl_jax.core.runtime import quiet_logging, start_process
from tests.promises.cases import Case, by_name, make_config, make_program

ROOT = Path(__file__).resolve().parents[2]


@dataclasses.dataclass(frozen=True)
class Outcome:
    """What a finished run left: the leaves of its state, its metric lines that are `untimed`, its evaluations."""

    result: loop.Result
    leaves: dict[str, np.ndarray]
    lines: list[dict[str, Any]]

    @property
    def hashes(self) -> dict[str, str]:
        return hash_leaves(self.leaves)


def host_leaves(state: TrainState) -> dict[str, np.ndarray]:
    leaves = jax.tree_util.tree_leaves_with_path(gather(state))
    return {path_name(path): np.asarray(leaf) for path, leaf in leaves}


def hash_leaves(leaves: Mapping[str, np.ndarray]) -> dict[str, str]:
    return {name: hashlib.sha256(leaf.tobytes()).hexdigest()[:16] for name, leaf in leaves.items()}


def untimed(lines: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Metric lines without what depends on the clock and the machine: all else is the same at every repetition."""
    return [{name: x for name, x in line.items() if not name.startswith(("time/", "system/"))} for line in lines]


def largest_difference(one: Mapping[str, np.ndarray], other: Mapping[str, np.ndarray]) -> float:
    """Over all leaves, relative to the largest value of each leaf (or to 1 where that is smaller)."""
    assert one.keys() == other.keys()
    return max(
        float(np.max(np.abs(a.astype(np.float64) - other[name]), initial=0.0)) / max(1.0, float(np.max(np.abs(a))))
        for name, a in one.items()
    )


def execute(
    case: Case,
    workdir: Path,
    overrides: Mapping[str, Any] | None = None,
    *,
    devices: int = 1,
    change: Callable[[Program], Program] = lambda program: program,
) -> Outcome:
    """Trains `case` in this process on its first `devices` virtual devices; `change` may replace the program."""
    config = make_config(case, overrides)
    program, inputs, headline = make_program(case, config, workdir)
    mesh = functools.partial(make_mesh, devices=jax.devices()[:devices])
    with mock.patch.object(loop, "make_mesh", mesh):
        result = loop.run(change(program), config, workdir, headline=headline, inputs=inputs)
    return Outcome(result, host_leaves(result.state), untimed(read_metrics(workdir / "metrics.jsonl")))


def assert_same(one: Outcome, other: Outcome) -> None:
    """Bitwise: every leaf of the state, every metric line, every evaluation."""
    assert one.hashes == other.hashes
    assert one.lines == other.lines
    assert one.result.evaluations == other.result.evaluations


@contextmanager
def signal_at(step: int, number: int = signal.SIGTERM) -> Iterator[None]:
    """Sends this process a signal when training has reached `step`; step 0 is before the first chunk."""
    update, enter = loop.ProgressLine.update, loop.ProgressLine.__enter__

    def updated(self, done, **shown):
        update(self, done, **shown)
        if step and done >= step:
            os.kill(os.getpid(), number)

    def entered(self):
        if not step:
            os.kill(os.getpid(), number)
        return enter(self)

    with mock.patch.object(loop.ProgressLine, "update", updated):
        with mock.patch.object(loop.ProgressLine, "__enter__", entered):
            yield


@contextmanager
def kill_after(seconds: float) -> Iterator[None]:
    """SIGKILLs this process that long after its training began."""
    enter = loop.ProgressLine.__enter__

    def entered(self):
        threading.Timer(seconds, os.kill, (os.getpid(), signal.SIGKILL)).start()
        return enter(self)

    with mock.patch.object(loop.ProgressLine, "__enter__", entered):
        yield


def start(
    jobs: Sequence[tuple[str, Path]],
    overrides: Mapping[str, Any] | None = None,
    *,
    devices: int = 1,
    die: str = "",
) -> subprocess.Popen:
    """Starts this module in a fresh process with `devices` virtual devices."""
    command = [sys.executable, "-m", "tests.promises.runner"]
    command += [str(word) for job in jobs for word in job]
    command += [f"--config.{name}={value}" for name, value in (overrides or {}).items()]
    command += [f"--die={die}"] if die else []
    # The same compiled code as in this process: only the number of virtual devices changes.
    flags = [flag for flag in os.environ.get("XLA_FLAGS", "").split() if "device_count" not in flag]
    flags.append(f"--xla_force_host_platform_device_count={devices}")
    env = os.environ | {"XLA_FLAGS": " ".join(flags), "JAX_PLATFORMS": "cpu", "PYTHONPATH": str(ROOT)}
    return subprocess.Popen(command, cwd=ROOT, env=env, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE)


@dataclasses.dataclass(frozen=True)
class Ended:
    """A process of `start` that ended."""

    code: int
    reports: list[dict[str, Any]]
    stderr: str


def finish(process: subprocess.Popen, timeout: float = 240) -> Ended:
    try:
        stdout, stderr = process.communicate(timeout=timeout)
    except subprocess.TimeoutExpired:
        process.kill()
        _, stderr = process.communicate()
        raise AssertionError(f"the process hangs; its stderr:\n{stderr}") from None
    # Gloo, the collectives of several CPU processes, greets on standard output.
    reports = [json.loads(line) for line in stdout.splitlines() if line.startswith("{")]
    return Ended(process.returncode, reports, stderr)


def _literal(text: str) -> Any:
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError):
        return text


def main(arguments: Sequence[str]) -> None:
    words = [word for word in arguments if not word.startswith("--")]
    flags = dict(word[2:].split("=", 1) for word in arguments if word.startswith("--"))
    overrides = {name[7:]: _literal(value) for name, value in flags.items() if name.startswith("config.")}
    with death(flags.get("die", "")):
        for name, workdir in zip(words[::2], map(Path, words[1::2]), strict=True):
            case = by_name(name)
            config = make_config(case, overrides)
            if not jax.distributed.is_initialized():
                start_process(config.distributed, deterministic=config.deterministic)
            program, inputs, headline = make_program(case, config, workdir)
            result = loop.run(program, config, workdir, headline=headline, inputs=inputs)
            leaves = host_leaves(result.state)
            if jax.process_index() == 0:
                np.savez(workdir / "leaves.npz", **leaves)
            report = {"step": result.step, "trained_steps": result.trained_steps, "hashes": hash_leaves(leaves)}
            print(json.dumps(report | {"evaluations": result.evaluations}), flush=True)


@contextmanager
def death(die: str) -> Iterator[None]:
    if "@" in die:
        name, step = die.split("@")
        with signal_at(int(step), getattr(signal, f"SIG{name}")):
            yield
    elif "+" in die:
        with kill_after(float(die.split("+")[1])):
            yield
    else:
        yield


if __name__ == "__main__":
    quiet_logging()
    main(sys.argv[1:])
