"""A library in another Python, which need not share our requirements: a process that is told what to do next.

It writes {"parameters": ...} first; then for each word on its standard input it does that work once and writes how much
it was.
"""

import contextlib
import functools
import json
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from experiments.benchmark.measuring import Variant


def interpreter(flag: str, python: str) -> Path | None:
    """The file that the flag names; None where it is not given.

    Raises:
      ValueError: there is no such file.
    """
    path = Path(python).expanduser()
    if python and not path.is_file():
        raise ValueError(f"--{flag}={python}: there is no such file, name a Python interpreter")
    return path if python else None


@contextlib.contextmanager
def process(
    flag: str, python: Path, script: str, told: Mapping[str, Any], parameters: int, works: Sequence[str]
) -> Iterator[dict[str, Variant]]:
    """What does each of `works`, by its word, while the process runs.

    Args:
      script: a file of this folder.
      told: its settings, as JSON.
      parameters: of our network.

    Raises:
      ValueError: `python` does not run or lacks a library, or the network there has another number of parameters.
    """
    command = [python, Path(__file__).with_name(script), json.dumps(told)]
    try:
        running = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    except OSError as error:
        raise ValueError(f"--{flag}={python} does not run: {error.strerror}") from None

    def answer() -> str:
        line = running.stdout.readline()
        if not line:
            raise ValueError(f"--{flag}={python} ended ({running.wait()}); its own message stands above")
        return line

    def ask(what: str) -> int:
        running.stdin.write(f"{what}\n")
        running.stdin.flush()
        return int(answer())

    with running:
        theirs = json.loads(answer())["parameters"]
        if theirs != parameters:
            raise ValueError(f"the network of --{flag}={python} has {theirs} parameters and ours {parameters}")
        yield {what: Variant(functools.partial(ask, what)) for what in works}
        running.stdin.close()
