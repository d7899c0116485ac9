"""Runs cases, in this process or in a fresh one.

`python -m tests.promises.runner CASE WORKDIR [--config.some.field=value ...]` trains the case and prints one JSON line:
steps, evaluations, a hash of every leaf; the leaves go to WORKDIR/leaves.npz. `--alone` uses one of the devices, as
`execute` does. `--die=TERM@13` sends the process that signal when step 13 is reached, `--die=KILL+0.7` that long after
training began.
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
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any
from unittest import mock

import jax
import numpy as np
import psutil

from rl_jax.core import loop, memory
from rl_jax.core.mesh import gather, make_mesh, path_name
from rl_jax.core.metrics import read_metrics
from rl_jax.core.program import Program, TrainState
from rl_jax.core.runtime import quiet_logging, start_process
from tests import binaries
from tests.papers import Case
from tests.promises.cases import case_of, experiment_of, make_config

COMPILATION = "/jax/core/compile/backend_compile_duration"


@dataclasses.dataclass
class Watched:
    """What happened while a run went on.

    Attributes:
      at: (traces of the step, compilations) when a step was reached.
      end: the same at the end.
      states: the leaves of every state that was evaluated.
    """

    traces: int = 0
    compilations: int = 0
    at: dict[int, tuple[int, int]] = dataclasses.field(default_factory=dict)
    end: tuple[int, int] = (0, 0)
    states: list[list[jax.Array]] = dataclasses.field(default_factory=list)


@dataclasses.dataclass(frozen=True)
class Outcome:
    """What a finished run left: the leaves of its state, its metric lines that are `untimed`, its evaluations."""

    result: loop.Result
    leaves: dict[str, np.ndarray]
    lines: list[dict[str, Any]]
    watched: Watched

    @property
    def hashes(self) -> dict[str, str]:
        return hash_leaves(self.leaves)


def host_leaves(state: TrainState) -> dict[str, np.ndarray]:
    def words(leaf: jax.Array) -> jax.Array:
        return jax.random.key_data(leaf) if jax.dtypes.issubdtype(leaf.dtype, jax.dtypes.prng_key) else leaf

    leaves = jax.tree_util.tree_leaves_with_path(jax.tree.map(words, gather(state)))
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
        float(np.max(np.abs(a.astype(np.float64) - other[name]), initial=0.0))
        / max(1.0, float(np.max(np.abs(a), initial=0.0)))
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
    made = experiment_of(case, config)
    watched = Watched()

    def program(config: Any) -> Program:
        own = change(made.program(config))

        def step(*arguments: Any) -> Any:
            watched.traces += 1
            return own.step(*arguments)

        def evaluate(state: TrainState, *others: Any) -> Any:
            watched.states.append(jax.tree.leaves(state.replace(step=None)))
            return own.evaluate(state, *others)

        # All cases take the same number of steps, however soon they are solved.
        return own._replace(step=step, evaluate=evaluate, done=None)

    def compiled(event: str, seconds: float, **_: Any) -> None:
        watched.compilations += event == COMPILATION

    update = loop.ProgressLine.update

    def updated(self: Any, step: int, **shown: Any) -> None:
        watched.at[step] = (watched.traces, watched.compilations)
        update(self, step, **shown)

    jax.monitoring.register_event_duration_secs_listener(compiled)
    try:
        with on_devices(devices), mock.patch.object(loop.ProgressLine, "update", updated):
            result = loop.run(made._replace(program=program), config, workdir)
        watched.end = (watched.traces, watched.compilations)
    finally:
        jax.monitoring.unregister_event_duration_listener(compiled)
    return Outcome(result, host_leaves(result.state), untimed(read_metrics(workdir / "metrics.jsonl")), watched)


@contextmanager
def on_devices(count: int) -> Iterator[None]:
    """The loop's mesh is of the first devices alone, which share the memory that is free."""
    mesh = functools.partial(make_mesh, devices=jax.devices()[:count])
    free = psutil.virtual_memory().available // count
    with mock.patch.object(loop, "make_mesh", mesh), mock.patch.object(memory, "free_bytes", lambda device: free):
        yield


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
    case: Case,
    workdir: Path,
    overrides: Mapping[str, Any] | None = None,
    *,
    devices: int = 8,
    die: str = "",
) -> subprocess.Popen:
    """Starts this module in a fresh process with `devices` virtual devices.

    Eight of them, as here, though `execute` uses one: XLA has a thread a device, and splits sums among them.
    """
    arguments = ["-m", "tests.promises.runner", case.name, str(workdir)]
    arguments += [f"--config.{name}={value}" for name, value in (overrides or {}).items()]
    arguments += (["--alone"] if devices == 8 else []) + ([f"--die={die}"] if die else [])
    return binaries.start(arguments, devices=devices)


@dataclasses.dataclass(frozen=True)
class Ended:
    """A process of `start` that ended."""

    code: int
    reports: list[dict[str, Any]]
    stderr: str


def finish(process: subprocess.Popen, timeout: float = 240) -> Ended:
    ended = binaries.finish(process, timeout)
    # Gloo, the collectives of several CPU processes, greets on standard output.
    reports = [json.loads(line) for line in ended.stdout.splitlines() if line.startswith("{")]
    return Ended(ended.code, reports, ended.stderr)


def _literal(text: str) -> Any:
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError):
        return text


def main(arguments: Sequence[str]) -> None:
    name, workdir = (word for word in arguments if not word.startswith("--"))
    flags = dict(word[2:].partition("=")[::2] for word in arguments if word.startswith("--"))
    overrides = {name[7:]: _literal(value) for name, value in flags.items() if name.startswith("config.")}
    with death(flags.get("die", "")), on_devices(1) if "alone" in flags else nullcontext():
        case, workdir = case_of(name), Path(workdir)
        config = make_config(case, overrides)
        start_process(config.distributed, deterministic=config.deterministic)
        made = experiment_of(case, config)
        with_all_steps = made._replace(program=lambda config: made.program(config)._replace(done=None))
        result = loop.run(with_all_steps, config, workdir)
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
