"""A user's logged data with what is known of the policies to evaluate, from an npz file or a data set of RLDS.

Fields, one number a step, episodes end to end, N steps in all:

    rewards, terminated, truncated             [N]; one of the two flags at the last step of every episode
    behaviour_log_prob                         [N], log pi_b of the action that was done
    policy/NAME/log_prob                       [N], log pi of the same action, for every policy
    policy/NAME/q, .../v                       [N], a model's Q at the action and V at the state: for DM and the DRs
    policy/NAME/next_v                         [N], V at the next state, for episodes that a time-out cuts
    policy/NAME/state_weights, .../state_action_weights    [N], ratios of visitations, for SM and SAM
    policy/NAME/value                          one number, what the policy really earns, if known

In an RLDS set all but `value` are further fields of the steps.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

import numpy as np

from rl_jax.core.arrays import read_arrays
from rl_jax.core.config import unknown
from rl_jax.data.checks import check_all, check_finite, check_shape
from rl_jax.data.episodes import starts_from_ends
from rl_jax.data.load import load_dataset
from rl_jax.evaluation.off_policy.estimators import Logged, logged

LOG_PROB, BEHAVIOUR, PREFIX = "log_prob", "behaviour_log_prob", "policy/"
MODELS = ("q", "v", "next_v", "state_weights", "state_action_weights")
FLAGS = ("terminated", "truncated")


class Candidates(NamedTuple):
    """What a file holds.

    Attributes:
      returns: [n] of the behaviour policy, discounted.
      policies: by name; arrays [n, T], T the longest episode.
      values: by name, where the file knows them.
      unfinished: episodes that a time-out ended, where a model's V has no next_v for it.
    """

    returns: np.ndarray
    policies: dict[str, Logged]
    values: dict[str, float]
    unfinished: int


def read_candidates(path: str | Path, discount: float, *, discrete: bool = True, crossfit: bool = False) -> Candidates:
    """Reads and checks a file.

    Args:
      path: an npz file, or what `load_dataset` reads.
      discrete: whether actions are numbered, so that a log-prob is at most 0; log densities may be above it.
      crossfit: whether the models did not learn from the episodes that they are used on.

    Raises:
      FileNotFoundError: there is no such file.
      ValueError: a field is missing, unknown or of a wrong shape, or one of its numbers cannot be; file, field and step
        are named.
    """
    path = Path(path)
    if not path.exists():
        raise FileNotFoundError(f"{path}: no such file or folder")
    name, fields = str(path), _fields(path)
    steps = _checked(name, fields, discrete)
    ends = steps["terminated"] | steps["truncated"]
    starts = starts_from_ends(ends)
    lengths = np.diff(np.append(starts, len(ends)))
    mask = np.arange(lengths.max()) < lengths[:, None]

    def padded(field: str) -> np.ndarray:
        found = np.ones(mask.shape) if field.endswith("weights") else np.zeros(mask.shape)
        found[mask] = fields[field]
        return found

    rewards, behaviour = padded("rewards"), padded(BEHAVIOUR)
    policies, values = {}, {}
    for policy in policies_of(fields):
        models = {model: padded(_of(policy, model)) for model in MODELS if _of(policy, model) in fields}
        log_ratios = padded(_of(policy, LOG_PROB)) - behaviour
        policies[policy] = logged(rewards, log_ratios, mask=mask, crossfit=crossfit, **models)
        if _of(policy, "value") in fields:
            values[policy] = float(fields[_of(policy, "value")])
    returns = np.where(mask, rewards, 0.0) @ discount ** np.arange(mask.shape[1])
    ends_there = any(_of(policy, "v") in fields and _of(policy, "next_v") not in fields for policy in policies)
    return Candidates(returns, policies, values, int(steps["truncated"].sum()) * ends_there)


def policies_of(fields: Mapping[str, np.ndarray]) -> list[str]:
    """The names of the policies, in the order of the file."""
    return list(dict.fromkeys(
        field.removeprefix(PREFIX).rpartition("/")[0] for field in fields if field.startswith(PREFIX)
    ))


def _of(policy: str, field: str) -> str:
    return f"{PREFIX}{policy}/{field}"


def _fields(path: Path) -> dict[str, np.ndarray]:
    if path.suffix.lower() == ".npz":
        return read_arrays(path)
    episodes = load_dataset("", path=str(path)).episodes
    return {"rewards": episodes.rewards, **{flag: getattr(episodes, flag) for flag in FLAGS}, **episodes.extras}


def _checked(name: str, fields: Mapping[str, np.ndarray], discrete: bool) -> dict[str, np.ndarray]:
    """The flags as bool, after all checks."""
    found = policies_of(fields)
    if not found:
        raise ValueError(f"{name}: no field {PREFIX}NAME/{LOG_PROB}: give the log-probs of at least one policy")
    for field in ("rewards", *FLAGS, BEHAVIOUR, *(_of(policy, LOG_PROB) for policy in found)):
        if field not in fields:
            raise ValueError(f"{name}: field {field!r} is missing; it has {', '.join(sorted(fields))}")
    for field in fields:
        last = field.rpartition("/")[2]
        if field.startswith(PREFIX) and last not in (LOG_PROB, "value", *MODELS):
            raise ValueError(f"{name}: {unknown('field of a policy', last, (LOG_PROB, 'value', *MODELS))}")
    size = len(np.atleast_1d(fields["rewards"]))
    if size == 0:
        raise ValueError(f"{name}: field 'rewards' holds no steps")
    numbers = ["rewards", BEHAVIOUR, *(field for field in fields if field.startswith(PREFIX))]
    for field in (*numbers, *FLAGS):
        array = fields[field]
        if array.dtype.kind not in "biuf":
            raise ValueError(f"{name}: field {field!r} has dtype {array.dtype}: give numbers")
        check_shape(name, field, array, () if field.endswith("/value") else (size,))
    for field in numbers:
        array = np.atleast_1d(fields[field])
        if not field.endswith(LOG_PROB):
            check_finite(name, field, array)
            continue
        if field == BEHAVIOUR:
            check_all(name, field, array, ~np.isneginf(array),
                      "a finite number: the behaviour policy did this action, so its probability is not 0")
        check_all(name, field, array, ~np.isnan(array) & ~np.isposinf(array), "a log-prob")
        if discrete:
            check_all(name, field, array, array <= 1e-6,
                      "at most 0, the logarithm of a probability (densities of vectors: --actions=continuous)")
    flags = {field: fields[field].astype(bool) for field in FLAGS}
    ends = flags["terminated"] | flags["truncated"]
    if not ends[-1]:
        raise ValueError(f"{name}: field 'truncated' at step {size - 1} is False: the last step ends an episode")
    check_all(name, "truncated", fields["truncated"], ~(flags["terminated"] & flags["truncated"]),
              "False where the step is terminated")
    for policy in found:
        if (_of(policy, "q") in fields) != (_of(policy, "v") in fields):
            raise ValueError(f"{name}: policy {policy!r} has one of q and v: give both, or neither")
        if _of(policy, "next_v") in fields and _of(policy, "v") not in fields:
            raise ValueError(f"{name}: policy {policy!r} has next_v without q and v: give all three")
    return flags
