"""The words of Wordle: those that may be asked and those that may be guessed. SOURCE.md says where they are from."""

import lzma
from pathlib import Path

import numpy as np

FOLDER = Path(__file__).parent
LISTS = ("answers", "guesses")


def letters(name: str, count: int = 0) -> np.ndarray:
    """Words of a list of LISTS as numbers of their letters, [N, 5] int32 in [0, 26), in alphabetical order.

    Args:
      count: so many of them, evenly spread over the list; 0 for all.

    Raises:
      ValueError: the list has fewer.
    """
    with lzma.open(FOLDER / f"{name}.txt.xz") as file:
        words = np.frombuffer(file.read(), np.uint8).reshape(-1, 6)[:, :5]
    if count > len(words):
        raise ValueError(f"{count} words of {name} are asked for, and there are {len(words)}: ask for fewer")
    chosen = words[np.arange(count) * len(words) // count] if count else words
    return chosen.astype(np.int32) - ord("a")


def spelled(word: np.ndarray) -> str:
    """The text of letters [5]."""
    return "".join(chr(ord("a") + letter) for letter in word)
