"""Reader of a single .npz file."""

import math
import zipfile
from pathlib import Path

import numpy as np

from rl_jax.data.checks import check_sizes, readable
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
    require_fields(str(path), arrays, STEP_FIELDS)
    steps = flat_steps(str(path), arrays)
    size = len(steps["rewards"])
    flags = {field: flat_flags(str(path), field, arrays[field], size) for field in ("terminated", "truncated")}
    # A step flagged as both ends its episode by the environment.
    flags["truncated"] &= ~flags["terminated"]
    if size and not (flags["terminated"][-1] or flags["truncated"][-1]):
        flags["truncated"][-1] = True
    extras = {field: array for field, array in arrays.items() if field not in STEP_FIELDS and field != "env_id"}
    starts = starts_from_ends(flags["terminated"] | flags["truncated"])
    env_id = arrays.get("env_id", np.array(""))
    if env_id.dtype.kind != "U" or env_id.size != 1:
        raise ValueError(f"{path}: field 'env_id' is {env_id.dtype} {env_id.shape}, expected one string")
    return Episodes(**steps, **flags, starts=starts, extras=extras), {"env_id": str(env_id.item())}


def read_arrays(path: Path) -> dict[str, np.ndarray]:
    """All arrays of an npz file by name.

    Raises:
      FileNotFoundError: there is no such file.
      ValueError: it is damaged, holds pickled objects or two arrays of one name, or its arrays do not fit the memory.
    """
    name, arrays = str(path), {}
    with readable(name, "npz file"):
        archive = zipfile.ZipFile(path)
    with archive:
        sizes = [(member.filename.removesuffix(".npy"), member.file_size) for member in archive.infolist()]
        if len(dict(sizes)) < len(sizes):
            raise ValueError(f"{path}: not a readable npz file: two of its arrays have one name")
        check_sizes(name, dict(sizes))
        for field, size in sizes:
            with readable(name, "npz file", field), _member(archive, field) as stream:
                shape, dtype = _declared(stream)
                if math.prod(shape) * dtype.itemsize > size:  # the header may declare more than the file holds
                    raise EOFError(f"{dtype} {shape} is declared in {size} bytes")
                stream.seek(0)
                arrays[field] = np.lib.format.read_array(stream, allow_pickle=False)
    return arrays


def _member(archive: zipfile.ZipFile, field: str):
    return archive.open(f"{field}.npy" if f"{field}.npy" in archive.namelist() else field)


def _declared(stream) -> tuple[tuple[int, ...], np.dtype]:
    """Shape and dtype in the header of an array; a pickled one's header is refused by the read."""
    version = np.lib.format.read_magic(stream)
    read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
    shape, _, dtype = read(stream)
    return shape, dtype
