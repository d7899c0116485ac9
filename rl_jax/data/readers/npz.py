"""Reader of a single .npz file."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from rl_jax.core.arrays import read_arrays
from rl_jax.data.episodes import STEP_FIELDS, Episodes, starts_from_ends
from rl_jax.data.readers.fields import flat_flags, flat_steps, require_fields


def is_npz(path: Path) -> bool:
    """Whether `path` has the suffix .npz."""
    return path.suffix.lower() == ".npz"


def read_npz(path: Path) -> tuple[Episodes, dict]:
    """Reads flat arrays over all steps, episodes end to end.

    Layout: observations [N, O], actions [N, A], rewards [N], terminated [N], truncated [N] and next_observations [N, O]
    (the true successors); optionally `env_id`, a string. Every other array must have N rows and goes into `extras`.

    Returns:
      The episodes and {"env_id": ...}.
    """
    arrays = read_arrays(path)
    env_id = arrays.pop("env_id", np.array(""))
    if env_id.dtype.kind != "U" or env_id.size != 1:
        raise ValueError(f"{path}: field 'env_id' is {env_id.dtype} {env_id.shape}, expected one string")
    return episodes_of_arrays(str(path), arrays), {"env_id": str(env_id.item())}


def episodes_of_arrays(name: str, arrays: Mapping[str, np.ndarray]) -> Episodes:
    """The episodes of such arrays; `name` is the file's, for errors."""
    require_fields(name, arrays, STEP_FIELDS)
    steps = flat_steps(name, arrays)
    size = len(steps["rewards"])
    flags = {field: flat_flags(name, field, arrays[field], size) for field in ("terminated", "truncated")}
    # A step flagged as both ends its episode by the environment.
    flags["truncated"] &= ~flags["terminated"]
    if size and not (flags["terminated"][-1] or flags["truncated"][-1]):
        flags["truncated"][-1] = True
    extras = {field: array for field, array in arrays.items() if field not in STEP_FIELDS}
    starts = starts_from_ends(flags["terminated"] | flags["truncated"])
    return Episodes(**steps, **flags, starts=starts, extras=extras)
