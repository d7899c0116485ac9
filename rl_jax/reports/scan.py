"""Finds the runs under a root and reads what each says of itself.

A folder with the config.json and the provenance.json that `core.loop` writes is a run; so are a folder of TensorBoard
event files and the Weights & Biases exports of `series`. The folders are the record: each scan reads them, and no index
is kept beside them. A run.json says more of the runs in its folder and below, such as {"library": "CORL", "task":
"hopper-medium"}; the nearer one wins, and none may contradict what a run recorded itself.
"""

import functools
import json
import os
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from rl_jax.core.config import flat
from rl_jax.core.files import read_object
from rl_jax.core.metrics import last_step
from rl_jax.reports.runs import COLUMNS, Run, read_table
from rl_jax.reports.series import Series, read_chart, read_events, read_history, read_metrics_file

CONFIG, PROVENANCE, METRICS, NOTES = "config.json", "provenance.json", "metrics.jsonl", "run.json"
LIBRARY = "rl_jax"
MAX_RUNS = 1 << 16  # side by side in one folder; a larger number is damage
# What a run.json says of how to read the exports beside it, not of the runs.
HINTS = ("step_field", "run_name")
# What a start recorded, beside what every start has.
RECORDED = ("git", "packages", "devices", "machine", "inputs")
KINDS = {int: "a whole number of 64 bits", str: "a text", list: "a list", dict: "an object"}
# Where a run says its task, the first that is there.
TASK_FIELDS = ("dataset.name", "env_id", "env.name", "inputs.env_id", "paper")


def scan(roots: Sequence[str | os.PathLike]) -> list[Run]:
    """All runs under the roots: folders, or Parquet files that `write_table` wrote.

    Raises:
      ValueError: a root is neither, a file in a run's folder is damaged, or two runs have one name.
    """
    found: dict[str, tuple[Path, Run]] = {}
    places = set()
    for root in map(Path, roots):
        if not root.exists():
            raise ValueError(f"--root={root}: there is no such folder or file")
        pairs = _scan_folder(root) if root.is_dir() else _export_runs([root], {}, "")
        for place, run in pairs:
            resolved = place.resolve()
            if resolved in places:
                continue
            places.add(resolved)
            if run.name in found:
                raise ValueError(
                    f"two runs are called {run.name}: {found[run.name][0]} and {place}; scan a folder above both"
                )
            found[run.name] = (place, run)
    return [run for _, run in found.values()]


def _scan_folder(root: Path) -> Iterator[tuple[Path, Run]]:
    """The runs below a folder, each with where it lies."""
    notes: dict[Path, dict[str, Any]] = {}
    empty = {}
    for current, folders, files in os.walk(root):
        folder = Path(current)
        inherited = notes.get(folder.parent, {}) if folder != root else {}
        own = _read_notes(folder / NOTES) if NOTES in files else {}
        notes[folder] = {**inherited, **own}
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        name = folder.relative_to(root).as_posix() if folder != root else root.resolve().name
        if own:
            empty[folder] = True
        pairs = []
        if {CONFIG, PROVENANCE} <= set(files):
            folders.clear()
            pairs.append((folder, _own_run(folder, name, notes[folder])))
        else:
            events = sorted(folder / file for file in files if file.startswith("events.out.tfevents"))
            if events:
                pairs += _event_runs(folder, events, name, notes[folder])
            prefix = f"{name}/" if folder != root else ""
            pairs += _export_runs([folder / file for file in sorted(files)], notes[folder], prefix)
        for above in (folder, *folder.parents):
            if pairs and above in empty:
                empty[above] = False
        yield from pairs
    for folder, nothing in empty.items():
        if nothing:
            raise ValueError(f"{folder / NOTES} describes runs, and there are none that can be read in or below it")


def _read_notes(path: Path) -> dict[str, Any]:
    notes = read_object(path)
    reserved = sorted(set(COLUMNS) & set(notes) - {"seed"})
    if reserved:
        raise ValueError(f"{path}: {reserved[0]!r} is a name of the table itself, take another")
    notes = flat(notes)
    for name in HINTS:
        _field(path, notes, name, str, "")
    return notes


