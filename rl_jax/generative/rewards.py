"""Rewards of images that the host computes: registered functions of bytes and prompts.

Source: Black et al. 2023 (DDPO), arXiv 2305.13301, section 5 and its code.
"""

import io
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import numpy as np

from rl_jax.core.config import unknown
from rl_jax.core.extras import require

QUALITY = 95  # of JPEG
# (uint8 images [B, H, W] or [B, H, W, 3], prompt numbers [B]) -> rewards [B] float32
Reward = Callable[[np.ndarray, np.ndarray], np.ndarray]

_THREADS: list[ThreadPoolExecutor] = []


def jpeg_sizes(images: np.ndarray) -> np.ndarray:
    """Bytes of each image as a JPEG of quality 95, int64 [B]; by Pillow, in threads.

    Args:
      images: uint8 [B, H, W], grey, or [B, H, W, 3].

    Raises:
      ValueError: they are none.
    """
    images = np.asarray(images)
    if images.dtype != np.uint8 or not (images.ndim == 3 or images.ndim == 4 and images.shape[-1] == 3):
        raise ValueError(f"images are {images.dtype} {images.shape}: give uint8 [B, H, W] or [B, H, W, 3]")
    pillow = require("PIL.Image", "generative")

    def size(image: np.ndarray) -> int:
        buffer = io.BytesIO()
        pillow.fromarray(image).save(buffer, "JPEG", quality=QUALITY)
        return buffer.tell()

    if not _THREADS:  # Pillow encodes without Python's lock
        _THREADS.append(ThreadPoolExecutor(os.cpu_count(), thread_name_prefix="jpeg"))
    return np.fromiter(_THREADS[0].map(size, images), np.int64, len(images))


def compressibility(images: np.ndarray, prompts: np.ndarray) -> np.ndarray:
    """Minus the kilobytes of a JPEG."""
    del prompts
    return (-jpeg_sizes(images) / 1000.0).astype(np.float32)


def incompressibility(images: np.ndarray, prompts: np.ndarray) -> np.ndarray:
    """The kilobytes of a JPEG."""
    return -compressibility(images, prompts)


REWARDS: dict[str, Reward] = {"compressibility": compressibility, "incompressibility": incompressibility}


def reward(name: str) -> Reward:
    """A registered reward; ValueError names the near ones where there is none."""
    if name not in REWARDS:
        raise ValueError(unknown("reward", name, REWARDS))
    return REWARDS[name]


def to_bytes(images: np.ndarray, scale: float, offset: float) -> np.ndarray:
    """uint8 images of float ones: 255 (scale x + offset), cut to the range of bytes and rounded.

    Raises:
      ValueError: a number is not finite.
    """
    images = np.asarray(images, np.float32)
    bad = ~np.isfinite(images)
    if bad.any():
        where = np.argwhere(bad)[0].tolist()
        raise ValueError(f"images{where} is {images[tuple(where)]} ({bad.sum()} such numbers): the model has diverged")
    return np.rint(np.clip(255.0 * (scale * images + offset), 0.0, 255.0)).astype(np.uint8)
