"""Files: written so that a reader never sees half of one, read so that an error names file and remedy, and locks."""

import contextlib
import fcntl
import json
import os
import socket
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import IO, Any


@contextlib.contextmanager
def atomically(path: str | os.PathLike) -> Iterator[IO[bytes]]:
    """A binary file that takes the place of `path` in one rename when the block ends well, and is removed otherwise.

    Raises:
      OSError: it cannot be written, as on a full disk; the message names `path`.
    """
    path = Path(path)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with naming(path), temporary.open("wb") as file:
            yield file
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def write_atomically(path: str | os.PathLike, content: str | bytes) -> None:
    """Writes a whole file in one rename."""
    with atomically(path) as file:
        file.write(content.encode() if isinstance(content, str) else content)


@contextlib.contextmanager
def naming(path: str | os.PathLike) -> Iterator[None]:
    """Puts the file's name into an OSError that has none, such as that of a write on a full disk."""
    try:
        yield
    except OSError as error:
        if error.filename is None and error.errno is not None:
            raise OSError(error.errno, error.strerror, os.fspath(path)) from error
        raise


def read_text(path: str | os.PathLike) -> str:
    """The text of a file, without a byte-order mark.

    Raises:
      ValueError: it is not UTF-8.
    """
    try:
        return Path(path).read_bytes().decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise ValueError(f"{path} is not text in UTF-8 ({error}): save it as UTF-8") from error


def read_lines(path: str | os.PathLike) -> list[str]:
    """The lines of a text file. Only a line feed ends one: other separators of Unicode may stand inside of it."""
    lines = read_text(path).replace("\r\n", "\n").split("\n")
    return lines[:-1] if lines[-1] == "" else lines


def read_json(path: str | os.PathLike) -> Any:
    """What a JSON file holds.

    Raises:
      ValueError: it is damaged.
    """
    text = read_text(path)
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:  # also a number of thousands of digits, and too deep a nesting
        raise ValueError(f"{path} is damaged, it is no JSON ({error}): restore it from a copy") from error


def read_object(path: str | os.PathLike) -> dict[str, Any]:
    """What a JSON file holds that must be an object.

    Raises:
      ValueError: it is damaged, or holds something else.
    """
    found = read_json(path)
    if not isinstance(found, dict):
        raise ValueError(f"{path} is damaged, it is not a JSON object: restore it from a copy")
    return found


@contextlib.contextmanager
def exclusive(path: Path) -> Iterator[None]:
    """Holds an exclusive lock on the file `path` (made if missing, kept afterwards); waits for whoever holds it.

    Whoever may read the file may lock it: a folder that several people share works with any umask that lets them read.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        descriptor = os.open(path, os.O_RDONLY)
    except FileNotFoundError:
        descriptor = os.open(path, os.O_RDONLY | os.O_CREAT, 0o666)  # less the umask, as of any file
    with open(descriptor) as file:
        fcntl.flock(file, fcntl.LOCK_EX)  # released when the file closes, also when the process is killed
        yield


def hold(path: Path, remedy: str) -> IO[str]:
    """Takes the lock `path` for as long as the file that it returns is open, and writes into it who holds it.

    Raises:
      ValueError: another process holds it; the message says which one, and the remedy.
    """
    file = path.open("a+")
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        file.seek(0)
        holder = file.read().strip() or "another process"
        file.close()
        raise ValueError(f"{path.parent} is in use by {holder}: {remedy}") from None
    file.truncate(0)
    file.write(f"process {os.getpid()} on {socket.gethostname()} since {datetime.now():%Y-%m-%d %H:%M:%S}")
    file.flush()
    return file
