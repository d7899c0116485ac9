"""Images with captions: what text-conditioned image models and similarity models train on."""

from pathlib import Path
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from rl_jax.core.arrays import read_arrays
from rl_jax.data.readers.fields import require_fields


class CaptionedImages(NamedTuple):
    """Images, each with a caption.

    Attributes:
      images: uint8 [N, H, W, 3].
      captions: N of them; several images may share one.
    """

    images: np.ndarray
    captions: tuple[str, ...]


def load_captioned_images(path: str | Path) -> CaptionedImages:
    """Reads an npz file of `images`, uint8 [N, H, W, 3], or with transparency [N, H, W, 4], and `captions` [N].

    Transparent pixels are laid over white.

    Raises:
      FileNotFoundError or ValueError: the message names the file, what is wrong and what it should be.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such file of images and captions")
    arrays = read_arrays(path)
    require_fields(str(path), arrays, ("images", "captions"))
    images, captions = arrays["images"], arrays["captions"]
    if images.dtype != np.uint8 or images.ndim != 4 or images.shape[-1] not in (3, 4) or not len(images):
        raise ValueError(f"{path}: images are {images.dtype} {images.shape}: give uint8 [N, H, W, 3] or [N, H, W, 4]")
    if captions.dtype.kind != "U" or captions.shape != (len(images),):
        raise ValueError(
            f"{path}: captions are {captions.dtype} {captions.shape}: give {len(images)} strings, one for each image"
        )
    empty = [number for number, caption in enumerate(captions) if not caption.strip()]
    if empty:
        raise ValueError(f"{path}: captions[{empty[0]}] is empty ({len(empty)} such ones)")
    return CaptionedImages(over_white(images), tuple(map(str, captions)))


def over_white(images: np.ndarray) -> np.ndarray:
    """uint8 [N, H, W, 3] of images with transparency [N, H, W, 4]; others stay."""
    if images.shape[-1] == 3:
        return images
    opaque = images[..., 3:].astype(np.float32) / 255.0
    return np.rint(opaque * images[..., :3] + (1.0 - opaque) * 255.0).astype(np.uint8)


def augmented(images: jax.Array, key: jax.Array, max_shift: int) -> jax.Array:
    """Images [B, H, W, C], half of them mirrored, each moved by up to `max_shift` pixels along both axes.

    Pixels that come in from outside repeat those at the edge.
    """
    flip_key, shift_key = jax.random.split(key)
    flipped = jax.random.bernoulli(flip_key, shape=images.shape[:1])
    images = jnp.where(flipped[:, None, None, None], images[:, :, ::-1], images)
    padded = jnp.pad(images, ((0, 0), (max_shift, max_shift), (max_shift, max_shift), (0, 0)), mode="edge")
    starts = jax.random.randint(shift_key, (len(images), 2), 0, 2 * max_shift + 1)

    def window(image: jax.Array, start: jax.Array) -> jax.Array:
        return jax.lax.dynamic_slice(image, (start[0], start[1], 0), images.shape[1:])

    return jax.vmap(window)(padded, starts)
