"""Weights made from a parameter's name, so that golden numbers of large trees need not hold them. Only numpy."""

import zlib

import numpy as np


def weight(name: str, shape: tuple[int, ...]) -> np.ndarray:
    """PyTorch's parameter of that name, float32.

    Scales of norms lie around 1, and what matrices and kernels give has about the deviation of what they read.
    """
    draws = np.random.default_rng(zlib.crc32(name.encode())).standard_normal(shape)
    if len(shape) > 1:
        return (draws / np.sqrt(np.prod(shape[1:]))).astype(np.float32)
    return (0.2 * draws + ("norm" in name.split(".")[-2:][0] and name.endswith("weight"))).astype(np.float32)


def numbers(name: str, *shape: int) -> np.ndarray:
    """An input of that name, float32, normal."""
    return np.random.default_rng(zlib.crc32(name.encode())).standard_normal(shape).astype(np.float32)
