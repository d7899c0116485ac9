"""HDF5 files, opened so that a damaged or hostile one gives one error that names file and field."""

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from rl_jax.core.arrays import check_sizes, readable
from rl_jax.core.extras import require

MAX_DEPTH = 8  # of groups in groups: a damaged file may have one that holds itself


@contextlib.contextmanager
def open_hdf5(path: Path) -> Iterator[Any]:
    """The `h5py.File`, for reading."""
    h5py = require("h5py", "datasets")
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such file")
    with readable(str(path), "HDF5 file"):
        file = h5py.File(path, "r")
    try:
        yield file
    finally:
        with contextlib.suppress(Exception):  # of a damaged file; what was read is read
            file.close()


def open_group(name: str, file: Any, key: str) -> Any:
    """A group of a file; `name` is that of both, for errors."""
    h5py = require("h5py", "datasets")
    node = _own(name, file, key, key)
    if not isinstance(node, h5py.Group):
        raise ValueError(f"{name}: {key!r} is an array, expected a group of arrays")
    return node


def read_fields(name: str, group: Any, fields: tuple[str, ...]) -> dict[str, Any]:
    """Those of `fields` that a group has, as arrays, or as dictionaries of them where they are groups themselves.

    Raises:
      ValueError: damage, a link into another file, or more than fits the memory by the declared shapes.
    """
    with readable(name, "HDF5 file"):
        present = [field for field in fields if field in group]
    sizes: dict[str, int] = {}
    nodes = {field: _nodes(name, group, field, field, sizes) for field in present}
    check_sizes(name, sizes)
    return {field: _load(name, field, node) for field, node in nodes.items()}


def _own(name: str, group: Any, key: str, field: str) -> Any:
    """The array or group `key`, which must lie in the file itself: nothing that another file holds is read."""
    h5py = require("h5py", "datasets")
    with readable(name, "HDF5 file", field):
        own = not isinstance(group.get(key, getlink=True), (h5py.ExternalLink, h5py.SoftLink))
        node = group[key] if own else None
        own = own and not (isinstance(node, h5py.Dataset) and (node.external or node.is_virtual))
    if not own:
        raise ValueError(f"{name}: field {field!r} is a link: copy what it points to into the file")
    return node


def _nodes(name: str, group: Any, key: str, field: str, sizes: dict[str, int]) -> Any:
    """An array's node, or a dictionary of those of a group; adds the bytes that each declares to `sizes`."""
    h5py = require("h5py", "datasets")
    node = _own(name, group, key, field)
    if field.count("/") > MAX_DEPTH:
        raise ValueError(f"{name}: field {field!r} is nested too deeply, at most {MAX_DEPTH} levels are read")
    with readable(name, "HDF5 file", field):
        keys = list(node) if isinstance(node, h5py.Group) else None
        if keys is None:
            sizes[field] = int(node.size or 0) * node.dtype.itemsize
            return node
    return {inner: _nodes(name, node, inner, f"{field}/{inner}", sizes) for inner in keys}


def _load(name: str, field: str, node: Any) -> Any:
    if isinstance(node, dict):
        return {key: _load(name, f"{field}/{key}", inner) for key, inner in node.items()}
    with readable(name, "HDF5 file", field):
        return np.asarray(node[()])
