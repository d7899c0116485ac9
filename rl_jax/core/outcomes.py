"""The raw outcomes of every evaluation of a run, in one file beside its metrics: what reports are made from.

`outcomes.npz` holds `step` [T], `train_seconds` [T], and one array [T, S, E] an outcome.
"""

import os
from collections.abc import Mapping
from typing import NamedTuple

import numpy as np

from rl_jax.core.arrays import read_arrays
from rl_jax.core.files import atomically

AXES = ("step", "train_seconds")


class Outcomes(NamedTuple):
    """T evaluations of S runs.

    Attributes:
      steps: [T] int64, increasing.
      train_seconds: [T] float64, of training until then, all runs together.
      values: by outcome, [T, S, E]; E may differ between outcomes.
    """

    steps: np.ndarray
    train_seconds: np.ndarray
    values: dict[str, np.ndarray]


def add_outcomes(path: str | os.PathLike, step: int, train_seconds: float, outcomes: Mapping[str, np.ndarray]) -> None:
    """Adds the evaluation at `step`, outcomes [S, E]; those of the same or a later step go, as a resumed run redoes
    them.

    Raises:
      ValueError: the file is damaged or holds other outcomes, or an outcome has no two axes or a name of AXES.
    """
    for name, value in outcomes.items():
        if np.ndim(value) != 2 or name in AXES:
            raise ValueError(f"outcome {name!r} has shape {np.shape(value)}: give [S, E], and another name than {AXES}")
    rows = {name: np.asarray(value)[None] for name, value in outcomes.items()}
    steps, seconds = np.array([step], np.int64), np.array([train_seconds], np.float64)
    if os.path.exists(path):
        old = read_outcomes(path)
        keep = old.steps < step
        if keep.any():
            there, here = ({name: x.shape[1:] for name, x in values.items()} for values in (old.values, rows))
            if there != here:
                raise ValueError(f"{path} holds the outcomes {there}, not {here}: it is another run's")
            steps, seconds = np.append(old.steps[keep], steps), np.append(old.train_seconds[keep], seconds)
            rows = {name: np.concatenate([old.values[name][keep], row]) for name, row in rows.items()}
    with atomically(path) as file:
        np.savez_compressed(file, step=steps, train_seconds=seconds, **rows)


def read_outcomes(path: str | os.PathLike) -> Outcomes:
    """Reads what `add_outcomes` wrote.

    Raises:
      FileNotFoundError: there is no such file.
      ValueError: the file is not such a record or is damaged.
    """
    try:
        arrays = read_arrays(path)
        steps, seconds = (arrays.pop(name) for name in AXES)
    except (KeyError, ValueError) as error:
        raise ValueError(f"{path} is not a record of outcomes: {error}: restore it from a copy") from error
    if any(x.ndim != 3 or len(x) != len(steps) for x in arrays.values()) or len(seconds) != len(steps):
        raise ValueError(
            f"{path} is not a record of outcomes: its arrays are not [T, S, E] with T = {len(steps)}: restore it from "
            "a copy"
        )
    return Outcomes(steps, seconds, arrays)