def _field(path: Path, where: Mapping[str, Any], name: str, kind: type, *default: Any) -> Any:
    """A field of a JSON object, of the kind that it must be of.

    Raises:
      ValueError: it is of another kind, or is missing and there is no default; file and field are named.
    """
    if name not in where and default:
        return default[0]
    found = where.get(name)
    if not isinstance(found, kind) or isinstance(found, bool) or kind is int and abs(found) >= 1 << 63:
        said = f"is {found!r}" if name in where else "is missing"
        raise ValueError(f"{path} is damaged: {name} {said}, not {KINDS[kind]}: restore it from a copy")
    return found


def _read_starts(path: Path) -> list[dict[str, Any]]:
    """The starts of a provenance.json, whose fields are of the right kinds."""
    starts = _field(path, read_object(path), "starts", list)
    if not starts:
        raise ValueError(f"{path} is damaged: it names no start: restore it from a copy")
    for start in starts:
        if not isinstance(start, dict):
            raise ValueError(f"{path} is damaged: a start is {start!r}, not {KINDS[dict]}: restore it from a copy")
        for name, kind in (("step", int), ("time", str), ("python", str), ("command", list)):
            _field(path, start, name, kind)
        end = _field(path, start, "end", dict, {})
        for name in ("state", "error"):
            _field(path, end, name, str, "")
        for name in RECORDED:
            _field(path, start, name, dict, {})
        for run in _field(path, start, "runs", list, []):
            if not isinstance(run, dict):
                raise ValueError(f"{path} is damaged: a run is {run!r}, not {KINDS[dict]}: restore it from a copy")
            _field(path, run, "seed", int)
    return starts


def _own_run(folder: Path, name: str, notes: Mapping[str, Any]) -> Run:
    """A run that `core.loop` wrote."""
    config, starts = flat(read_object(folder / CONFIG)), _read_starts(folder / PROVENANCE)
    first, count, num_steps = (
        _field(folder / CONFIG, config, field, int) for field in ("seed", "num_seeds", "num_steps")
    )
    if not 1 <= count <= MAX_RUNS:
        raise ValueError(f"{folder / CONFIG} is damaged: num_seeds is {count}: restore it from a copy")
    attributes = {
        f"config.{field}" if field in COLUMNS and field != "seed" else field: value for field, value in config.items()
    }
    ends = [start.get("end", {}) for start in starts]
    last = last_step(folder / METRICS)
    # A start that trained nothing, of a run that was finished, says nothing of how it was made.
    makers = [start for start in starts if start["step"] < last] or starts[:1]
    attributes |= _provenance(makers)
    attributes |= {
        "source": LIBRARY,
        "library": LIBRARY,
        "starts": len(starts),
        "started": starts[0]["time"],
        "last_step": last,
        "state": ends[-1].get("state") or ("finished" if last >= num_steps else "running"),
    }
    if "error" in ends[-1]:
        attributes["error"] = ends[-1]["error"]
    for field in TASK_FIELDS:
        if attributes.get(field) and "task" not in attributes:
            attributes["task"] = attributes[field]
    recorded = attributes.keys() - {"task", "tag"}
    for field in recorded & notes.keys():
        if notes[field] != attributes[field]:
            raise ValueError(
                f"{folder}: a {NOTES} says {field} is {notes[field]!r} and the run recorded {attributes[field]!r}"
            )
    seeds = range(first, first + count)
    columns = tuple(starts[0].get("runs") or ({"seed": seed} for seed in seeds))
    swept = {field for column in columns for field in column}
    attributes = {field: value for field, value in {**attributes, **notes}.items() if field not in (*swept, *HINTS)}
    return Run(name, attributes, columns, functools.partial(_read_own, folder / METRICS, len(columns)))


def _provenance(starts: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """What the starts of a run recorded; a value that changed between them is all its values, in order."""
    recorded = []
    for start in starts:
        kept = {name: start.get(name, {}) for name in RECORDED}
        recorded.append(flat(kept) | {"python": start["python"], "command": " ".join(map(str, start["command"]))})
    merged = {}
    for field in sorted({field for start in recorded for field in start}):
        values = list(dict.fromkeys(_text(start[field]) for start in recorded if field in start))
        value = next(start[field] for start in recorded if field in start)
        merged[field] = value if len(values) == 1 else " -> ".join(values)
    return merged


def _text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)


