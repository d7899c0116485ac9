"""An array cache: decoded episodes as .npy files that are memory-mapped, keyed by the checksum of what was decoded."""

import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
from absl import logging

from rl_jax.data.episodes import STEP_FIELDS, Episodes

FORMAT = 1  # raise when the layout below or the meaning of a reader's output changes


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


def open_cached(folder: Path, key: str, decode: Callable[[], tuple[Episodes, dict]]) -> tuple[Episodes, dict]:
    """The memory-mapped episodes cached under `key`, decoded and stored first if they are not there.

    The entry is written to a temporary folder and renamed, so that of processes which start at once none sees half an
    entry; the first to finish wins. An entry that cannot be read is made anew.

    Args:
      folder: where entries live; made if missing.
      key: names the entry; must change with whatever `decode` reads.
      decode: returns episodes and a dict of JSON values to be stored with them.

    Returns:
      The episodes (read-only memory maps) and the stored dict, to which "checksum" (content_checksum) was added.
    """
    entry = folder / f"{key}-{FORMAT}"
    if entry.exists():
        try:
            return _read(entry)
        except (OSError, ValueError, KeyError) as error:
            logging.warning("cache entry %s cannot be read (%s): making it anew", entry, error)
            shutil.rmtree(entry, ignore_errors=True)
    episodes, info = decode()
    info = {**info, "checksum": content_checksum(episodes)}
    folder.mkdir(parents=True, exist_ok=True)
    temporary = Path(tempfile.mkdtemp(prefix=f".{key[:16]}-", dir=folder))
    try:
        for field, array in _arrays(episodes).items():
            file = temporary / f"{field}.npy"
            file.parent.mkdir(exist_ok=True)
            np.save(file, array, allow_pickle=False)
        (temporary / "info.json").write_text(json.dumps({"info": info, "extras": sorted(episodes.extras)}))
        try:
            os.rename(temporary, entry)
        except OSError:
            if not entry.exists():  # otherwise another process was first, with the same content
                raise
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return _read(entry)


def _arrays(episodes: Episodes) -> dict[str, np.ndarray]:
    arrays = {field: getattr(episodes, field) for field in STEP_FIELDS}
    extras = {f"extras/{field}": episodes.extras[field] for field in sorted(episodes.extras)}
    return {**arrays, "starts": episodes.starts, **extras}


def _read(entry: Path) -> tuple[Episodes, dict]:
    stored = json.loads((entry / "info.json").read_text())

    def load(field: str) -> np.ndarray:
        return np.load(entry / f"{field}.npy", mmap_mode="r", allow_pickle=False)

    arrays = {field: load(field) for field in (*STEP_FIELDS, "starts")}
    extras = {field: load(f"extras/{field}") for field in stored["extras"]}
    return Episodes(**arrays, extras=extras), stored["info"]
