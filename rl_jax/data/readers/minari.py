"""Reader of data set folders written by Minari (https://minari.farama.org)."""

import json
from pathlib import Path

import numpy as np

from rl_jax.core.extras import require
from rl_jax.data.episodes import Episodes, concatenate_episodes
from rl_jax.data.readers.fields import flat_flags, require_fields, to_float32

EPISODE_FIELDS = ("observations", "actions", "rewards", "terminations", "truncations")


def is_minari(path: Path) -> bool:
    """Whether `path` is a Minari data set folder or the `data` folder inside one."""
    return _data_folder(path) is not None


def read_minari(path: Path) -> tuple[Episodes, dict]:
    """Reads every episode; a dictionary of observations is flattened in the order of its keys, as Gymnasium does.

    The HDF5 format is read with h5py alone, any other through Minari's own library. An episode that ends without a flag
    counts as truncated.

    Returns:
      The episodes and {"env_id": ...} ("" if the set does not name its environment).
    """
    folder = _data_folder(path)
    try:
        metadata = json.loads((folder / "metadata.json").read_text())
        env_spec = json.loads(metadata.get("env_spec") or "{}")
    except ValueError as error:
        raise ValueError(f"{folder / 'metadata.json'}: not readable JSON: {error}") from error
    if metadata.get("data_format", "hdf5") == "hdf5":
        parts = _read_hdf5(folder / "main_data.hdf5")
    else:
        minari = require("minari", "datasets")
        parts = [
            _episode(f"{path}, episode {episode.id}", {field: getattr(episode, field) for field in EPISODE_FIELDS})
            for episode in minari.MinariDataset(folder).iterate_episodes()
        ]
    if not parts:
        raise ValueError(f"{path}: the data set has no episodes")
    expected = metadata.get("total_episodes")
    if expected is not None and int(expected) != len(parts):
        raise ValueError(f"{path}: metadata.json names {int(expected)} episodes, the data hold {len(parts)} (cut off?)")
    return concatenate_episodes(parts), {"env_id": str((env_spec or {}).get("id") or "")}


def _data_folder(path: Path) -> Path | None:
    for folder in (path / "data", path):
        if (folder / "metadata.json").is_file() and not (folder / "dataset_info.json").is_file():
            return folder
    return None


def _read_hdf5(file_path: Path) -> list[Episodes]:
    h5py = require("h5py", "datasets")
    if not file_path.is_file():
        raise FileNotFoundError(f"{file_path}: no such file; a Minari set keeps its episodes there")
    try:
        with h5py.File(file_path, "r") as file:
            names = sorted((name for name in file if name.startswith("episode_")), key=lambda name: int(name[8:]))
            parts = []
            for name in names:
                where = f"{file_path}, {name}"
                require_fields(where, file[name], EPISODE_FIELDS)
                parts.append(_episode(where, {field: _load(file[name][field]) for field in EPISODE_FIELDS}))
    except OSError as error:
        raise ValueError(f"{file_path}: not a readable HDF5 file (damaged or cut off?): {error}") from error
    return parts


def _load(node):
    """The array of an HDF5 data set, or the dictionary of a group."""
    return {key: _load(node[key]) for key in node} if hasattr(node, "keys") else node[()]


def _flatten(where: str, field: str, value) -> np.ndarray:
    """A [T, ...] array, or a dictionary of them, as one [T, D] array."""
    if isinstance(value, dict):
        return np.concatenate([_flatten(where, f"{field}/{key}", value[key]) for key in sorted(value)], axis=-1)
    if isinstance(value, tuple):
        return np.concatenate([_flatten(where, f"{field}/{i}", item) for i, item in enumerate(value)], axis=-1)
    array = to_float32(where, field, np.asarray(value))
    return array.reshape(len(array), -1)


def _episode(where: str, fields: dict) -> Episodes:
    actions = _flatten(where, "actions", fields["actions"])
    observations = _flatten(where, "observations", fields["observations"])
    length = len(actions)
    if len(observations) != length + 1:
        raise ValueError(f"{where}: field 'observations' has {len(observations)} steps, expected {length + 1}, one "
                         f"more than 'actions'")
    rewards = to_float32(where, "rewards", np.asarray(fields["rewards"]))
    if rewards.shape != (length,):
        raise ValueError(f"{where}: field 'rewards' has shape {rewards.shape}, expected ({length},)")
    terminated = flat_flags(where, "terminations", np.asarray(fields["terminations"]), length)
    truncated = flat_flags(where, "truncations", np.asarray(fields["truncations"]), length)
    truncated &= ~terminated
    truncated[-1] |= not terminated[-1]
    return Episodes(
        observations=observations[:-1],
        actions=actions,
        rewards=rewards,
        terminated=terminated,
        truncated=truncated,
        next_observations=observations[1:],
        starts=np.zeros(1, np.int64),
    )
