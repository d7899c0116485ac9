"""A file of made-up Hopper transitions in D4RL's layout, and the fields of a configuration that reads it."""

from pathlib import Path
from typing import Any

import h5py
import numpy as np

ENDS = (119, 259, 399)  # of three episodes; the last one by time


def write_d4rl(folder: Path) -> dict[str, Any]:
    """Writes the file: observations far from standardised, random actions, rewards in [0, 3]."""
    rng = np.random.default_rng(0)
    size = ENDS[-1] + 1
    observations = rng.normal(3.0, 5.0, size=(size + 1, 11)).astype(np.float32)
    with h5py.File(folder / "hopper.hdf5", "w") as file:
        file["observations"], file["next_observations"] = observations[:-1], observations[1:]
        file["actions"] = rng.uniform(-0.9, 0.9, size=(size, 3)).astype(np.float32)
        file["rewards"] = rng.uniform(0, 3, size=size).astype(np.float32)
        file["terminals"] = np.isin(np.arange(size), ENDS[:2])
        file["timeouts"] = np.arange(size) == ENDS[2]
    return {
        "dataset.path": str(folder / "hopper.hdf5"), "dataset.env_id": "Hopper-v4", "dataset.name": "mine",
        "dataset.data_dir": str(folder / "data"), "dataset.num_steps": 0,
    }
