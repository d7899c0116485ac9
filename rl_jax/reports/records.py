"""The finished runs that a report is made from: scores.npz, and scores.json for people and other programs.

scores.npz is the record. It holds for each run the arrays "<run>/steps" [T], "<run>/train_seconds" [T] and
"<run>/outcomes/<name>" [T, S, E], and under "records" one JSON text that says of each run what it was. scores.json
repeats the records with the last values of their outcomes. A run joins both as soon as it is finished, each file in one
rename.
"""

import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from rl_jax.core.arrays import read_arrays
from rl_jax.core.config import flat
from rl_jax.core.files import atomically, exclusive, read_object, write_atomically
from rl_jax.core.outcomes import read_outcomes
from rl_jax.core.provenance import read_starts
from rl_jax.reports.declaration import Run
from rl_jax.reports.measures import Evaluations

FILE = "scores.npz"
RESULT = "result.json"


class Record(NamedTuple):
    """A finished run as the files hold it.

    Attributes:
      about: what it was: its declaration, command, seeds, git revisions, devices, inputs and its last line (`summary`).
      evaluations: what came out.
    """

    about: dict[str, Any]
    evaluations: Evaluations

    def is_of(self, run: Run) -> bool:
        """Whether the run was made as it is declared now."""
        return all(self.about.get(name) == value for name, value in identity(run).items())


def read_run(run: Run, workdir: Path, command: Sequence[str] = ()) -> Record:
    """A finished run from its folder: outcomes.npz, result.json, config.json and provenance.json.

    Raises:
      ValueError: a file is missing or damaged, a final outcome is not finite (its place is named), or the last
        evaluation is not of the run's end.
    """
    summary = _read_object(workdir / RESULT)
    try:
        steps, seconds, outcomes = read_outcomes(workdir / "outcomes.npz")
    except FileNotFoundError as error:
        raise ValueError(f"{run.name}: {error.filename} is missing: the run has recorded no evaluation") from error
    if not outcomes or not len(steps):
        raise ValueError(f"{run.name}: {workdir / 'outcomes.npz'} holds no outcome")
    if steps[-1] != summary.get("step"):
        raise ValueError(f"{workdir} was evaluated last at step {steps[-1]}, not at its end, {summary.get('step')}")
    for name, values in outcomes.items():
        if not np.isfinite(values[-1]).all():
            place = np.argwhere(~np.isfinite(values[-1]))[0].tolist()
            raise ValueError(f"{run.name}: the last {name} of seed, episode {place} is {values[-1][tuple(place)]}")
    config, starts = _read_object(workdir / "config.json"), read_starts(workdir / "provenance.json")
    first = config.get("seed", 0)
    if not isinstance(first, int):
        raise ValueError(f"{workdir / 'config.json'} is damaged: seed is {first!r}: restore it from a copy")
    seeds = next(iter(outcomes.values())).shape[1]
    # A start that found the run at its end trained nothing.
    trained = [start for start in starts[1:] if start.get("step") != steps[-1]]
    about = {
        **identity(run),
        "command": list(command),
        "seeds": list(range(first, first + seeds)),
        "step": int(steps[-1]),
        "inputs": starts[-1]["inputs"],
        "git": _distinct(start.get("git", {}) for start in (starts[0], *trained)),
        "devices": _distinct(flat(start).get("devices.kind") for start in (starts[0], *trained)),
        "summary": summary,
    }
    return Record(json.loads(json.dumps(about)), Evaluations(steps, seconds, outcomes, summary))


def save_run(outdir: Path, record: Record) -> None:
    """Adds a run to the files in `outdir`, or replaces the one of the same name."""
    with exclusive(outdir / ".scores.lock"):
        write_runs(outdir, load_runs(outdir) | {record.about["name"]: record})


def write_runs(outdir: Path, runs: Mapping[str, Record]) -> None:
    """Writes both files anew."""
    arrays, shown = {}, {}
    for name, (about, evaluations) in runs.items():
        arrays[f"{name}/steps"], arrays[f"{name}/train_seconds"] = evaluations.steps, evaluations.train_seconds
        arrays |= {f"{name}/outcomes/{outcome}": values for outcome, values in evaluations.outcomes.items()}
        shown[name] = about | {"final": {x: values[-1].tolist() for x, values in evaluations.outcomes.items()}}
    records = json.dumps({name: run.about for name, run in runs.items()})
    with atomically(outdir / FILE) as file:
        np.savez_compressed(file, records=np.array(records), **arrays)
    write_atomically(outdir / "scores.json", json.dumps(shown, indent=1) + "\n")


def load_runs(outdir: Path) -> dict[str, Record]:
    """All runs in `outdir`, by name; none where no file is there.

    Raises:
      ValueError: the file is damaged, or of another format.
    """
    path = outdir / FILE
    if not path.exists():
        return {}
    try:
        arrays, runs = read_arrays(path), {}
        for name, about in json.loads(str(arrays["records"])).items():
            prefix = f"{name}/outcomes/"
            outcomes = {key.removeprefix(prefix): x for key, x in arrays.items() if key.startswith(prefix)}
            steps, seconds = arrays[f"{name}/steps"], arrays[f"{name}/train_seconds"]
            runs[name] = Record(about, Evaluations(steps, seconds, outcomes, about["summary"]))
        return runs
    except (KeyError, ValueError, TypeError, AttributeError) as error:
        raise ValueError(f"{path} is not a file of scores: {error}; remove it to collect them again") from error


def identity(run: Run) -> dict[str, Any]:
    """What makes a saved run the declared one, as JSON gives it back."""
    own = run._asdict() | {"name": run.name, "overrides": dict(run.overrides), "needs": dict(run.needs)}
    return json.loads(json.dumps(own))


def _read_object(path: Path) -> dict[str, Any]:
    try:
        return read_object(path)
    except FileNotFoundError as error:
        raise ValueError(f"{path} is missing: the run is not finished") from error


def _distinct(values: Iterable[Any]) -> list[Any]:
    found: list[Any] = []
    for value in values:
        if value not in found:
            found.append(value)
    return found
