"""Files of arrays, read so that whatever is wrong with one is a single error that names the file and the field."""

import contextlib
import math
import os
import zipfile
from collections.abc import Collection, Iterator, Mapping
from typing import IO

import numpy as np
import psutil

MEMORY_SHARE = 0.5  # of the memory available that a file's arrays may take: readers keep a second copy for a while


@contextlib.contextmanager
def readable(name: str, kind: str, field: str = "") -> Iterator[None]:
    """Turns whatever a library raises at a damaged file into one ValueError that names the file and the field.

    Only calls of the library belong inside: a damaged file makes it raise errors of nearly any type.
    """
    try:
        yield
    except FileNotFoundError:
        raise
    except Exception as error:
        where = f", field {field!r}" if field else ""
        message = " ".join(str(error).split())
        raise ValueError(
            f"{name}: not a readable {kind}{where} (damaged or cut off?): {type(error).__name__}: {message}"
        ) from error


def check_sizes(name: str, sizes: Mapping[str, int]) -> None:
    """Raises ValueError where arrays of these declared `sizes`, bytes by field, do not fit the memory."""
    total, available = sum(sizes.values()), psutil.virtual_memory().available
    if total > MEMORY_SHARE * available:
        field = max(sizes, key=sizes.__getitem__)
        raise ValueError(
            f"{name}: field {field!r} declares {sizes[field] / 1e9:.2f} GB and all fields {total / 1e9:.2f} GB; with "
            f"{available / 1e9:.2f} GB of memory available, at most {MEMORY_SHARE:.0%} of it are read: use a part of "
            "the set, or a machine with more memory"
        )


def read_arrays(path: str | os.PathLike, fields: Collection[str] | None = None) -> dict[str, np.ndarray]:
    """The arrays of an npz file by name: all of them, or those of `fields` that are there.

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
        sizes = [(field, size) for field, size in sizes if fields is None or field in fields]
        check_sizes(name, dict(sizes))
        for field, size in sizes:
            with readable(name, "npz file", field), _member(archive, field) as stream:
                shape, dtype = _declared(stream)
                if math.prod(shape) * dtype.itemsize > size:  # the header may declare more than the file holds
                    raise EOFError(f"{dtype} {shape} is declared in {size} bytes")
                stream.seek(0)
                arrays[field] = np.lib.format.read_array(stream, allow_pickle=False)
    return arrays


def _member(archive: zipfile.ZipFile, field: str) -> IO[bytes]:
    return archive.open(f"{field}.npy" if f"{field}.npy" in archive.namelist() else field)


def _declared(stream: IO[bytes]) -> tuple[tuple[int, ...], np.dtype]:
    """Shape and dtype in the header of an array; a pickled one's header is refused by the read."""
    version = np.lib.format.read_magic(stream)
    read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
    shape, _, dtype = read(stream)
    return shape, dtype
