"""Files of images and curves of a run."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from rl_jax.core.extras import require
from rl_jax.evaluation.figures import plot_curves


def save_grid(images: np.ndarray, columns: int, path: Path) -> None:
    """Writes uint8 images [R * columns, H, W(, 3)] as a PNG of R rows, with a pixel of white between them."""
    pillow = require("PIL.Image", "generative")
    rows = images.reshape(-1, columns, *images.shape[1:])
    padded = np.pad(rows, ((0, 0), (0, 0), (0, 1), (0, 1)) + ((0, 0),) * (rows.ndim - 4), constant_values=255)
    pillow.fromarray(np.concatenate([np.concatenate(list(row), 1) for row in padded])).save(path)


def save_rewards(curves: Mapping[str, tuple[np.ndarray, np.ndarray, np.ndarray]], score: str, path: Path) -> None:
    """Draws what images are worth against images rewarded and against seconds of training, side by side.

    Args:
      curves: label -> (images [T], seconds [T], worth [T, S]).
      score: what they are worth.
    """
    panels = {
        "images rewarded": {label: (images, worth) for label, (images, _, worth) in curves.items()},
        "seconds of training, a run": {label: (seconds, worth) for label, (_, seconds, worth) in curves.items()},
    }
    plot_curves(panels, path, labels=list(curves), score=score, x_label="")
