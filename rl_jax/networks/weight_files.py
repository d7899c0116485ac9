"""Files of pretrained weights: safetensors, one or several with an index, as Hugging Face's libraries write them.

Nothing is unpickled: other formats are refused by name.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rl_jax.core.extras import require
from rl_jax.core.files import read_object

SHOWN = 4  # names that an error lists


def find_weight_files(folder: Path, stem: str, suffix: str = "", remedy: str = "") -> list[Path]:
    """Returns the files of a network's weights: those of an index, or the only one.

    Args:
      stem: the name of the files without suffixes.
      suffix: of a variant, such as ".fp16".
      remedy: what to do where there are none.

    Raises:
      FileNotFoundError: there are none, or one that the index names is missing.
      ValueError: the index is damaged.
    """
    index = folder / f"{stem}.safetensors.index{suffix}.json"
    if index.is_file():
        weights = read_object(index).get("weight_map")
        names = list(weights.values()) if isinstance(weights, dict) and weights else [None]
        if wrong := [name for name in names if not isinstance(name, str) or Path(name).name != name]:
            raise ValueError(f"{index}: weight_map names {wrong[0]!r}, not a file beside it: copy the folder again")
        files = [folder / name for name in sorted(set(names))]
        missing = [file.name for file in files if not file.is_file()]
        if missing:
            raise FileNotFoundError(f"{index} names {listed(missing)}, which are missing: copy the whole folder")
        return files
    file = folder / f"{stem}{suffix}.safetensors"
    if file.is_file():
        return [file]
    there = sorted(file.name for file in folder.iterdir() if file.suffix in (".safetensors", ".bin", ".msgpack"))
    raise FileNotFoundError(f"{file} is missing (weights there: {listed(there) or 'none'}). {remedy}")


def open_safetensors(file: Path, extra: str) -> Any:
    """Opens the tensors of a file, to be read one by one in a `with`.

    Raises:
      MissingExtraError: safetensors is not installed; it names the extra that brings it.
      ValueError: the file is damaged.
    """
    safetensors = require("safetensors", extra)
    try:
        return safetensors.safe_open(file, framework="numpy")
    except safetensors.SafetensorError as error:
        raise ValueError(f"{file} is not a whole safetensors file ({error}): copy it again") from None


def listed(names: Sequence[str]) -> str:
    """The first few of many names."""
    return ", ".join(names[:SHOWN]) + (f" and {len(names) - SHOWN} more" if len(names) > SHOWN else "")
