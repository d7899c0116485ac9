"""A picture of many images."""

from pathlib import Path

import numpy as np

from rl_jax.core.extras import require


def save_grid(images: np.ndarray, columns: int, path: Path) -> None:
    """Writes uint8 images [R * columns, H, W(, 3)] as a PNG of R rows, separated by a white pixel."""
    pillow = require("PIL.Image", "generative")
    rows = images.reshape(-1, columns, *images.shape[1:])
    padded = np.pad(rows, ((0, 0), (0, 0), (0, 1), (0, 1)) + ((0, 0),) * (rows.ndim - 4), constant_values=255)
    pillow.fromarray(np.concatenate([np.concatenate(list(row), 1) for row in padded])).save(path)
