"""Files of tabular MDPs and of what their states look like, and the MDPs of BRIDGE that are shipped here.

BRIDGE: Laidlaw, Russell and Dragan 2023, arXiv 2304.09853. `bridge/SOURCE.md` describes the files.
"""

import os
from pathlib import Path

import numpy as np

from rl_jax.core.arrays import read_arrays
from rl_jax.core.files import atomically
from rl_jax.tabular.mdp import TERMINAL, Screens, TabularMDP, check_mdp

BRIDGE_DIR = Path(__file__).parent / "bridge"
# Horizons of the BRIDGE MDPs shipped here; their files do not hold them.
BRIDGE = {
    "MiniGrid-Empty-16x16-DistanceShaped-v0": 100,
    "MiniGrid-KeyCorridorS3R1-v0": 100,
    "MiniGrid-UnlockPickup-OpenDoorsPickupShaped-v0": 100,
    "freeway_10_fs30": 10,
    "freeway_10_fs30_framestack": 10,
    "maze_easy_l0_30_fs1": 30,
}
# Those that come with an exploration policy of the authors, and its file.
BRIDGE_EXPLORATION = {
    "freeway_10_fs30_framestack": "freeway_10_fs30_exploration_policy",
    "maze_easy_l0_30_fs1": "maze_easy_l0_30_fs1_exploration_policy",
}


def load_mdp(path: str | os.PathLike, horizon: int | None = None) -> TabularMDP:
    """Reads the MDP of an npz file with `transitions`, `rewards` and, if `save_mdp` wrote it, `horizon`.

    Args:
      horizon: steps of an episode; without it the file's own, or that of the BRIDGE MDP of the file's name.

    Raises:
      FileNotFoundError or ValueError: the message names the file, the field and the remedy.
    """
    arrays = _read(path, ("transitions", "rewards"), ("horizon",))
    if horizon is None:
        horizon = arrays["horizon"].item() if "horizon" in arrays else BRIDGE.get(Path(path).stem)
    if horizon is None:
        endless = "" if (arrays["transitions"] == TERMINAL).any() else " and no transition ends an episode"
        raise ValueError(f"{path}: the file has no horizon{endless}: give the number of steps as horizon")
    return check_mdp(TabularMDP(arrays["transitions"], arrays["rewards"], horizon), str(path))


def load_screens(path: str | os.PathLike) -> Screens:
    """Reads the images of an npz file with `screens` and `screen_mapping`; errors as those of `load_mdp`."""
    arrays = _read(path, ("screens", "screen_mapping"))
    images, of_state = arrays["screens"], arrays["screen_mapping"]
    if images.dtype != np.uint8 or images.ndim not in (3, 4):
        raise ValueError(
            f"{path}: screens is {images.dtype} {images.shape}: store uint8 [images, height, width(, channels)]"
        )
    if of_state.ndim not in (1, 2) or not np.issubdtype(of_state.dtype, np.integer):
        raise ValueError(f"{path}: screen_mapping is {of_state.dtype} {of_state.shape}: store integers [states]")
    if of_state.size and not (0 <= of_state.min() and of_state.max() < len(images)):
        index = np.argwhere((of_state < 0) | (of_state >= len(images)))[0]
        raise ValueError(
            f"{path}: screen_mapping{index.tolist()} is {of_state[tuple(index)]}: use 0 to {len(images) - 1}, "
            "the images of `screens`"
        )
    return Screens(images, of_state.astype(np.int32))


def _read(path: str | os.PathLike, needed: tuple[str, ...], optional: tuple[str, ...] = ()) -> dict[str, np.ndarray]:
    """Reads the named arrays of an npz file; those that are optional may be missing."""
    try:
        arrays = read_arrays(path, (*needed, *optional))
    except FileNotFoundError as error:
        raise FileNotFoundError(f"{path}: no such file: give an npz file with transitions and rewards") from error
    except ValueError as error:
        raise ValueError(f"{error}: write it again with save_mdp") from error
    for name in needed:
        if name not in arrays:
            names = list(read_arrays(path))
            there = ", ".join(names[:6] + ["..."] * (len(names) > 6)) or "none"
            raise ValueError(f"{path}: no array {name!r}, it has {there}: add it")
    return arrays


def save_mdp(path: str | os.PathLike, mdp: TabularMDP, screens: Screens | None = None) -> None:
    """Writes an npz file that `load_mdp` (and `load_screens`) reads; a file of that name is replaced as a whole."""
    mdp, path = check_mdp(mdp), Path(path)
    arrays = {"transitions": mdp.transitions, "rewards": mdp.rewards, "horizon": np.int32(mdp.horizon)}
    if screens is not None:
        arrays |= {"screens": screens.images, "screen_mapping": screens.of_state}
    path.parent.mkdir(parents=True, exist_ok=True)
    with atomically(path) as file:
        np.savez_compressed(file, **arrays)


def bridge_mdp(name: str) -> TabularMDP:
    """One of the BRIDGE MDPs shipped here; `BRIDGE` lists them."""
    return load_mdp(bridge_path(name))


def bridge_path(name: str) -> Path:
    """The file of a BRIDGE MDP that is shipped here.

    Raises:
      ValueError: there is none of this name; those that there are are listed.
    """
    if name not in BRIDGE:
        raise ValueError(f"no BRIDGE MDP {name!r} is shipped here: use one of {', '.join(BRIDGE)}, or a file's path")
    return BRIDGE_DIR / f"{name}.npz"


def bridge_exploration_policy(name: str) -> np.ndarray:
    """The authors' exploration policy of a BRIDGE MDP, float32 [T, S, A]; `BRIDGE_EXPLORATION` lists who has one."""
    if name not in BRIDGE_EXPLORATION:
        raise ValueError(f"no exploration policy of {name!r}: use one of {', '.join(BRIDGE_EXPLORATION)}")
    # The last state of the file is the terminal one, which an MDP here does not have.
    return _read(BRIDGE_DIR / f"{BRIDGE_EXPLORATION[name]}.npz", ("policy",))["policy"][:, :-1]
