"""Pictures of many images."""

from collections.abc import Callable
from pathlib import Path

import jax
import numpy as np
from ml_collections import ConfigDict

from rl_jax.core.extras import require
from rl_jax.core.program import PyTree
from rl_jax.generative.domain import Domain
from rl_jax.generative.policy import sample


def save_grid(images: np.ndarray, columns: int, path: Path) -> None:
    """Writes uint8 images [R * columns, H, W(, 3)] as a PNG of R rows, separated by a white pixel."""
    pillow = require("PIL.Image", "generative")
    rows = images.reshape(-1, columns, *images.shape[1:])
    padded = np.pad(rows, ((0, 0), (0, 0), (0, 1), (0, 1)) + ((0, 0),) * (rows.ndim - 4), constant_values=255)
    pillow.fromarray(np.concatenate([np.concatenate(list(row), 1) for row in padded])).save(path)


def painter(domain: Domain, model: ConfigDict, rows: int, columns: int) -> Callable[[PyTree, Path], None]:
    """Returns (params, path) -> None, which writes a picture of images of some prompts, one row each.

    The noise is always the same, so that pictures of several models can be compared.

    Args:
      model: `config.model`.
      rows: at most; the prompts are spread over all.
      columns: images of a prompt.
    """
    num_rows = min(rows, len(domain.names))
    prompts = np.repeat(np.linspace(0, len(domain.names) - 1, num_rows).round().astype(np.int32), columns)
    shape, sampler = (len(prompts), *domain.images.shape[1:]), domain.sampler(model)

    @jax.jit
    def sampled(params: PyTree, frozen: PyTree) -> jax.Array:
        return domain.decode(frozen, sample(sampler, params, shape, prompts, jax.random.key(0)).final)

    def paint(params: PyTree, path: Path) -> None:
        save_grid(domain.render(np.asarray(sampled(params, domain.frozen))), columns, path)

    return paint
