"""Reader of data set folders written by Minari (https://minari.farama.org)."""

import json
from pathlib import Path
from typing import Any

from rl_jax.core.arrays import readable
from rl_jax.core.extras import require
from rl_jax.core.files import read_object
from rl_jax.data.episodes import Episodes
from rl_jax.data.readers.fields import episode, join, require_fields
from rl_jax.data.readers.hdf5 import open_group, open_hdf5, read_fields

# Minari's names of the fields of an episode.
NAMES = {
    "observations": "observations", "actions": "actions", "rewards": "rewards", "terminated": "terminations",
    "truncated": "truncations",
}
# Of a recorded environment specification, what is read besides its id.
SPEC = ("kwargs", "max_episode_steps", "additional_wrappers")


def is_minari(path: Path) -> bool:
    """Whether `path` is a Minari data set folder or the `data` folder inside one."""
    return _data_folder(path) is not None


def read_minari(path: Path) -> tuple[Episodes, dict]:
    """Reads every episode; a dictionary of observations becomes one vector, in the order of its sorted keys.

    The HDF5 format is read with h5py alone, any other through Minari's own library. An episode that ends without a flag
    counts as truncated.

    Returns:
      The episodes and {"env_id": ..., "env_spec": ...}: the id, "" if the set does not name its environment, and what
      else it records of it, by the names of SPEC.
    """
    folder = _data_folder(path)
    metadata_path = folder / "metadata.json"
    metadata = read_object(metadata_path)
    with readable(str(metadata_path), "metadata of a Minari set", "env_spec"):
        spec = json.loads(metadata.get("env_spec") or "{}") or {}
        env_id, env_spec = str(spec.get("id") or ""), {name: spec[name] for name in SPEC if spec.get(name)}
    with readable(str(metadata_path), "metadata of a Minari set", "total_episodes"):
        expected = metadata.get("total_episodes")
        expected = None if expected is None else int(expected)
    if metadata.get("data_format", "hdf5") == "hdf5":
        parts = _read_hdf5(folder / "main_data.hdf5")
    else:
        parts = _read_by_library(path, folder)
    if not parts:
        raise ValueError(f"{path}: the data set has no episodes")
    if expected is not None and expected != len(parts):
        raise ValueError(f"{path}: metadata.json names {expected} episodes, the data hold {len(parts)} (cut off?)")
    return join(str(path), parts), {"env_id": env_id, "env_spec": env_spec}


def _data_folder(path: Path) -> Path | None:
    for folder in (path / "data", path):
        if (folder / "metadata.json").is_file() and not (folder / "dataset_info.json").is_file():
            return folder
    return None


def _read_hdf5(path: Path) -> list[Episodes]:
    parts = []
    with open_hdf5(path) as file:
        with readable(str(path), "HDF5 file"):
            names = sorted((name for name in file if name.startswith("episode_")), key=lambda name: int(name[8:]))
        for name in names:
            where = f"{path}, {name}"
            arrays = read_fields(where, open_group(str(path), file, name), tuple(NAMES.values()))
            require_fields(where, arrays, NAMES.values())
            parts.append(_episode(where, arrays))
    return parts


def _read_by_library(path: Path, folder: Path) -> list[Episodes]:
    minari = require("minari", "datasets")
    with readable(str(path), "Minari set"):
        stored = list(minari.MinariDataset(folder).iterate_episodes())
    return [
        _episode(f"{path}, episode {one.id}", {name: getattr(one, name) for name in NAMES.values()}) for one in stored
    ]


def _episode(where: str, arrays: dict[str, Any]) -> Episodes:
    return episode(where, NAMES, {ours: _tuples(arrays[theirs]) for ours, theirs in NAMES.items()})


def _tuples(value: Any) -> Any:
    """The same nest with tuples where Minari stored them: as groups of `_index_0`, `_index_1`, ..."""
    if not isinstance(value, dict):
        return value
    inner = {key: _tuples(one) for key, one in value.items()}
    if inner and inner.keys() == {f"_index_{number}" for number in range(len(inner))}:
        return tuple(inner[f"_index_{number}"] for number in range(len(inner)))
    return inner
