"""`load_dataset`: any data set by name (the built-in sets) or by path (the format is found out from the files)."""

import dataclasses
import re
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from absl import logging

from rl_jax.core.config import unknown
from rl_jax.core.files import exclusive
from rl_jax.data.adroit import sets as adroit
from rl_jax.data.cache import content_checksum, files_checksum, open_cached, shared
from rl_jax.data.episodes import Episodes, check_episodes
from rl_jax.data.locomotion import sets as locomotion
from rl_jax.data.pointmaze import sets as pointmaze
from rl_jax.data.readers.d4rl_hdf5 import is_d4rl_hdf5, read_d4rl_hdf5
from rl_jax.data.readers.minari import is_minari, read_minari
from rl_jax.data.readers.npz import is_npz, read_npz
from rl_jax.data.readers.rlds import is_rlds, read_rlds
from rl_jax.data.writer import prepare

FAMILIES = {locomotion.FAMILY: locomotion.SETS, "pointmaze": pointmaze.SETS, "adroit": adroit.SETS}
BUILT_IN = tuple(f"{family}/{name}" for family, sets in FAMILIES.items() for name in sets)
READERS = (
    ("D4RL HDF5", is_d4rl_hdf5, read_d4rl_hdf5),
    ("npz", is_npz, read_npz),
    ("RLDS", is_rlds, read_rlds),
    ("Minari", is_minari, read_minari),
)


@dataclasses.dataclass(frozen=True)
class Dataset:
    """Episodes (read-only memory maps) with what a run records about them."""

    episodes: Episodes
    name: str
    env_id: str  # Gymnasium id of the task, "" if unknown
    checksum: str  # sha256 (hex) of the arrays' content: the same data give the same checksum in any format
    source: str  # one line: where the data come from
    # What else the data record of the task: kwargs, max_episode_steps and additional_wrappers of Gymnasium's EnvSpec.
    env_spec: Mapping[str, Any] = dataclasses.field(default_factory=dict)

    @property
    def inputs(self) -> dict[str, str]:
        """What a run that reads the set says of it in its provenance."""
        return {"dataset": self.name, "source": self.source, "checksum": self.checksum}

    @property
    def behaviour_returns(self) -> np.ndarray:
        """Returns that the task would have given to who recorded the data, one an episode of it: [at least 1] float64.

        They are those of the episodes that the task ended; of data that are one trajectory, cut at other steps than the
        task's limit, those of stretches of that many steps; of Adroit's demonstrations, which are longer than the task,
        those of their first steps.
        """
        if steps := pointmaze.EPISODE_STEPS.get(self.env_id):
            return self.episodes.stretch_returns(steps)
        if self.env_id == adroit.ENV_ID:
            logging.info("%s: as behaviour count the first %d steps of an episode", self.name, adroit.TIME_LIMIT)
            return self.episodes.returns_within(adroit.TIME_LIMIT)
        return self.episodes.complete_returns


def load_dataset(
    name: str, *, path: str = "", num_steps: int | None = None, seed: int = 0, data_dir: str = "~/.cache/rl_jax"
) -> Dataset:
    """Loads a built-in set by name, or any set on disk by `path`.

    The first load of a built-in set rolls it out (all cores); the first load of any set decodes it into an array cache.

    Args:
      name: a built-in set such as "locomotion-2/hopper-medium"; with `path`, a label. Where that is "" or the name of a
        built-in set, which the file is not, the set is called as its file or folder is.
      path: a D4RL HDF5 file, an npz file, an RLDS/TFDS folder or a Minari folder.
      num_steps: built-in: how many steps to make (None: the set's full size); with `path`: read only the first steps.
      seed: of a built-in set's roll-outs.
      data_dir: where built-in sets and the array cache live.

    Raises:
      ValueError: unknown name (naming near ones), unknown format, or damaged content (naming file, field and index).
      FileNotFoundError: `path` does not exist.

    What a reader guessed is logged as a warning at every load.
    """
    folder = Path(data_dir).expanduser()
    if path:
        return _load_path(name, Path(path).expanduser(), num_steps, folder)
    with shared(folder):
        return _load_builtin(name, num_steps, seed, folder)


def _load_builtin(name: str, num_steps: int | None, seed: int, folder: Path) -> Dataset:
    if name not in BUILT_IN:
        raise ValueError(f"{unknown('data set', name, BUILT_IN)} (a set on disk needs its path)")
    # Here because they import TFDS.
    from rl_jax.data.adroit.builder import Adroit
    from rl_jax.data.builder import make_builder
    from rl_jax.data.locomotion.builder import Locomotion
    from rl_jax.data.pointmaze.builder import Pointmaze

    family, set_name = name.split("/")
    family_builder = {locomotion.FAMILY: Locomotion, "pointmaze": Pointmaze, "adroit": Adroit}[family]
    builder = make_builder(family_builder, set_name, num_steps, seed, folder)
    set_folder = Path(builder.data_dir)
    if not set_folder.exists():
        with exclusive(folder / "locks" / f"{builder.builder_config.name}.lock"):
            if not set_folder.exists():  # nobody made it while this process waited
                for left_over in set_folder.parent.glob("incomplete.*"):  # of a process that was killed while it wrote
                    shutil.rmtree(left_over)
                prepare(builder)
    episodes, info = _decode_cached("RLDS", read_rlds, set_folder, folder, action_bound=1.0)
    return Dataset(episodes, name, info["env_id"], info["checksum"], f"made here: {builder.builder_config.description}")


def _load_path(name: str, path: Path, num_steps: int | None, folder: Path) -> Dataset:
    if not path.exists():
        raise FileNotFoundError(f"{path}: no such file or folder")
    for kind, fits, read in READERS:
        if fits(path):
            break
    else:
        raise ValueError(f"{path}: unknown format; expected an .hdf5 file in D4RL's layout, an .npz file, an RLDS/TFDS "
                         f"folder (with dataset_info.json and features.json) or a Minari folder (data/metadata.json)")
    episodes, info = _decode_cached(kind, read, path, folder, action_bound=None)
    checksum = info["checksum"]
    if num_steps is not None and num_steps != len(episodes):
        if num_steps > len(episodes):
            raise ValueError(
                f"{path}: num_steps is {num_steps}, the set has only {len(episodes)}: give "
                "--config.dataset.num_steps=0 for all of them"
            )
        episodes = episodes.first_steps(num_steps)
        checksum = content_checksum(episodes)
    for remark in info.get("remarks", ()):
        logging.warning("%s: %s", path, remark)
    if not name or name in BUILT_IN:
        name = own_name(path)
    return Dataset(episodes, name, info["env_id"], checksum, f"{kind} set at {path}", info.get("env_spec", {}))


def own_name(path: Path) -> str:
    """What a set on disk is called: a file without its suffix, or the folder above those of a version and of the data.
    """
    path = path.resolve()
    if path.is_file():
        return path.stem
    while re.fullmatch(r"data|v?\d+(\.\d+)*", path.name) and path.parent.name:
        path = path.parent
    return path.name


def _decode_cached(kind: str, read, path: Path, folder: Path, action_bound: float | None) -> tuple[Episodes, dict]:
    def decode() -> tuple[Episodes, dict]:
        episodes, info = read(path)
        check_episodes(episodes, str(path), action_bound)
        return episodes, info

    # The name counts too: an HDF5 file's tells its task.
    key = f"{path.stem[:40]}-{kind.split()[-1].lower()}-{files_checksum(path)}"
    return open_cached(folder / "arrays", key, decode)
