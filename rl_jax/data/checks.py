"""Checks of arrays that name the data set, the field and the first bad step."""

from collections.abc import Iterable

import numpy as np

ACTION_TOLERANCE = 1e-5  # float32 rounding of actions that were clipped to the box in float64


def check_names(name: str, fields: Iterable[str]) -> None:
    """Raises ValueError at the first name that is neither a printable word nor such words joined by slashes."""
    for field in fields:
        if any(part in ("", ".", "..") or not part.isprintable() for part in field.split("/")):
            raise ValueError(f"{name}: field {field!r} has a name that reads like a path out of the set: rename it")


def check_shape(name: str, field: str, array: np.ndarray, shape: tuple[int | None, ...]) -> None:
    """Raises ValueError unless `array` [...] has `shape`; None stands for any length."""
    fits = array.ndim == len(shape) and all(want is None or got == want for got, want in zip(array.shape, shape))
    if not fits:
        wanted = "(" + ", ".join("any" if want is None else str(want) for want in shape) + ")"
        raise ValueError(f"{name}: field {field!r} has shape {array.shape}, expected {wanted}")


def check_dtype(name: str, field: str, array: np.ndarray, dtype: type) -> None:
    """Raises ValueError unless `array` [...] has exactly `dtype`."""
    if array.dtype != np.dtype(dtype):
        raise ValueError(f"{name}: field {field!r} has dtype {array.dtype}, expected {np.dtype(dtype)}")


def check_all(name: str, field: str, array: np.ndarray, good: np.ndarray, wanted: str) -> None:
    """Raises ValueError naming the first entry of `array` [...] where `good`, bool [...], is False."""
    if good.all():
        return
    index = tuple(int(i) for i in np.unravel_index(int(np.argmin(good)), good.shape))
    place = f"step {index[0]}" + (f", component {', '.join(map(str, index[1:]))}" if len(index) > 1 else "")
    raise ValueError(f"{name}: field {field!r} at {place} is {array[index]}, expected {wanted}")


def check_finite(name: str, field: str, array: np.ndarray) -> None:
    """Raises ValueError naming the first NaN or infinity of `array` [...]."""
    check_all(name, field, array, np.isfinite(array), "a finite number")


def check_actions(name: str, actions: np.ndarray, low: np.ndarray, high: np.ndarray) -> None:
    """Raises ValueError naming the first of `actions` [N, A] outside the box from `low` to `high`, [A] or numbers."""
    low, high = np.broadcast_to(low, actions.shape[1:]), np.broadcast_to(high, actions.shape[1:])
    slack = ACTION_TOLERANCE * np.maximum(1.0, np.minimum(np.abs(low), np.abs(high)))
    inside = (actions >= low - slack) & (actions <= high + slack)
    if not inside.all():
        worst = int(np.argmin(inside)) % actions.shape[1]
        check_all(name, "actions", actions, inside, f"a value in [{low[worst]:g}, {high[worst]:g}]")
