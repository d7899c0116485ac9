"""Convolutions whose gradients are fast inside a loop on a CPU too."""

import functools
from collections.abc import Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import lax

NUMBERS = ("NHWC", "HWIO", "NHWC")
Padding = str | Sequence[tuple[int, int]]


@functools.partial(jax.custom_vjp, nondiff_argnums=(2, 3))
def convolve(x: jax.Array, kernel: jax.Array, strides: tuple[int, int], padding: Padding) -> jax.Array:
    """Images [B, H, W, C] and a kernel [h, w, C, F] -> [B, H', W', F], as `lax.conv_general_dilated`.

    XLA's CPU compiler brings convolutions into the form that its fast kernels take only where they stand outside of
    loops. A kernel's gradient is not in that form by itself, and is tens of times slower inside `lax.scan` than
    outside. Here, on a CPU, both gradients are written in that form.
    """
    return lax.conv_general_dilated(x, kernel, strides, padding, dimension_numbers=NUMBERS)


def _forward(x: jax.Array, kernel: jax.Array, strides: tuple[int, int], padding: Padding) -> tuple[jax.Array, tuple]:
    return convolve(x, kernel, strides, padding), (x, kernel)


def _backward(
    strides: tuple[int, int], padding: Padding, inputs: tuple[jax.Array, jax.Array], gradient: jax.Array
) -> tuple[jax.Array, jax.Array]:
    def by_xla(x: jax.Array, kernel: jax.Array, gradient: jax.Array) -> tuple[jax.Array, jax.Array]:
        plain = lambda *both: lax.conv_general_dilated(*both, strides, padding, dimension_numbers=NUMBERS)  # noqa: E731
        return jax.vjp(plain, x, kernel)[1](gradient)

    by_hand = functools.partial(_gradients, strides=strides, padding=padding)
    return lax.platform_dependent(*inputs, gradient, cpu=by_hand, default=by_xla)


def _gradients(
    x: jax.Array, kernel: jax.Array, gradient: jax.Array, *, strides: tuple[int, int], padding: Padding
) -> tuple[jax.Array, jax.Array]:
    """The gradients of x and of the kernel. That of x is `gradient`, spread by the strides and convolved with the
    mirrored kernel. That of the kernel is x convolved with `gradient`, with channels and images in each other's place.
    """
    sizes, widths = x.shape[1:3], kernel.shape[:2]
    pads = lax.padtype_to_pads(sizes, widths, strides, padding) if isinstance(padding, str) else padding
    back = []
    for size, width, out, stride, (low, _) in zip(sizes, widths, gradient.shape[1:3], strides, pads, strict=True):
        spread = (out - 1) * stride + 1
        back.append((width - 1 - low, size - spread + low))
    mirrored = jnp.swapaxes(kernel, 2, 3)[::-1, ::-1]
    of_x = lax.conv_general_dilated(gradient, mirrored, (1, 1), back, lhs_dilation=strides, dimension_numbers=NUMBERS)
    of_kernel = lax.conv_general_dilated(
        x.transpose(3, 1, 2, 0), gradient.transpose(1, 2, 0, 3), (1, 1), pads, rhs_dilation=strides,
        dimension_numbers=NUMBERS,
    )
    # Rows and columns that the strides never reached hang over.
    return of_x, of_kernel[:, : widths[0], : widths[1]].transpose(1, 2, 0, 3)


convolve.defvjp(_forward, _backward)


def Conv(features: int, size: tuple[int, int], strides: int | tuple[int, int] = 1, **fields: Any) -> nn.Conv:
    """flax's module, on `convolve`; `fields` are its own, without dilation and groups."""

    def conv_general_dilated(x: jax.Array, kernel: jax.Array, strides: Any, padding: Padding, **rest: Any) -> jax.Array:
        del rest  # dilations and groups of 1, and the layout that flax always has
        padding = padding if isinstance(padding, str) else tuple(map(tuple, padding))
        return convolve(x, kernel, tuple(strides), padding)

    return nn.Conv(features, size, strides, conv_general_dilated=conv_general_dilated, **fields)
