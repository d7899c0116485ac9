"""Reader of HDF5 files in the layout of D4RL (Fu et al. 2020, arXiv 2004.07219)."""

from pathlib import Path

import numpy as np

from rl_jax.core.arrays import readable
from rl_jax.data.adroit.sets import ENV_ID as DOOR
from rl_jax.data.episodes import Episodes, starts_from_ends
from rl_jax.data.pointmaze.sets import EPISODE_STEPS
from rl_jax.data.readers.fields import flat_flags, flat_steps, require_fields
from rl_jax.data.readers.hdf5 import open_hdf5, read_fields

TIME_LIMIT = 1000  # of D4RL's locomotion tasks, for files that say neither `timeouts` nor `next_observations`
TASKS = {"hopper": "Hopper-v4", "halfcheetah": "HalfCheetah-v4", "walker2d": "Walker2d-v4", "ant": "Ant-v4"}
FIELDS = ("observations", "actions", "rewards", "terminals")
# What says where an episode ends that the environment did not end: D4RL's name, d4rlpy's, and Gymnasium's words.
TIMEOUTS = ("timeouts", "episode_terminals", "truncations", "truncated")


def is_d4rl_hdf5(path: Path) -> bool:
    """Whether `path` has the suffix of an HDF5 file."""
    return path.suffix.lower() in (".hdf5", ".h5")


def read_d4rl_hdf5(path: Path) -> tuple[Episodes, dict]:
    """Reads flat arrays observations, actions, rewards, terminals and, if there, one of TIMEOUTS and next_observations.

    Without next_observations the successor of an episode's last step is not in the file: as D4RL does, the last step of
    an episode that time or the file breaks off is dropped, and a terminal step keeps its own observation as a stand-in,
    which its mask hides. With next_observations every step is kept, and a step whose successor is not the next step's
    observation ends its episode even if no flag says so.

    Returns:
      The episodes and {"env_id": ..., "remarks": [...]}: the task, guessed from the file's name, "" if it tells
      nothing; and a sentence about each thing that was guessed.
    """
    name, remarks = str(path), []
    with open_hdf5(path) as file:
        arrays = read_fields(name, file, (*FIELDS, *TIMEOUTS, "next_observations"))
        with readable(name, "HDF5 file"):
            present = [*arrays, *map(str, file)]
    require_fields(name, present, FIELDS)
    require_fields(name, arrays, FIELDS)  # a damaged index may list a field that cannot be found
    for field, array in arrays.items():
        if isinstance(array, dict):
            raise ValueError(f"{name}: field {field!r} is a group, expected an array; D4RL's layout is flat")
    steps = flat_steps(name, arrays)
    size = len(steps["rewards"])
    if size < 2:
        raise ValueError(f"{path}: field 'observations' has {size} steps, expected at least 2")
    terminated = flat_flags(name, "terminals", arrays["terminals"], size)
    flags = [flat_flags(name, field, arrays[field], size) for field in TIMEOUTS if field in arrays]
    timeouts = np.logical_or.reduce(flags) if flags else None
    if "next_observations" in steps:
        episodes = _with_successors(steps, terminated, timeouts, remarks)
    else:
        if timeouts is None:
            timeouts = _count_timeouts(terminated)
            remarks.append(
                f"no field says where time ends episodes ({', '.join(TIMEOUTS)}): guessed after every {TIME_LIMIT} "
                f"steps of one, {timeouts.sum()} times, and at the file's end"
            )
        episodes = _without_successors(steps, terminated, timeouts & ~terminated)
    if not len(episodes):
        raise ValueError(f"{path}: no episode has two steps, so no step has a known successor")
    env_id = _task(path.stem.lower().replace("-", "_").split("_"))
    if env_id:
        remarks.append(f"its task is guessed from the file's name, {env_id}: --config.dataset.env_id names another")
    return episodes, {"env_id": env_id, "remarks": remarks}


def _task(words: list[str]) -> str:
    """Of a file's name such as hopper_medium-v2, or maze2d-umaze-sparse-v1, whose task has a reward; "" if unknown."""
    if words[0] == "door" and words[1:2] in (["human"], ["cloned"], ["expert"]):  # door_opening is another task
        return DOOR
    maze = "-".join(word for word in words if word != "sparse")
    return maze if maze in EPISODE_STEPS else TASKS.get(words[0], "")


def _with_successors(
    steps: dict, terminated: np.ndarray, timeouts: np.ndarray | None, remarks: list[str]
) -> Episodes:
    jumps = np.ones(len(terminated), bool)
    jumps[:-1] = (steps["next_observations"][:-1] != steps["observations"][1:]).any(axis=1)
    flagged = terminated if timeouts is None else terminated | timeouts
    unflagged = (jumps & ~flagged)[:-1]
    if unflagged.any():
        remarks.append(f"{unflagged.sum()} steps (first: {int(np.argmax(unflagged))}) are not followed by their "
                       "next_observations and carry no flag: guessed that their episodes end there, by time")
    ends = flagged | jumps
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