def _read_own(path: Path, num_runs: int) -> list[Series]:
    return read_metrics_file(path, num_runs) if path.exists() else []


def _event_runs(
    folder: Path, events: Sequence[Path], name: str, notes: Mapping[str, Any]
) -> list[tuple[Path, Run]]:
    """The runs of a folder's event files; what a single file holds is read when it is asked for."""
    loads: list[Callable[[], list[Series]]] = [lambda: next(iter(read_events(events)), [])]
    if len(events) > 1:
        loads = [functools.partial(list, series) for series in read_events(events) or [[]]]
    pairs = []
    for number, load in enumerate(loads, start=1):
        own = f" ({number})" if number > 1 else ""
        run = _foreign_run(f"{name}{own}", notes, "tensorboard", load, folder, folder.name)
        pairs.append((folder / own.strip(), run))
    return pairs


def _export_runs(paths: Sequence[Path], notes: Mapping[str, Any], prefix: str) -> list[tuple[Path, Run]]:
    """The runs that the files of one folder hold, each with its place; W&B exports a chart for every metric."""
    step = [notes["step_field"]] if "step_field" in notes else []
    pairs: list[tuple[Path, Run]] = []
    charts: dict[tuple[str, int], dict[str, tuple[Path, Series]]] = {}
    for path in paths:
        if path.suffix == ".parquet":
            pairs += [(path / run.name, run) for run in read_table(path)]
        if path.suffix not in (".csv", ".json", ".jsonl") or path.name == NOTES:
            continue
        chart = read_chart(path, *step) if path.suffix == ".csv" else None
        for (name, place), all_series in (chart or {}).items():
            known = charts.setdefault((name, place), {})
            for series in all_series:
                if series.metric in known:
                    raise ValueError(f"{known[series.metric][0]} and {path} both have {series.metric} of {name}")
                known[series.metric] = path, series
        history = read_history(path, *step) if chart is None else None
        if history is not None:
            load = functools.partial(list, history)
            pairs.append((path, _foreign_run(f"{prefix}{path.stem}", notes, "wandb", load, path, path.stem)))
    for (name, place), known in charts.items():
        path = next(iter(known.values()))[0]
        load = functools.partial(list, [series for _, series in known.values()])
        own = f"{name} ({place + 1})" if place else name
        pairs.append((path.parent / own, _foreign_run(f"{prefix}{own}", notes, "wandb", load, path, name)))
    return pairs


def _foreign_run(
    name: str, notes: Mapping[str, Any], source: str, load: Callable[[], list[Series]], path: Path, own_name: str
) -> Run:
    """A run of another library: all that is known of it is what its run.json and the pattern of its own name say."""
    attributes = {field: value for field, value in notes.items() if field not in HINTS}
    attributes["source"] = source
    pattern = notes.get("run_name")
    if pattern:
        fields = re.findall(r"\{([^{}]+)\}", pattern)
        if reserved := sorted(set(COLUMNS) & set(fields) - {"seed"}):
            raise ValueError(f"{path}: {reserved[0]!r} in the run_name of its {NOTES} is a name of the table itself")
        groups = [r"(\d+)" if field == "seed" else "(.+?)" for field in fields]
        parts = [re.escape(part) for part in re.split(r"\{[^{}]+\}", pattern)]
        match = re.fullmatch("".join(part + group for part, group in zip(parts, [*groups, ""], strict=True)), own_name)
        if match is None:
            raise ValueError(f"{path}: the run {own_name!r} does not read as {pattern!r}, the run_name of its {NOTES}")
        attributes |= dict(zip(fields, match.groups(), strict=True))
    seed = attributes.pop("seed", None)
    if seed is not None and not re.fullmatch(r"\d{1,18}", str(seed), re.ASCII):
        raise ValueError(f"{path}: a {NOTES} says its seed is {seed!r}, not a whole number")
    return Run(name, attributes, ({"seed": None if seed is None else int(seed)},), load)
