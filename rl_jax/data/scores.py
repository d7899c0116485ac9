"""D4RL's normalised score: 0 is a random policy, 100 an expert (Fu et al., 2020, arXiv 2004.07219, section 4)."""

import re
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike


class ReferenceReturns(NamedTuple):
    """Undiscounted returns of a random and of an expert policy, averaged over episodes."""

    random: float
    expert: float


# As published in D4RL's `infos.py` (REF_MIN_SCORE and REF_MAX_SCORE). A name stands for all data sets and versions of
# the task, `pen` for `pen-human-v1`; the longest one counts.
REFERENCE_RETURNS = {
    "hopper": ReferenceReturns(random=-20.272305, expert=3234.3),
    "halfcheetah": ReferenceReturns(random=-280.178953, expert=12135.0),
    "walker2d": ReferenceReturns(random=1.629008, expert=4592.3),
    "ant": ReferenceReturns(random=-325.6, expert=3879.7),
    "maze2d-open": ReferenceReturns(random=0.01, expert=20.66),
    "maze2d-umaze": ReferenceReturns(random=23.85, expert=161.86),
    "maze2d-medium": ReferenceReturns(random=13.13, expert=277.39),
    "maze2d-large": ReferenceReturns(random=6.7, expert=273.99),
    "maze2d-open-dense": ReferenceReturns(random=11.17817, expert=27.166538620695782),
    "maze2d-umaze-dense": ReferenceReturns(random=68.537689, expert=193.66285642381482),
    "maze2d-medium-dense": ReferenceReturns(random=44.264742, expert=297.4552547777125),
    "maze2d-large-dense": ReferenceReturns(random=30.569041, expert=303.4857382709002),
    "antmaze": ReferenceReturns(random=0.0, expert=1.0),
    "pen": ReferenceReturns(random=96.262799, expert=3076.8331017826877),
    "hammer": ReferenceReturns(random=-274.856578, expert=12794.134825156867),
    "relocate": ReferenceReturns(random=-6.425911, expert=4233.877797728884),
    "door": ReferenceReturns(random=-56.512833, expert=2880.5693087298737),
    "kitchen": ReferenceReturns(random=0.0, expert=4.0),
}

# What follows the name of a task in those of D4RL's data sets; `door-opening` is another task than `door`.
SET_WORDS = frozenset(
    "random medium expert replay full human cloned complete partial mixed umaze large play diverse".split()
)


def has_references(env_id: str) -> bool:
    """Whether a task has published reference returns, and so normalised scores."""
    return _task(env_id) is not None


def reference_returns(env_id: str) -> ReferenceReturns:
    """The reference returns of an id of Gymnasium or D4RL, such as `Hopper-v4` or `pen-human-v1`, whatever its version.

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
    return score_between(reference_returns(env_id), returns)


def score_between(reference: ReferenceReturns, returns: ArrayLike) -> np.ndarray:
    """The same, between reference returns of one's own."""
    return 100.0 * (np.asarray(returns, np.float64) - reference.random) / (reference.expert - reference.random)


def _task(env_id: str) -> str | None:
    """The key of REFERENCE_RETURNS: "hopper" of `module:namespace/Hopper-v4`; None where there is none.

    A task whose settings are not the registered ones, as `Hopper-v5(max_episode_steps=15)`, is another task.
    """
    name = env_id.rpartition(":")[2].rpartition("/")[2].lower()
    words = name.split("-") if re.fullmatch(r"[\w.-]+", name) else []
    for count in range(len(words), 0, -1):
        key = "-".join(words[:count])
        if key in REFERENCE_RETURNS:
            return key if all(word in SET_WORDS or re.fullmatch(r"v\d+", word) for word in words[count:]) else None
    return None
