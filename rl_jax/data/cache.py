"""An array cache: decoded episodes as .npy files that are memory-mapped, keyed by the checksum of what was decoded."""

import contextlib
import errno
import hashlib
import json
import os
import secrets
import shutil
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
from absl import logging

from rl_jax.core.files import naming
from rl_jax.data.episodes import STEP_FIELDS, Episodes

CLOSED = (errno.EACCES, errno.EPERM, errno.EROFS)  # of a folder or file that is another user's, or read-only
FORMAT = 2  # raise when the layout below or the meaning of a reader's output changes
DAMAGE = (OSError, ValueError, KeyError, TypeError, AttributeError)  # what the content of a damaged entry raises


def files_checksum(path: Path) -> str:
    """sha256 (hex) of a file, or of all files of a folder with their relative names."""
    if not path.exists():
        raise FileNotFoundError(f"{path}: no such file or folder")
    digest = hashlib.sha256()
    files = sorted(file for file in path.rglob("*") if file.is_file()) if path.is_dir() else [path]
    for file in files:
        digest.update(f"{file.relative_to(path)}\0{file.stat().st_size}\0".encode())
        with file.open("rb") as stream:
            while chunk := stream.read(1 << 22):
                digest.update(chunk)
    return digest.hexdigest()


def content_checksum(episodes: Episodes) -> str:
    """sha256 (hex) of the arrays themselves, the same whatever format they were read from."""
    digest = hashlib.sha256()
    for field, array in _arrays(episodes).items():
        digest.update(f"{field}\0{array.dtype.str}\0{array.shape}\0".encode())
        digest.update(np.ascontiguousarray(array).data)
    return digest.hexdigest()


@contextlib.contextmanager
def shared(folder: Path) -> Iterator[None]:
    """Says what to do where files of `folder`, which may be several users', are closed to this one."""
    try:
        yield
    except OSError as error:
        if error.errno not in CLOSED:
            raise
        raise PermissionError(
            f"{error}: you may not read or write there: have its owner open it (chmod -R a+rX to read, a+rwX to add to "
            f"it), or name another folder than {folder} with --config.dataset.data_dir"
        ) from error


def open_cached(folder: Path, key: str, decode: Callable[[], tuple[Episodes, dict]]) -> tuple[Episodes, dict]:
    """The memory-mapped episodes cached under `key`, decoded and stored first if they are not there.

    The entry is written to a temporary folder and renamed, so that of processes which start at once none sees half an
    entry; the first to finish wins. Each file's CRC-32 is checked when the entry is opened, and an entry that is
    damaged is made anew. Whoever may read `folder` may read its entries.

    Args:
      folder: where entries live; made if missing.
      key: names the entry; must change with whatever `decode` reads.
      decode: returns episodes and a dict of JSON values to be stored with them.

    Returns:
      The episodes (read-only memory maps) and the stored dict, to which "checksum" (content_checksum) was added.

    Raises:
      OSError: the entry cannot be written, or is closed to this user; the message names the folder.
      ValueError: it is damaged and another user's, so that it cannot be made anew.
    """
    with shared(folder):
        return _open_cached(folder, key, decode)


def _open_cached(folder: Path, key: str, decode: Callable[[], tuple[Episodes, dict]]) -> tuple[Episodes, dict]:
    entry = folder / f"{key}-{FORMAT}"
    if entry.exists():
        try:
            return _read(entry)
        except DAMAGE as error:
            if isinstance(error, OSError) and error.errno in CLOSED:
                raise  # it is not damaged, and not ours
            logging.warning("cache entry %s cannot be read (%s): making it anew", entry, error)
            shutil.rmtree(entry, ignore_errors=True)
    episodes, info = decode()
    info = {**info, "checksum": content_checksum(episodes)}
    temporary = folder / f".{key[:16]}-{os.getpid()}-{secrets.token_hex(4)}"  # not tempfile's: that is for us alone
    try:
        temporary.mkdir(parents=True)
        with naming(folder):
            _write(temporary, episodes, info)
        try:
            os.rename(temporary, entry)
        except OSError:
            if not entry.exists():  # otherwise another process was first, with the same content
                raise
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    try:
        return _read(entry)
    except DAMAGE as error:
        raise ValueError(f"{entry}: this cache entry is damaged ({error}): remove it, or name another folder with "
                         "--config.dataset.data_dir") from error


def _arrays(episodes: Episodes) -> dict[str, np.ndarray]:
    arrays = {field: getattr(episodes, field) for field in STEP_FIELDS}
    extras = {f"extras/{field}": episodes.extras[field] for field in sorted(episodes.extras)}
    return {**arrays, "starts": episodes.starts, **extras}


def _write(entry: Path, episodes: Episodes, info: dict) -> None:
    """Writes the arrays, in files that are numbered: what a field is called decides about no path."""
    arrays = _arrays(episodes)
    crcs = []
    for number, array in enumerate(arrays.values()):
        file = entry / f"{number}.npy"
        np.save(file, array, allow_pickle=False)
        crcs.append(_crc(file))
    content = json.dumps({"fields": list(arrays), "crcs": crcs, "info": info})
    (entry / "info.json").write_text(json.dumps({"content": content, "crc": zlib.crc32(content.encode())}))


def _read(entry: Path) -> tuple[Episodes, dict]:
    outer = json.loads((entry / "info.json").read_text())
    if zlib.crc32(outer["content"].encode()) != outer["crc"]:
        raise ValueError("the checksum of info.json is another")
    stored = json.loads(outer["content"])
    arrays = {}
    for number, (field, crc) in enumerate(zip(stored["fields"], stored["crcs"], strict=True)):
        file = entry / f"{number}.npy"
        if _crc(file) != crc:
            raise ValueError(f"the checksum of {field} is another")
        arrays[field] = np.load(file, mmap_mode="r", allow_pickle=False)
    extras = {field.removeprefix("extras/"): arrays.pop(field) for field in [*arrays] if field.startswith("extras/")}
    return Episodes(**arrays, extras=extras), stored["info"]


def _crc(file: Path) -> int:
    crc = 0
    with file.open("rb") as stream:
        while chunk := stream.read(1 << 22):
            crc = zlib.crc32(chunk, crc)
    return crc
