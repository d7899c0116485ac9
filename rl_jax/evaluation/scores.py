"""D4RL's normalised score: 0 is a random policy, 100 an expert (Fu et al., 2020, arXiv 2004.07219, section 4)."""

from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike


class ReferenceReturns(NamedTuple):
    """Undiscounted returns of a random and of an expert policy, averaged over episodes."""

    random: float
    expert: float


# As published in D4RL's `infos.py` (REF_MIN_SCORE and REF_MAX_SCORE), the same for every data set of a task.
REFERENCE_RETURNS = {
    "hopper": ReferenceReturns(random=-20.272305, expert=3234.3),
    "halfcheetah": ReferenceReturns(random=-280.178953, expert=12135.0),
    "walker2d": ReferenceReturns(random=1.629008, expert=4592.3),
    "ant": ReferenceReturns(random=-325.6, expert=3879.7),
}


def has_references(env_id: str) -> bool:
    """Whether a task has published reference returns, and so normalised scores."""
    return _task(env_id) in REFERENCE_RETURNS


def reference_returns(env_id: str) -> ReferenceReturns:
    """The reference returns of a Gymnasium id such as `Hopper-v4`, whatever its version.

    Raises:
      ValueError: the task has no published reference; the message lists those that have one.
    """
    if not has_references(env_id):
        raise ValueError(f"no reference returns for {env_id!r}: they exist for {', '.join(sorted(REFERENCE_RETURNS))}")
    return REFERENCE_RETURNS[_task(env_id)]


def normalized_score(env_id: str, returns: ArrayLike) -> np.ndarray:
    """100 * (return - random) / (expert - random), elementwise.

    Args:
      env_id: a Gymnasium id, such as `Hopper-v4`.
      returns: undiscounted episode returns, any shape.

    Returns:
      Scores, float64, of the shape of `returns`.

    Raises:
      ValueError: the task has no published reference returns.
    """
    reference = reference_returns(env_id)
    return 100.0 * (np.asarray(returns, np.float64) - reference.random) / (reference.expert - reference.random)


def _task(env_id: str) -> str:
    """The task in a Gymnasium id: "hopper" of `module:namespace/Hopper-v4`."""
    return env_id.rpartition(":")[2].rpartition("/")[2].partition("-")[0].lower()
