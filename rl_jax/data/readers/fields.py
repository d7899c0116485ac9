"""What the readers share: fields by name from a mapping of arrays, turned into the types of `Episodes`."""

from collections.abc import Iterable, Mapping

import numpy as np

from rl_jax.data.checks import check_finite, check_shape


def require_fields(name: str, present: Iterable[str], wanted: Iterable[str]) -> None:
    """Raises ValueError naming the first of `wanted` that is not in `present`."""
    present = sorted(present)
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
    bad = (array != 0) & (array != 1)
    if bad.any():
        index = int(np.argmax(bad))
        raise ValueError(f"{name}: field {field!r} at step {index} is {array[index]}, expected 0 or 1")
    return array.astype(bool)
