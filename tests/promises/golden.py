"""Fifty steps of every case, committed: what a change of the numbers has to answer for.

`python -m tests.promises.golden [CASE ...]` writes them anew; say in the commit why they changed. `--old` writes the
committed checkpoint of this release as well.
"""

import json
import shutil
import sys
import tempfile
from pathlib import Path

from tests.promises.cases import CASES, by_name
from tests.promises.runner import execute

FOLDER = Path(__file__).parent / "golden"
OLD = Path(__file__).parent / "old"
GOLDEN = {"num_steps": 50, "loop.log_every": 10, "loop.eval_every": 0, "checkpoint.every": 0}
OLD_CASE, OLD_RUN = "scored", {"num_steps": 4, "loop.log_every": 2, "loop.eval_every": 0, "checkpoint.every": 0}


def main(arguments: list[str]) -> None:
    names = [word for word in arguments if not word.startswith("--")] or [case.name for case in CASES]
    for name in names:
        with tempfile.TemporaryDirectory() as folder:
            lines = execute(by_name(name), Path(folder), GOLDEN).lines
        (FOLDER / f"{name}.json").write_text("[\n" + ",\n".join(json.dumps(line) for line in lines) + "\n]\n")
        print(f"{name}: {len(lines)} lines", file=sys.stderr)
    if "--old" in arguments:
        target = OLD / "0.1.0"
        with tempfile.TemporaryDirectory() as folder:
            execute(by_name(OLD_CASE), Path(folder), OLD_RUN)
            shutil.rmtree(target, ignore_errors=True)
            shutil.copytree(Path(folder) / "checkpoints", target / "checkpoints")
            for name in ("metrics.jsonl", "config.json"):
                shutil.copy(Path(folder) / name, target)


if __name__ == "__main__":
    main(sys.argv[1:])
