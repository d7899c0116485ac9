"""The embedded logs of the Open Bandit Dataset, small-sized version (SOURCE.md).

Saito, Aihara, Matsutani and Narita 2021, "Open Bandit Dataset and Pipeline", arXiv 2008.07146: a recommendation a row,
which item was shown in which of three positions, whether it was clicked, and how likely it was to be shown.
"""

from pathlib import Path
from typing import NamedTuple

import numpy as np

from rl_jax.core.arrays import read_arrays
from rl_jax.core.config import unknown

PATH = Path(__file__).parent / "open_bandit.npz"
LOGS = ("random_men", "bts_men", "random_women", "bts_women")


class Log(NamedTuple):
    """N recommendations; arrays [N].

    Attributes:
      items: int64, which of `num_items` was shown.
      positions: int64, 0 to 2.
      clicks: float64, 0 or 1.
      propensities: float64, the probability with which the policy showed this item in this position.
      num_items: 34 for men, 46 for women.
    """

    items: np.ndarray
    positions: np.ndarray
    clicks: np.ndarray
    propensities: np.ndarray
    num_items: int


def load_log(name: str) -> Log:
    """A log of LOGS: "random" is the uniform policy, "bts" Bernoulli Thompson sampling.

    Raises:
      ValueError: there is no such log.
    """
    if name not in LOGS:
        raise ValueError(unknown("log", name, LOGS))
    fields = ("items", "positions", "clicks", "propensities")
    arrays = read_arrays(PATH, [f"{name}/{field}" for field in fields])
    items, positions, clicks, propensities = (arrays[f"{name}/{field}"] for field in fields)
    return Log(items.astype(np.int64), positions.astype(np.int64), clicks.astype(np.float64),
               propensities.astype(np.float64), 34 if name.endswith("_men") else 46)
