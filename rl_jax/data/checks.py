"""Checks of numpy arrays that name the data set, the field and the first bad step."""

import numpy as np

ACTION_TOLERANCE = 1e-5  # float32 rounding of actions that were clipped to the box in float64


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


def check_actions(name: str, actions: np.ndarray, action_bound: float) -> None:
    """Raises ValueError naming the first of `actions` [N, A] outside [-action_bound, action_bound]."""
    good = np.abs(actions) <= action_bound + ACTION_TOLERANCE
    check_all(name, "actions", actions, good, f"a value in [{-action_bound:g}, {action_bound:g}]")
