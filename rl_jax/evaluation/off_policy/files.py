"""A user's logged data with what is known of the policies to evaluate, from an npz file or a data set of RLDS.

Fields, one number a step, episodes end to end, N steps in all:

    rewards, terminated, truncated             [N]; one of the two flags at the last step of every episode
    behaviour_log_prob                         [N], log pi_b of the action that was done
    policy/NAME/log_prob                       [N], log pi of the same action, for every policy
    policy/NAME/q, .../v                       [N], a model's Q at the action and V at the state: for DM and the DRs
    policy/NAME/next_v                         [N], V at the next state, for episodes that a time-out cuts
    policy/NAME/state_weights, .../state_action_weights    [N], ratios of visitations, for SM and SAM
    policy/NAME/value                          one number, what the policy really earns, if known

In an RLDS set all but `value` are further fields of the steps. Policies of runs need what an npz file of a data set has
besides: observations and next_observations [N, O], actions [N, A] or, where they are numbered, [N] whole numbers.
"""

from collections.abc import Collection, Mapping
from pathlib import Path
from typing import NamedTuple

import numpy as np

from rl_jax.core.arrays import read_arrays
from rl_jax.core.config import unknown
from rl_jax.data.checks import check_all, check_finite, check_shape
from rl_jax.data.episodes import STEP_FIELDS, Episodes, check_episodes, starts_from_ends
from rl_jax.data.load import load_dataset
from rl_jax.data.logged import LOG_PROB as BEHAVIOUR
from rl_jax.data.readers.fields import require_fields
from rl_jax.data.readers.npz import episodes_of_arrays
from rl_jax.evaluation.off_policy.estimators import Logged, logged

LOG_PROB, PREFIX = "log_prob", "policy/"
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


def read_fields(path: str | Path) -> dict[str, np.ndarray]:
    """The fields of a file by name, unchecked: of an npz file, or of what `load_dataset` reads.

    Raises:
      FileNotFoundError: there is no such file.
      ValueError: it cannot be read.
    """
    path = Path(path)
    if not path.exists():
        raise FileNotFoundError(f"{path}: no such file or folder")
    if path.suffix.lower() == ".npz":
        return read_arrays(path)
    episodes = load_dataset("", path=str(path)).episodes
    return {field: getattr(episodes, field) for field in STEP_FIELDS} | episodes.extras


def has_vectors(fields: Mapping[str, np.ndarray]) -> bool:
    """Whether the file has actions that are neither whole numbers nor one-hot."""
    actions = fields.get("actions", np.zeros(0, np.int64))
    return actions.dtype.kind == "f" and not (np.isin(actions, (0.0, 1.0)).all() and (actions.sum(-1) == 1).all())


def episodes_of(name: str, fields: Mapping[str, np.ndarray]) -> Episodes:
    """The episodes of a file, with BEHAVIOUR as extra: for policies that have to be asked what they would do.

    Raises:
      ValueError: a field is missing or wrong; it is named.
    """
    require_fields(name, fields, (*STEP_FIELDS, BEHAVIOUR))
    wanted = {field: fields[field] for field in (*STEP_FIELDS, BEHAVIOUR)}
    actions = wanted["actions"]
    if actions.dtype.kind in "iu":
        if actions.ndim != 1 or (actions < 0).any():
            raise ValueError(f"{name}: field 'actions' is {actions.dtype} {actions.shape}: give the number of each "
                             "action, [N] and at least 0, or vectors of floating-point numbers, [N, A]")
        wanted["actions"] = np.eye(int(actions.max()) + 1, dtype=np.float32)[actions]
    episodes = episodes_of_arrays(name, wanted)
    check_episodes(episodes, name)
    return episodes


def candidates_of(
    name: str, fields: Mapping[str, np.ndarray], discount: float, *, discrete: bool = True,
    crossfit: Collection[str] = (),
) -> Candidates:
    """What the fields of a file say of policies.

    Args:
      name: of the file.
      discrete: whether actions are numbered, so that a log-prob is at most 0; log densities may be above it.
      crossfit: policies whose models did not learn from the episodes that they are used on.

    Raises:
      ValueError: a field is missing, unknown or of a wrong shape, or one of its numbers cannot be; file, field and step
        are named.
    """
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
        models = {model: padded(field_of(policy, model)) for model in MODELS if field_of(policy, model) in fields}
        log_ratios = padded(field_of(policy, LOG_PROB)) - behaviour
        policies[policy] = logged(rewards, log_ratios, mask=mask, crossfit=policy in crossfit, **models)
        if field_of(policy, "value") in fields:
            values[policy] = float(fields[field_of(policy, "value")])
    returns = np.where(mask, rewards, 0.0) @ discount ** np.arange(mask.shape[1])
    ends_there = any(
        field_of(policy, "v") in fields and field_of(policy, "next_v") not in fields for policy in policies
    )
    return Candidates(returns, policies, values, int(steps["truncated"].sum()) * ends_there)


def policies_of(fields: Mapping[str, np.ndarray]) -> list[str]:
    """The names of the policies, in the order of the file."""
    return list(dict.fromkeys(
        field.removeprefix(PREFIX).rpartition("/")[0] for field in fields if field.startswith(PREFIX)
    ))


def field_of(policy: str, field: str) -> str:
    """What a file calls a field of a policy."""
    return f"{PREFIX}{policy}/{field}"


def _checked(name: str, fields: Mapping[str, np.ndarray], discrete: bool) -> dict[str, np.ndarray]:
    """The flags as bool, after all checks."""
    found = policies_of(fields)
    if not found:
        raise ValueError(f"{name}: no field {PREFIX}NAME/{LOG_PROB}: give the log-probs of at least one policy, "
                         "or runs whose policies are asked")
    for field in ("rewards", *FLAGS, BEHAVIOUR, *(field_of(policy, LOG_PROB) for policy in found)):
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
        if (field_of(policy, "q") in fields) != (field_of(policy, "v") in fields):
            raise ValueError(f"{name}: policy {policy!r} has one of q and v: give both, or neither")
        if field_of(policy, "next_v") in fields and field_of(policy, "v") not in fields:
            raise ValueError(f"{name}: policy {policy!r} has next_v without q and v: give all three")
    return flags
