"""Reader of HDF5 files in the layout of D4RL (Fu et al. 2020, arXiv 2004.07219)."""

from pathlib import Path

import numpy as np
from absl import logging

from rl_jax.core.extras import require
from rl_jax.data.episodes import Episodes, starts_from_ends
from rl_jax.data.readers.fields import flat_flags, flat_steps, require_fields

TIME_LIMIT = 1000  # of D4RL's locomotion tasks, for files that say neither `timeouts` nor `next_observations`
TASKS = {"hopper": "Hopper-v4", "halfcheetah": "HalfCheetah-v4", "walker2d": "Walker2d-v4", "ant": "Ant-v4"}
FIELDS = ("observations", "actions", "rewards", "terminals", "timeouts", "next_observations")


def is_d4rl_hdf5(path: Path) -> bool:
    """Whether `path` has the suffix of an HDF5 file."""
    return path.suffix.lower() in (".hdf5", ".h5")


def read_d4rl_hdf5(path: Path) -> tuple[Episodes, dict]:
    """Reads flat arrays observations, actions, rewards, terminals and, if there, timeouts and next_observations.

    Without next_observations the successor of an episode's last step is not in the file: as D4RL does, the last step of
    an episode that time or the file breaks off is dropped, and a terminal step keeps its own observation as a stand-in,
    which its mask hides. With next_observations every step is kept, and a step whose successor is not the next step's
    observation ends its episode even if no flag says so.

    Returns:
      The episodes and {"env_id": ...}, guessed from the file's name, "" if it tells nothing.
    """
    h5py = require("h5py", "datasets")
    try:
        with h5py.File(path, "r") as file:
            require_fields(str(path), file, FIELDS[:4])
            arrays = {field: file[field][()] for field in FIELDS if field in file}
    except OSError as error:  # not HDF5, cut off, or a damaged chunk
        raise ValueError(f"{path}: not a readable HDF5 file (damaged or cut off?): {error}") from error
    steps = flat_steps(str(path), arrays)
    size = len(steps["rewards"])
    if size < 2:
        raise ValueError(f"{path}: field 'observations' has {size} steps, expected at least 2")
    terminated = flat_flags(str(path), "terminals", arrays["terminals"], size)
    timeouts = flat_flags(str(path), "timeouts", arrays["timeouts"], size) if "timeouts" in arrays else None
    if "next_observations" in steps:
        episodes = _with_successors(path, steps, terminated, timeouts)
    else:
        if timeouts is None:
            timeouts = _count_timeouts(terminated)
        episodes = _without_successors(steps, terminated, timeouts & ~terminated)
    if not len(episodes):
        raise ValueError(f"{path}: no episode has two steps, so no step has a known successor")
    task = path.stem.lower().replace("-", "_").split("_")[0]
    return episodes, {"env_id": TASKS.get(task, "")}


def _with_successors(path: Path, steps: dict, terminated: np.ndarray, timeouts: np.ndarray | None) -> Episodes:
    jumps = np.ones(len(terminated), bool)
    jumps[:-1] = (steps["next_observations"][:-1] != steps["observations"][1:]).any(axis=1)
    ends = terminated | jumps if timeouts is None else terminated | timeouts | jumps
    if timeouts is not None:
        unflagged = (jumps & ~terminated & ~timeouts)[:-1]
        if unflagged.any():
            logging.warning("%s: %d steps (first: %d) are not followed by their next_observations and carry no flag: "
                            "their episodes end there", path, unflagged.sum(), int(np.argmax(unflagged)))
    return Episodes(**steps, terminated=terminated, truncated=ends & ~terminated, starts=starts_from_ends(ends))


def _without_successors(steps: dict, terminated: np.ndarray, timeouts: np.ndarray) -> Episodes:
    dropped = timeouts.copy()
    dropped[-1] |= not terminated[-1]
    successors = steps["observations"].copy()
    successors[:-1][~terminated[:-1]] = steps["observations"][1:][~terminated[:-1]]
    truncated = np.zeros_like(terminated)
    truncated[:-1] = dropped[1:] & ~terminated[:-1]
    kept = {field: array[~dropped] for field, array in {**steps, "next_observations": successors}.items()}
    terminated, truncated = terminated[~dropped], truncated[~dropped]
    return Episodes(**kept, terminated=terminated, truncated=truncated, starts=starts_from_ends(terminated | truncated))


def _count_timeouts(terminated: np.ndarray) -> np.ndarray:
    """Time-outs [N] at every TIME_LIMIT-th step since the last end."""
    timeouts = np.zeros_like(terminated)
    start = 0
    for end in np.append(np.flatnonzero(terminated), len(terminated)):
        timeouts[start + TIME_LIMIT - 1:end:TIME_LIMIT] = True
        start = end + 1
    return timeouts
