"""What ran: the record that makes a run's folder describe itself.

`config.json` is the run's configuration; `provenance.json` says with which command, code, packages, devices and data
it ran, one entry for every time that the run was started.
"""

import importlib.metadata
import json
import platform
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
from ml_collections import ConfigDict

PACKAGES = ("jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "chex", "numpy", "gymnasium", "mujoco")
# May change between two starts of one run: how long it trains, how often it looks, where it lies.
MAY_CHANGE = (
    "num_steps", "loop", "checkpoint", "mesh", "sharding_rules", "distributed", "tensorboard", "wandb_project",
)  # fmt: skip


def write_atomically(path: Path, text: str) -> None:
    """Writes a text file under a temporary name and renames it: a reader never sees half of it."""
    temporary = path.with_name(f".{path.name}.tmp")
    temporary.write_text(text)
    temporary.replace(path)


def plain_config(config: ConfigDict) -> dict[str, Any]:
    """The configuration as JSON holds it."""
    return json.loads(config.to_json_best_effort())


def check_same_run(workdir: Path, config: ConfigDict) -> None:
    """Raises ValueError naming the fields in which the run already in `workdir` was configured otherwise."""
    path = workdir / "config.json"
    if not path.exists():
        return
    old, new = _flat(json.loads(path.read_text())), _flat(plain_config(config))
    changed = [
        f"{name}: {old.get(name, 'absent')!r} there, {new.get(name, 'absent')!r} here"
        for name in sorted(old | new)
        if old.get(name) != new.get(name) and name.split(".")[0] not in MAY_CHANGE
    ]
    if changed:
        raise ValueError(
            f"{workdir} holds a run with another config ({'; '.join(changed)}): use its config, or another --workdir"
        )


def _flat(tree: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    flat = {}
    for name, value in tree.items():
        flat |= _flat(value, f"{prefix}{name}.") if isinstance(value, Mapping) else {prefix + name: value}
    return flat


def record(workdir: Path, config: ConfigDict, step: int, extra: Mapping[str, Any]) -> None:
    """Writes config.json and adds this start to provenance.json.

    Args:
      step: where this start begins.
      extra: what the paper adds, e.g. the data set's name and checksum.

    Raises:
      ValueError: `extra` differs from what the run's first start recorded (another data set under the same name).
    """
    path = workdir / "provenance.json"
    starts = json.loads(path.read_text())["starts"] if path.exists() else []
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
            "time": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
            "step": step,
            "command": [Path(sys.executable).name, *sys.argv],
            "git": _git(),
            "python": platform.python_version(),
            "packages": {name: version for name in PACKAGES if (version := _version(name))},
            "devices": {
                "kind": jax.devices()[0].device_kind, "platform": jax.default_backend(),
                "count": jax.device_count(), "processes": jax.process_count(),
            },
            "inputs": extra,
        }
    )  # fmt: skip
    write_atomically(workdir / "config.json", json.dumps(plain_config(config), indent=1) + "\n")
    write_atomically(path, json.dumps({"starts": starts}, indent=1) + "\n")


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
