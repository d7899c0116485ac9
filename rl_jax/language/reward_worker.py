"""A process that scores responses one after another: `python -m rl_jax.language.reward_worker`, started by the pool.

The first line of standard input says which reward (JSON: module, name, options, memory_bytes, deadline), each line
after it one item: row, response, progress. Each line of standard output answers one: {"score", "parts", "outcome",
"message"}, after one that says that the reward is made. Memory is bounded here. Time is bounded by whoever waits for
the answers, and by an alarm in case nobody waits any more; between items this process ends when its input does.
"""

import contextlib
import importlib
import json
import os
import resource
import signal
import sys
from typing import Any

from rl_jax.language.rewards import Reward, make


def answer(reward: Reward, line: str) -> dict[str, Any]:
    item = json.loads(line)
    try:
        found = reward(item["row"], item["response"], item["progress"])
        return {"score": float(found.score), "parts": dict(found.parts), "outcome": found.outcome, "message": ""}
    except MemoryError:
        return {"score": 0.0, "parts": {}, "outcome": "out_of_memory", "message": ""}
    except Exception as error:  # noqa: BLE001: whatever a response makes a checker do
        return {"score": 0.0, "parts": {}, "outcome": "raised", "message": f"{type(error).__name__}: {error}"}


def main() -> None:
    """Answers until standard input ends."""
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    told = json.loads(sys.stdin.readline())
    reward = make(importlib.import_module(told["module"]).REWARDS, told["name"], told["options"])
    nowhere = os.open(os.devnull, os.O_WRONLY)
    for stream in (1, 2):  # what a checker prints is no answer, and nobody reads it
        os.dup2(nowhere, stream)
    resource.setrlimit(resource.RLIMIT_AS, (told["memory_bytes"], told["memory_bytes"]))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    said = {"ready": True}
    while True:
        answers.write(json.dumps(said) + "\n")
        answers.flush()
        if not (line := sys.stdin.readline()):
            return
        signal.setitimer(signal.ITIMER_REAL, 2.0 * told["deadline"])  # its signal ends the process
        said = answer(reward, line)
        signal.setitimer(signal.ITIMER_REAL, 0.0)


if __name__ == "__main__":
    with contextlib.suppress(KeyboardInterrupt, BrokenPipeError):
        main()
