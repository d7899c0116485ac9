"""The scores that tables are made from: scores.npz, and scores.json for people and other programs.

scores.npz is the record: for each run the arrays "<run>/steps" [T], "<run>/returns" and "<run>/scores" [T, S, E], and
under "records" one JSON text that says of each run what it was. scores.json repeats the records with the outcome of
the last evaluation. A run joins both as soon as it is finished, each file in one rename.
"""

import json
import os
import zipfile
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from experiments.declaration import Evaluations, Run
from rl_jax.core.provenance import write_atomically
from rl_jax.data.lock import exclusive

ARRAYS = ("steps", "returns", "scores")


class SavedRun(NamedTuple):
    """A finished run as the files hold it."""

    record: dict[str, Any]
    evaluations: Evaluations

    def is_of(self, run: Run) -> bool:
        """Whether the run was made as it is declared now."""
        return all(self.record[name] == value for name, value in _identity(run).items())


def make_record(
    run: Run, command: list[str], workdir: Path, summary: Mapping[str, Any], evaluations: Evaluations
) -> SavedRun:
    """What is known of a finished run, from its declaration, its folder and its last line.

    Raises:
      ValueError: the scores have no shape [T, S, E], or one is not finite (its place is named).
    """
    steps, scores, returns = (np.asarray(x) for x in evaluations[:3])
    if scores.ndim != 3 or returns.shape != scores.shape or len(steps) != len(scores) or not scores.size:
        shapes = f"steps {steps.shape}, scores {scores.shape} and returns {returns.shape}"
        raise ValueError(f"{run.name}: {shapes} are not [T], [T, S, E] and [T, S, E]")
    if not np.isfinite(scores).all():
        place = np.argwhere(~np.isfinite(scores))[0].tolist()
        raise ValueError(f"{run.name}: the score at evaluation, seed, episode {place} is {scores[tuple(place)]}")
    config, starts = _read_json(workdir / "config.json"), _read_json(workdir / "provenance.json").get("starts", [])
    first_seed = config.get("seed", 0)
    record = {
        **_identity(run),
        "command": command,
        "seeds": list(range(first_seed, first_seed + scores.shape[1])),
        "step": int(steps[-1]),
        "episodes": scores.shape[2],
        "reference_score": evaluations.reference_score,
        "inputs": starts[-1]["inputs"] if starts else {},
        "git": _distinct(start["git"] for start in starts),
        "devices": _distinct(start["devices"]["kind"] for start in starts),
        "summary": dict(summary),
    }
    return SavedRun(json.loads(json.dumps(record)), evaluations)


def save_run(outdir: Path, saved: SavedRun) -> None:
    """Adds a run to the files in `outdir`, or replaces the one of the same name."""
    with exclusive(outdir / ".scores.lock"):
        runs = load_runs(outdir) | {saved.record["name"]: saved}
        arrays = {f"{name}/{x}": getattr(run.evaluations, x) for name, run in runs.items() for x in ARRAYS}
        records = {name: run.record for name, run in runs.items()}
        temporary = outdir / ".scores.npz.tmp"
        with temporary.open("wb") as file:
            np.savez_compressed(file, records=np.array(json.dumps(records)), **arrays)
        os.replace(temporary, outdir / "scores.npz")
        for name, run in runs.items():
            outcome = {f"final_{x}": getattr(run.evaluations, x)[-1].tolist() for x in ("returns", "scores")}
            records[name] = records[name] | outcome
        write_atomically(outdir / "scores.json", json.dumps(records, indent=1) + "\n")


def load_runs(outdir: Path) -> dict[str, SavedRun]:
    """All runs in `outdir`, by name; none where no file is there.

    Raises:
      ValueError: the file is damaged.
    """
    path = outdir / "scores.npz"
    if not path.exists():
        return {}
    try:
        with np.load(path, allow_pickle=False) as file:
            records = json.loads(str(file["records"]))
            return {
                name: SavedRun(
                    record,
                    Evaluations(
                        **{x: file[f"{name}/{x}"] for x in ARRAYS}, reference_score=record["reference_score"]
                    ),
                )
                for name, record in records.items()
            }
    except (KeyError, ValueError, EOFError, zipfile.BadZipFile, zlib.error) as error:
        raise ValueError(f"{path} is not a file of scores: {error}; remove it to collect them again") from error


def _identity(run: Run) -> dict[str, Any]:
    """What makes a saved run the declared one, as JSON gives it back."""
    return json.loads(json.dumps(run._asdict() | {"name": run.name, "overrides": dict(run.overrides)}))


def _read_json(path: Path) -> dict[str, Any]:
    return json.loads(path.read_text()) if path.exists() else {}


def _distinct(values: Any) -> list[Any]:
    found: list[Any] = []
    for value in values:
        if value not in found:
            found.append(value)
    return found
