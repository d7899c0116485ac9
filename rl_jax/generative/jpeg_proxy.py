"""An estimate of the size of an image's JPEG file, for rewards that must lie inside a compiled step.

It follows the encoder up to its last stage (ITU-T T.81, 1992: annex A.3.3 the transform, K.1 the table of luma): it
divides the discrete cosine transform of 8x8 blocks by the table, rounds, and replaces each block's mean by its
difference from the block before. The output of the entropy coder grows with the lengths of these integers.
"""

import jax
import jax.numpy as jnp
import numpy as np

FULL = jax.lax.Precision.HIGHEST  # lower precision on an accelerator would change the quantised integers
BLOCK = 8
LUMA = (0.299, 0.587, 0.114)  # of red, green and blue
TABLE = np.array(
    [
        [16, 11, 10, 16, 24, 40, 51, 61],
        [12, 12, 14, 19, 26, 58, 60, 55],
        [14, 13, 16, 24, 40, 57, 69, 56],
        [14, 17, 22, 29, 51, 87, 80, 62],
        [18, 22, 37, 56, 68, 109, 103, 77],
        [24, 35, 55, 64, 81, 104, 113, 92],
        [49, 64, 78, 87, 103, 121, 120, 101],
        [72, 92, 95, 98, 112, 100, 103, 99],
    ]
)  # of quality 50
AT_95 = np.maximum((TABLE * 10 + 50) // 100, 1)  # libjpeg's scaling: (200 - 2 x 95) % from quality 50 on


def _transform() -> np.ndarray:
    """Returns the orthonormal matrix of the discrete cosine transform, one frequency a row."""
    frequencies, places = np.ogrid[:BLOCK, :BLOCK]
    rows = np.sqrt(2 / BLOCK) * np.cos(np.pi * frequencies * (2 * places + 1) / (2 * BLOCK))
    return (rows / np.where(frequencies == 0, np.sqrt(2), 1)).astype(np.float32)


def jpeg_bits_proxy(images: jax.Array) -> jax.Array:
    """Estimates the bits of each image's JPEG of quality 95, float32 [B]: the sum of log2(1 + |q|) of quantised luma.

    It orders images nearly as their files do, but it is not their size: it ignores the header (some 330 bytes of a grey
    file, 620 of a coloured one), colour differences and the entropy coder's runs of zeros. It is piecewise constant, so
    it has no useful gradient.

    Args:
      images: [B, H, W], grey, or [B, H, W, 3], in [0, 255], bytes or floats; floats are rounded.

    Raises:
      ValueError: another shape.
    """
    if images.ndim not in (3, 4) or images.ndim == 4 and images.shape[-1] != 3:
        raise ValueError(f"images are {images.shape}: give [B, H, W] or [B, H, W, 3]")
    x = jnp.clip(jnp.round(images.astype(jnp.float32)), 0.0, 255.0)
    x = jnp.round(jnp.matmul(x, jnp.asarray(LUMA), precision=FULL)) if images.ndim == 4 else x
    height, width = (-side % BLOCK for side in x.shape[1:])
    x = jnp.pad(x - 128.0, ((0, 0), (0, height), (0, width)), "edge")  # completes the blocks at the border
    blocks = x.reshape(len(x), x.shape[1] // BLOCK, BLOCK, x.shape[2] // BLOCK, BLOCK)
    cosines = _transform()
    quantised = jnp.round(jnp.einsum("fi,brisj,gj->brsfg", cosines, blocks, cosines, precision=FULL) / AT_95)
    quantised = quantised.reshape(len(x), -1, BLOCK * BLOCK)
    means = jnp.diff(quantised[..., 0], prepend=0.0)
    return jnp.sum(jnp.log2(1.0 + jnp.abs(quantised.at[..., 0].set(means))), (1, 2))
