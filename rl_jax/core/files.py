"""Files that a reader never sees half of."""

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import IO


@contextlib.contextmanager
def atomically(path: str | os.PathLike) -> Iterator[IO[bytes]]:
    """A binary file that takes the place of `path` in one rename when the block ends well, and is removed otherwise."""
    path = Path(path)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with temporary.open("wb") as file:
            yield file
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def write_atomically(path: str | os.PathLike, content: str | bytes) -> None:
    """Writes a whole file in one rename."""
    with atomically(path) as file:
        file.write(content.encode() if isinstance(content, str) else content)
