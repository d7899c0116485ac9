"""Run folders as `core.loop` leaves them, written by hand: for tests that need many of them."""

import json
from pathlib import Path

import numpy as np

SCORE = "eval/normalized_score"


def write_run(folder, values, *, steps=None, config=None, starts=None, metric=SCORE, seed=0, lines=()):
    """Writes the folder of one run of S columns.

    Args:
      values: [T, S], the metric's; a nan is written as null.
      steps: [T]; 100, 200, ... if not given. Wall seconds are a tenth of the step.
      config: fields that differ from the default, nested.
      starts: of provenance.json; one start that finished if not given.
      lines: more lines for metrics.jsonl, after the others.
    """
    folder = Path(folder)
    folder.mkdir(parents=True)
    values = np.asarray(values, np.float64)
    steps = np.arange(1, len(values) + 1) * 100 if steps is None else np.asarray(steps)
    fields = {
        "paper": "offline_rl", "seed": seed, "num_seeds": values.shape[1],
        "num_steps": int(steps[-1]) if len(steps) else 100,
        "agent": {"name": "iql", "hidden_dims": [256, 256]}, "dataset": {"name": "hopper-medium"},
    }
    (folder / "config.json").write_text(json.dumps(fields | (config or {})))
    starts = starts or [start(end={"state": "finished", "step": int(steps[-1]) if len(steps) else 0})]
    (folder / "provenance.json").write_text(json.dumps({"starts": starts}))
    with (folder / "metrics.jsonl").open("w") as file:
        for step, row in zip(steps.tolist(), values.tolist(), strict=True):
            plain = [None if np.isnan(x) else x for x in row]
            line = {"step": step, metric: plain if len(plain) > 1 else plain[0], "time/wall_seconds": step / 10}
            file.write(json.dumps(line) + "\n")
        for line in lines:
            file.write(json.dumps(line) + "\n")
    return folder


def start(step=0, revision="a" * 40, **fields):
    """One start of a provenance.json."""
    return {
        "time": "2026-01-02T03:04:05.000+00:00", "step": step, "command": ["python", "train.py"],
        "git": {"revision": revision, "clean": True}, "python": "3.11.7", "packages": {"jax": "0.10.2"},
        "devices": {"kind": "cpu", "count": 1}, "inputs": {"checksum": "f" * 64},
    } | fields
