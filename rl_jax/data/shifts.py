"""Random shifts of images, the augmentation of DrQ (Yarats et al. 2021, arXiv 2107.09645)."""

import jax
import jax.numpy as jnp


def random_shift(images: jax.Array, key: jax.Array, pixels: int) -> jax.Array:
    """Images [B, ..., H, W, C], each row shifted as a whole by up to `pixels` both ways; borders repeat the edge's."""
    height, width = images.shape[-3:-1]
    wide = ((0, 0),) * (images.ndim - 3) + ((pixels, pixels),) * 2 + ((0, 0),)
    padded = jnp.pad(images, wide, mode="edge")

    def one(row: jax.Array, corner: jax.Array) -> jax.Array:
        rows = jax.lax.dynamic_slice_in_dim(row, corner[0], height, row.ndim - 3)
        return jax.lax.dynamic_slice_in_dim(rows, corner[1], width, row.ndim - 2)

    return jax.vmap(one)(padded, jax.random.randint(key, (images.shape[0], 2), 0, 2 * pixels + 1))
