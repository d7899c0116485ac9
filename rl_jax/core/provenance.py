"""What ran: the record that makes a run's folder describe itself.

`config.json` is the run's configuration; `provenance.json` says with which command, code, packages, devices and data
it ran, one entry for every time that the run was started, and how each start ended. A start without an end is still
under way, or its process was killed.
"""

import importlib.metadata
import json
import os
import platform
import subprocess
import sys
from collections.abc import Mapping
from datetime import datetime
from pathlib import Path
from typing import Any

import jax
import psutil
from ml_collections import ConfigDict

from rl_jax.core.config import core_config, flat
from rl_jax.core.files import read_object, write_atomically
from rl_jax.core.runtime import Preempted
from rl_jax.core.sweep import labels

PACKAGES = ("jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "chex", "numpy", "gymnasium", "mujoco")
# May change between two starts of one run: how long it trains, how often it looks, where it lies.
MAY_CHANGE = (
    "num_steps", "loop", "checkpoint", "mesh", "sharding_rules", "resident_rules", "distributed", "profile",
    "tensorboard", "wandb_project",
)


def plain_config(config: ConfigDict) -> dict[str, Any]:
    """The configuration as JSON holds it."""
    return json.loads(config.to_json_best_effort())


def check_same_run(workdir: Path, config: ConfigDict) -> None:
    """Raises ValueError naming the fields in which the run already in `workdir` was configured otherwise."""
    path = workdir / "config.json"
    if not path.exists():
        return
    # What an older release did not know had no effect: the core's defaults have none either, nor has what is empty.
    old, new = flat(plain_config(core_config())) | flat(read_object(path)), flat(plain_config(config))
    changed = [
        f"{name}: {old.get(name, 'absent')!r} there, {new.get(name, 'absent')!r} here"
        for name in sorted(old | new)
        if old.get(name) != new.get(name) and name.split(".")[0] not in MAY_CHANGE
        and (name in old or new[name] not in ("", []))
    ]
    if changed:
        raise ValueError(
            f"{workdir} holds a run with another config ({'; '.join(changed)}): use its config, or another --workdir"
        )


def read_starts(path: Path) -> list[dict[str, Any]]:
    """The starts that a provenance.json records, at least one.

    Raises:
      ValueError: the file is damaged.
    """
    starts = read_object(path).get("starts")
    if not isinstance(starts, list) or not starts or not all(isinstance(start, dict) for start in starts):
        raise ValueError(f"{path} is damaged, it lists no starts: restore it from a copy, or use another --workdir")
    for start in starts:
        for name, found in (("inputs", start.get("inputs")), ("end", start.get("end", {}))):
            if not isinstance(found, dict):
                raise ValueError(
                    f"{path} is damaged, the {name} of a start is {found!r}: restore it from a copy, or use another "
                    "--workdir"
                )
    return starts


def _time(path: Path, start: Mapping[str, Any]) -> datetime:
    try:
        return datetime.fromisoformat(start["time"]).astimezone()
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(
            f"{path} is damaged, the time of a start is {start.get('time')!r}: restore it from a copy, or use another "
            "--workdir"
        ) from error


def record(workdir: Path, config: ConfigDict, step: int, extra: Mapping[str, Any]) -> float:
    """Writes config.json and adds this start to provenance.json.

    Args:
      step: where this start begins.
      extra: what the paper adds, e.g. the data set's name and checksum.

    Returns:
      The seconds since the run's first start.

    Raises:
      ValueError: `extra` differs from what the run's first start recorded (another data set under the same name).
    """
    path = workdir / "provenance.json"
    starts = read_starts(path) if path.exists() else []
    begin = _time(path, starts[0]) if starts else None
    extra = json.loads(json.dumps(dict(extra)))
    for start in starts[:1]:
        for name, value in start["inputs"].items():
            if name in extra and extra[name] != value:
                raise ValueError(
                    f"{workdir} was trained on {name} = {value!r} and this start has {extra[name]!r}: "
                    "use the same inputs, or another --workdir"
                )
    starts.append(
        {
            "time": _now(),
            "step": step,
            "command": [Path(sys.executable).name, *sys.argv],
            "git": _git(),
            "python": platform.python_version(),
            "packages": {name: version for name in PACKAGES if (version := _version(name))},
            "devices": {
                "kind": jax.devices()[0].device_kind, "platform": jax.default_backend(),
                "count": jax.device_count(), "processes": jax.process_count(),
            },
            "machine": {
                "system": platform.platform(), "cores": os.cpu_count(),
                "memory_gb": round(psutil.virtual_memory().total / 1e9, 1),
            },
            "inputs": extra,
            # Seed and swept fields of every column of metrics.jsonl.
            "runs": labels(config),
        }
    )
    write_atomically(workdir / "config.json", json.dumps(plain_config(config), indent=1) + "\n")
    write_atomically(path, json.dumps({"starts": starts}, indent=1) + "\n")
    now = _time(path, starts[-1])
    return max(0.0, (now - (begin or now)).total_seconds())


def record_end(workdir: Path, step: int, error: BaseException | None, seconds: Mapping[str, float]) -> None:
    """Adds to the newest start how it ended: finished, preempted (saved, to be started again) or failed.

    Args:
      step: the last one reached.
      error: what ended it; None for a run that reached its end.
      seconds: what the time went on, by name.
    """
    path = workdir / "provenance.json"
    starts = read_starts(path)
    state = "finished" if error is None else "preempted" if isinstance(error, Preempted) else "failed"
    end = {"time": _now(), "state": state, "step": step, "seconds": dict(seconds)}
    if state == "failed":
        end["error"] = f"{type(error).__name__}: {error}"
    starts[-1]["end"] = end
    write_atomically(path, json.dumps({"starts": starts}, indent=1) + "\n")


def _now() -> str:
    return datetime.now().astimezone().isoformat(timespec="milliseconds")


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def _git() -> dict[str, Any]:
    """Revision of the code and whether its tree was clean; empty outside a git checkout."""
    root = Path(__file__).parent

    def git(*args: str) -> str:
        return subprocess.run(["git", *args], cwd=root, capture_output=True, text=True, check=True).stdout.strip()

    try:
        return {"revision": git("rev-parse", "HEAD"), "clean": not git("status", "--porcelain")}
    except (OSError, subprocess.CalledProcessError):
        return {}
