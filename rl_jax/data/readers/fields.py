"""What the readers share: fields by name from a mapping of arrays, turned into the types of `Episodes`."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from rl_jax.data.checks import check_finite, check_shape
from rl_jax.data.episodes import Episodes, concatenate_episodes


def require_fields(name: str, present: Iterable[str], wanted: Iterable[str]) -> None:
    """Raises ValueError naming the first of `wanted` that is not in `present`."""
    present = sorted(set(present))
    for field in wanted:
        if field not in present:
            raise ValueError(f"{name}: field {field!r} is missing; the file has {', '.join(present) or 'no fields'}")


def to_float32(name: str, field: str, array: np.ndarray) -> np.ndarray:
    """The finite float32 version of a floating-point array.

    Integers are refused: integer observations are images or tokens and integer actions are discrete.
    """
    if not np.issubdtype(array.dtype, np.floating):
        raise ValueError(f"{name}: field {field!r} has dtype {array.dtype}, expected floating-point numbers")
    check_finite(name, field, array)
    with np.errstate(over="ignore"):  # a float64 beyond float32's range becomes infinite, which the line below reports
        converted = array.astype(np.float32, copy=False)
    if converted is not array:
        check_finite(name, field, converted)
    return converted


def flat_steps(name: str, arrays: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Checks and converts flat per-step arrays: observations, actions, next_observations [N, ...] and rewards [N].

    `arrays` may lack next_observations; a trailing axis of one on the rewards is dropped.
    """
    steps = {}
    for field in ("observations", "actions", "rewards", "next_observations"):
        if field in arrays:
            array = arrays[field]
            if field == "rewards" and array.ndim == 2 and array.shape[1] == 1:
                array = array[:, 0]
            steps[field] = array
    size = len(steps["observations"]) if steps["observations"].ndim else 0
    check_shape(name, "observations", steps["observations"], (size, None))
    check_shape(name, "actions", steps["actions"], (size, None))
    check_shape(name, "rewards", steps["rewards"], (size,))
    if "next_observations" in steps:
        check_shape(name, "next_observations", steps["next_observations"], steps["observations"].shape)
    return {field: to_float32(name, field, array) for field, array in steps.items()}


def flat_flags(name: str, field: str, array: np.ndarray, size: int) -> np.ndarray:
    """Boolean per-step flags [size] from an array of booleans or of zeros and ones."""
    if array.ndim == 2 and array.shape[1] == 1:
        array = array[:, 0]
    check_shape(name, field, array, (size,))
    if array.dtype.kind not in "biuf":
        raise ValueError(f"{name}: field {field!r} has dtype {array.dtype}, expected booleans or zeros and ones")
    bad = (array != 0) & (array != 1)
    if bad.any():
        index = int(np.argmax(bad))
        raise ValueError(f"{name}: field {field!r} at step {index} is {array[index]}, expected 0 or 1")
    return array.astype(bool)


def vectors(name: str, field: str, value: Any) -> np.ndarray:
    """One float32 array [T, D] of an array [T, ...], or of a nest of them, joined in the order of its sorted keys."""
    if isinstance(value, Mapping):
        return _joined(name, field, {key: value[key] for key in sorted(value)})
    if isinstance(value, tuple):
        return _joined(name, field, dict(enumerate(value)))
    array = to_float32(name, field, np.asarray(value))
    if not array.ndim:
        raise ValueError(f"{name}: field {field!r} has shape (), expected (steps, ...)")
    return array.reshape(len(array), -1)


def _joined(name: str, field: str, parts: Mapping[Any, Any]) -> np.ndarray:
    if not parts:
        raise ValueError(f"{name}: field {field!r} is empty")
    arrays = {key: vectors(name, f"{field}/{key}", part) for key, part in parts.items()}
    steps = len(next(iter(arrays.values())))
    for key, array in arrays.items():
        check_shape(name, f"{field}/{key}", array, (steps, None))
    return np.concatenate(list(arrays.values()), axis=1)


def episode(name: str, names: Mapping[str, str], fields: Mapping[str, Any], extras: Mapping = {}) -> Episodes:
    """One episode of T steps, from observations of T + 1 and fields of T; `truncated` may be absent.

    An episode that ends without a flag counts as truncated.

    Args:
      name: of the file and the episode, for errors.
      names: what the file calls observations, actions, rewards, terminated and truncated.
      fields: by our names: observations and actions, nests of [T + 1, ...] and [T, ...] floating-point numbers;
        rewards, [T] floating-point numbers; terminated and truncated, [T] flags.
      extras: further fields, [T, ...].

    Raises:
      ValueError: a field has another type or shape; the message has its name in the file.
    """
    actions = vectors(name, names["actions"], fields["actions"])
    observations = vectors(name, names["observations"], fields["observations"])
    length = len(actions)
    if not length:
        raise ValueError(f"{name}: field {names['actions']!r} has no steps")
    if len(observations) != length + 1:
        raise ValueError(f"{name}: field {names['observations']!r} has {len(observations)} steps, expected "
                         f"{length + 1}, one more than {names['actions']!r}")
    rewards = np.asarray(fields["rewards"])
    check_shape(name, names["rewards"], rewards, (length,))
    flags = {field: np.zeros(length, bool) for field in ("terminated", "truncated")}
    for field in flags.keys() & fields.keys():
        flags[field] = flat_flags(name, names[field], np.asarray(fields[field]), length)
    flags["truncated"] &= ~flags["terminated"]
    flags["truncated"][-1] |= not flags["terminated"][-1]
    return Episodes(
        observations=observations[:-1],
        actions=actions,
        rewards=to_float32(name, names["rewards"], rewards),
        **flags,
        next_observations=observations[1:],
        starts=np.zeros(1, np.int64),
        extras=dict(extras),
    )


def join(name: str, parts: Sequence[Episodes]) -> Episodes:
    """All episodes of a set as one.

    Raises:
      ValueError: there are none, or the first one of other fields or widths than the first of all.
    """
    if not parts:
        raise ValueError(f"{name}: the data set has no episode with a transition")

    def layout(part: Episodes) -> dict[str, tuple]:
        own = {"observations": part.observations, "actions": part.actions}
        return {field: array.shape[1:] for field, array in {**own, **part.extras}.items()}

    first = layout(parts[0])
    for index, part in enumerate(parts):
        for field in sorted(first.keys() | layout(part).keys()):
            found = layout(part).get(field, "nothing")
            if found != first.get(field, "nothing"):
                raise ValueError(f"{name}: episode {index}: field {field!r} has steps of {found}, the first episode of "
                                 f"{first.get(field, 'nothing')}")
    return concatenate_episodes(parts)
