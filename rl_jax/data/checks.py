"""Checks of files and arrays that name the data set, the field and the first bad step."""

import contextlib
from collections.abc import Iterable, Iterator, Mapping

import numpy as np
import psutil

MEMORY_SHARE = 0.5  # of the memory available that a set's arrays may take: readers keep a second copy for a while
ACTION_TOLERANCE = 1e-5  # float32 rounding of actions that were clipped to the box in float64


@contextlib.contextmanager
def readable(name: str, kind: str, field: str = "") -> Iterator[None]:
    """Turns whatever a library raises at a damaged file into one ValueError that names the file and the field.

    Only calls of the library belong inside: a damaged file makes it raise errors of nearly any type.
    """
    try:
        yield
    except FileNotFoundError:
        raise
    except Exception as error:
        where = f", field {field!r}" if field else ""
        message = " ".join(str(error).split())
        raise ValueError(
            f"{name}: not a readable {kind}{where} (damaged or cut off?): {type(error).__name__}: {message}"
        ) from error


def check_sizes(name: str, sizes: Mapping[str, int]) -> None:
    """Raises ValueError where arrays of these declared `sizes`, bytes by field, do not fit the memory."""
    total, available = sum(sizes.values()), psutil.virtual_memory().available
    if total > MEMORY_SHARE * available:
        field = max(sizes, key=sizes.__getitem__)
        raise ValueError(
            f"{name}: field {field!r} declares {sizes[field] / 1e9:.2f} GB and all fields {total / 1e9:.2f} GB; with "
            f"{available / 1e9:.2f} GB of memory available, at most {MEMORY_SHARE:.0%} of it are read: use a part of "
            "the set, or a machine with more memory"
        )


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
