"""Binaries, run inside the test's own process as a person starts them, and in a fresh one where that is the point.

A fresh interpreter imports jax and compiles for seconds: a message needs none. What needs one is what only a process
has, an exit code under a signal, a kill, several hosts.
"""

import contextlib
import dataclasses
import io
import json
import os
import runpy
import subprocess
import sys
import warnings
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any
from unittest import mock

from absl import flags

ROOT = Path(__file__).resolve().parents[1]


@dataclasses.dataclass(frozen=True)
class Ended:
    """How a binary ended."""

    code: int
    stdout: str
    stderr: str

    @property
    def last_line(self) -> dict[str, Any]:
        """The JSON object that is its result."""
        return json.loads(self.stdout.splitlines()[-1])

    @property
    def error(self) -> str:
        """The one line that says what is wrong; fails where there is another one or a traceback."""
        assert self.code == 1, (self.code, self.stderr)
        assert "Traceback" not in self.stderr
        lines = [line for line in self.stderr.splitlines() if line.startswith("error: ")]
        assert len(lines) == 1, self.stderr
        return lines[0]


def run_module(module: str, *arguments: str) -> Ended:
    """`python -m MODULE ARGUMENTS`, in this process."""

    def main() -> None:
        with warnings.catch_warnings():
            # Another test may have imported it.
            warnings.filterwarnings("ignore", category=RuntimeWarning, module="runpy")
            runpy.run_module(module, run_name="__main__", alter_sys=True)

    return _run(main, [module, *arguments])


def run_main(main: Callable[[], None], *arguments: str) -> Ended:
    """A main of absl's, in this process."""
    return _run(main, ["test", *arguments])


def _run(main: Callable[[], Any], argv: Sequence[str]) -> Ended:
    stdout, stderr = io.StringIO(), io.StringIO()
    code = 0
    with contextlib.ExitStack() as stack:
        stack.enter_context(mock.patch.dict(os.environ))
        stack.enter_context(mock.patch.object(sys, "argv", list(argv)))
        stack.enter_context(fresh_flags())
        stack.enter_context(contextlib.redirect_stdout(stdout))
        stack.enter_context(contextlib.redirect_stderr(stderr))
        try:
            main()
        except SystemExit as end:
            code = end.code if isinstance(end.code, int) else 0 if end.code is None else 1
    return Ended(code, stdout.getvalue(), stderr.getvalue())


# Fields of a configuration are flags of absl's own module; those of a binary that runs are of its path.
PROJECT = ("rl_jax", "experiments", "tests", "__main__", "absl.flags._flag", str(ROOT))


@contextlib.contextmanager
def fresh_flags() -> Iterator[None]:
    """absl's flags as a new process finds them: those of the project's own modules are gone, and come back after.

    What a library defines when it is imported meanwhile stays: it is imported once.
    """
    values = flags.FLAGS
    registry = {name: _copy(value) for name, value in vars(values).items()}
    state = {name: dict(vars(values[name])) for name in values}
    for _, flag in _flags_of(lambda module: module.startswith(PROJECT)):
        if flag.name in values:
            delattr(values, flag.name)
    try:
        yield
    finally:
        new = _flags_of(lambda module: not module.startswith(PROJECT))
        vars(values).update(registry)
        for name, before in state.items():
            vars(values[name]).update(before)
        for module, flag in new:
            if flag.name not in values:
                values[flag.name] = flag
                values.register_flag_by_module(module, flag)


def _flags_of(chosen: Callable[[str], bool]) -> list[tuple[str, flags.Flag]]:
    by_module = flags.FLAGS.flags_by_module_dict()
    return [(module, flag) for module, own in by_module.items() if chosen(module) for flag in own]


def _copy(value: Any) -> Any:
    """Deep enough: absl keeps dicts of flags and of lists of flags."""
    if isinstance(value, dict):
        return {key: list(inner) if isinstance(inner, list) else inner for key, inner in value.items()}
    return value


def start(arguments: Sequence[str], *, devices: int = 1) -> subprocess.Popen:
    """A fresh interpreter on that many virtual devices; it shares the session's compilations and data sets."""
    kept = [flag for flag in os.environ.get("XLA_FLAGS", "").split() if "device_count" not in flag]
    kept.append(f"--xla_force_host_platform_device_count={devices}")
    environment = os.environ | {"XLA_FLAGS": " ".join(kept), "JAX_PLATFORMS": "cpu", "PYTHONPATH": str(ROOT)}
    return subprocess.Popen(
        [sys.executable, *arguments], cwd=ROOT, env=environment, text=True, stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )


def finish(process: subprocess.Popen, timeout: float = 240) -> Ended:
    """Waits for the end of such a process; one that hangs is killed, and its stderr shown."""
    try:
        stdout, stderr = process.communicate(timeout=timeout)
    except subprocess.TimeoutExpired:
        process.kill()
        _, stderr = process.communicate()
        raise AssertionError(f"the process hangs; its stderr:\n{stderr}") from None
    return Ended(process.returncode, stdout, stderr)
