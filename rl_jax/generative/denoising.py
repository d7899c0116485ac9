"""Noise levels, preconditioning and the denoising loss, which consistency and diffusion models share.

Karras, Aittala, Aila and Laine 2022, "Elucidating the Design Space of Diffusion-Based Generative Models" (EDM), arXiv
2206.00364. A noisy image is x_t = x_0 + t * noise, where t is the standard deviation of the noise. The probability-flow
ODE of this process is dx/dt = (x - D(x, t)) / t, where D is the denoiser E[x_0 | x_t].
"""

from collections.abc import Callable

import chex
import jax
import jax.numpy as jnp
import numpy as np

from rl_jax.core.program import Key, PyTree

Info = dict[str, jax.Array]
# network(params, x [B, ...], noise label [B], condition with leaves [B, ...]) -> [B, ...]
Network = Callable[[PyTree, jax.Array, jax.Array, PyTree], jax.Array]
# denoise(params, x [B, ...], t [B], condition) -> images [B, ...]: the denoiser E[x_0 | x_t] of a diffusion model, or
# the consistency function, which maps x_t to the origin of its ODE trajectory
Denoise = Callable[[PyTree, jax.Array, jax.Array, PyTree], jax.Array]


def per_image(values: jax.Array, images: jax.Array) -> jax.Array:
    """Reshapes values [B] to [B, 1, ...], so that they broadcast against images [B, ...]."""
    return values.reshape(values.shape + (1,) * (images.ndim - values.ndim))


def karras_levels(number: int, sigma_min: float, sigma_max: float, rho: float = 7.0) -> np.ndarray:
    """Returns noise levels [number] float32, falling from `sigma_max` to `sigma_min`, dense near `sigma_min`.

    Source: EDM, equation 5.
    """
    first, last = sigma_max ** (1 / rho), sigma_min ** (1 / rho)
    return ((first + np.linspace(0.0, 1.0, number) * (last - first)) ** rho).astype(np.float32)


def geometric_levels(number: int, sigma_min: float, sigma_max: float) -> np.ndarray:
    """Returns noise levels [number] float32, a geometric sequence from `sigma_max` down to `sigma_min`."""
    return np.geomspace(sigma_max, sigma_min, number).astype(np.float32)


def scalings(
    t: jax.Array, sigma_data: float, sigma_min: float = 0.0
) -> tuple[jax.Array, jax.Array, jax.Array, jax.Array]:
    """Returns (c_skip, c_out, c_in, c_noise), each [B], at noise levels t [B].

    The model is c_skip x + c_out F(c_in x, c_noise), where the network F has inputs and targets of unit variance. With
    `sigma_min` above 0 the model is the identity at t = sigma_min (c_skip = 1, c_out = 0), as a consistency function
    must be; with `sigma_min` 0 it is EDM's denoiser.

    Source: EDM, table 1; Song, Dhariwal, Chen and Sutskever 2023, "Consistency Models", arXiv 2303.01469, appendix C.
    """
    variance = sigma_data**2
    c_skip = variance / (jnp.square(t - sigma_min) + variance)
    c_out = sigma_data * (t - sigma_min) / jnp.sqrt(jnp.square(t) + variance)
    c_in = 1.0 / jnp.sqrt(jnp.square(t) + variance)
    return c_skip, c_out, c_in, jnp.log(t) / 4.0


def scaled(network: Network, sigma_data: float, sigma_min: float = 0.0) -> Denoise:
    """Wraps a network in the preconditioning of `scalings`."""

    def denoise(params: PyTree, x: jax.Array, t: jax.Array, condition: PyTree) -> jax.Array:
        chex.assert_shape(t, x.shape[:1])
        c_skip, c_out, c_in, c_noise = scalings(t, sigma_data, sigma_min)
        out = network(params, per_image(c_in, x) * x, c_noise, condition)
        return per_image(c_skip, x) * x + per_image(c_out, x) * out

    return denoise


def denoising_loss(
    denoise: Denoise, params: PyTree, images: jax.Array, condition: PyTree, key: Key, *, sigma_data: float,
    log_mean: float = -1.2, log_std: float = 1.2,
) -> tuple[jax.Array, Info]:
    """Computes the mean of (t^2 + sigma_data^2) / (t sigma_data)^2 (D(x_0 + t noise, t) - x_0)^2 with log-normal t.

    Args:
      images: [B, ...].
      condition: leaves [B, ...].

    Returns:
      (loss, info) with `model/loss`.

    Source: EDM, equations 2 and 8 and table 1.
    """
    level_key, noise_key = jax.random.split(key)
    t = jnp.exp(log_mean + log_std * jax.random.normal(level_key, images.shape[:1]))
    noisy = images + per_image(t, images) * jax.random.normal(noise_key, images.shape)
    weights = (jnp.square(t) + sigma_data**2) / jnp.square(t * sigma_data)
    errors = jnp.square(denoise(params, noisy, t, condition) - images)
    loss = jnp.mean(per_image(weights, images) * errors)
    return loss, {"model/loss": loss}


def heun_step(
    denoise: Denoise, params: PyTree, x: jax.Array, t: jax.Array, s: jax.Array, condition: PyTree
) -> jax.Array:
    """Takes one Heun step along the probability-flow ODE from x = x_t to x_s [B, ...], by two calls of the denoiser.

    With d(x, t) = (x - D(x, t)) / t and e = x + (s - t) d(x, t), it returns x_s = x + (s - t) (d(x, t) + d(e, s)) / 2,
    whose error is O(|t - s|^3).

    Args:
      x: [B, ...].
      t, s: [B], above 0.

    Source: EDM, algorithm 1.
    """
    chex.assert_shape([t, s], x.shape[:1])

    def slope(x: jax.Array, t: jax.Array) -> jax.Array:
        return (x - denoise(params, x, t, condition)) / per_image(t, x)

    first = slope(x, t)
    second = slope(x + per_image(s - t, x) * first, s)
    return x + per_image(s - t, x) * (first + second) / 2.0


def image_distance(x: jax.Array, y: jax.Array, huber: float | None) -> jax.Array:
    """Returns the distance [B] of images [B, ...]: the mean over an image's numbers of (x - y)^2.

    With `huber` it is the mean of the pseudo-Huber distance sqrt((x - y)^2 + huber^2) - huber.
    """
    chex.assert_equal_shape([x, y])
    squares = jnp.square(x - y)
    terms = squares if huber is None else jnp.sqrt(squares + huber**2) - huber
    return jnp.mean(terms, tuple(range(1, x.ndim)))
