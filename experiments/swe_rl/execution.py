"""Runs programs on their test cases: what judges a repair, never what it is trained on, and off unless asked for.

Each program runs in a Python of its own, which limits its processor time, memory, processes and the size of what it
writes before it reads the program, and which is killed with all that it starts when it does not end. It starts
isolated, in an empty folder and without the environment. That is protection against programs that hang, grow or crash,
as wrong repairs do. It is no sandbox: a program may read what its user may read, and may reach the network. Programs
that somebody could have written against you belong in a container or a virtual machine.
"""

import json
import math
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from typing import Any

WALL = 20  # times its processor seconds, a process may take on a machine that has other work

# Standard input: {"program", "name", "cases", limits}. Standard output's last line: how many cases are right.
RUNNER = """
import json, os, resource, sys, types
told = json.loads(sys.stdin.readline())
answers = os.fdopen(os.dup(1), "w")
os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
for name in ("AS", "CPU", "FSIZE", "NPROC", "CORE"):
    resource.setrlimit(getattr(resource, "RLIMIT_" + name), (told["limits"][name],) * 2)
def plain(x):
    if isinstance(x, (list, tuple, types.GeneratorType)):
        return [plain(y) for y in x]
    return x
right = 0
for given, wanted in told["cases"]:
    try:
        names = {"__name__": "program"}
        exec(compile(told["program"], "program", "exec"), names)
        given = given if isinstance(given, list) else [given]
        right += plain(names[told["name"]](*given)) == plain(wanted)
    except (Exception, SystemExit):
        pass
answers.write(told["secret"] + str(right) + "\\n")
answers.flush()
os._exit(0)
"""


def pass_rate(
    program: str, name: str, cases: Sequence[Sequence[Any]], *, seconds: float = 2.0, memory_bytes: int = 2**29
) -> float:
    """The share of test cases for which the function `name` of a program gives what is wanted.

    A program that does not end in time, needs more memory, or dies passes none.

    Args:
      cases: (arguments, wanted result), plain values as JSON has them.
      seconds: of the processor, for all cases together, in whole ones.
    """
    limits = {"AS": memory_bytes, "CPU": math.ceil(seconds), "FSIZE": 0, "NPROC": 0, "CORE": 0}
    secret = os.urandom(8).hex()
    told = {"program": program, "name": name, "cases": cases, "limits": limits, "secret": secret}
    with tempfile.TemporaryDirectory() as folder:
        process = subprocess.Popen(
            [sys.executable, "-I", "-S", "-c", RUNNER], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL, cwd=folder, env={}, start_new_session=True, text=True,
        )
        try:
            said, _ = process.communicate(json.dumps(told) + "\n", timeout=WALL * seconds)
        except subprocess.TimeoutExpired:
            said = ""
        finally:
            try:
                os.killpg(process.pid, signal.SIGKILL)
            except ProcessLookupError:
                pass
            process.communicate()
    last = said.strip().rpartition("\n")[2]
    return int(last.removeprefix(secret)) / len(cases) if last.startswith(secret) else 0.0


def pass_rates(programs: Sequence[str], rows: Sequence[Mapping[str, Any]], **limits: float) -> list[float]:
    """`pass_rate` of programs that answer rows with `name` and `cases`; the same program is run once."""
    known: dict[tuple[str, str], float] = {}
    for program, row in zip(programs, rows, strict=True):
        if (row["name"], program) not in known:
            known[row["name"], program] = pass_rate(program, row["name"], row["cases"], **limits)
    return [known[row["name"], program] for program, row in zip(programs, rows, strict=True)]
