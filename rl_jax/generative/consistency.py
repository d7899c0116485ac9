"""Consistency models, which map any point of a trajectory of the probability-flow ODE to its origin in one call.

Song, Dhariwal, Chen and Sutskever 2023, "Consistency Models", arXiv 2303.01469. This module trains them by easy
consistency tuning (ECT; Geng, Pokle, Luo, Lin and Kolter 2024, "Consistency Models Made Easy", arXiv 2406.14548) or
distils them from a diffusion model by the first paper's consistency distillation (CD).
"""

import chex
import jax
import jax.numpy as jnp
import numpy as np

from rl_jax.core.program import Key, PyTree
from rl_jax.generative.denoising import Denoise, Info, heun_step, image_distance, per_image

SIGMA_DATA = 0.5  # the standard deviation of the images
SIGMA_MIN = 0.002  # the noise level at which an image counts as clean


def earlier_level(t: jax.Array, gap: jax.Array | float) -> jax.Array:
    """Returns r(t) = max(0, t (1 - gap (1 + 8 sigmoid(-t)))) [B], the noise level that ECT pairs with t [B].

    With a gap of 1, r is 0 and ECT is denoising training; as the gap goes to 0, r goes to t and the loss enforces
    consistency. Source: ECT, section 3.2, and its code (b = 1, k = 8; gap = q^-(stage + 1)).
    """
    return jnp.maximum(t * (1.0 - gap * (1.0 + 8.0 * jax.nn.sigmoid(-t))), 0.0)


def ect_loss(
    consistency: Denoise, params: PyTree, images: jax.Array, condition: PyTree, key: Key, *, gap: jax.Array | float,
    sigma_max: float, sigma_data: float = SIGMA_DATA, huber: float = 0.0, log_mean: float = -1.1, log_std: float = 2.0,
) -> tuple[jax.Array, Info]:
    """Computes the mean of w(t) (sqrt(|f(x_t, t) - f(x_r, r)|^2 + huber^2) - huber) over a batch.

    x_t and x_r add the same noise to the same image, and w(t) = 1 / t^2 + 1 / sigma_data^2. No gradient flows through
    f(x_r, r), which is the image itself where r is 0.

    Args:
      images: [B, ...].
      condition: leaves [B, ...].
      gap: see `earlier_level`.
      sigma_max: t is log-normal, clipped to [SIGMA_MIN, sigma_max].
      huber: of the pseudo-Huber distance; 0 gives the Euclidean distance.

    Returns:
      (loss, info) with `model/loss` and `model/distance`, the unweighted mean.

    Source: ECT, section 3 and its code.
    """
    level_key, noise_key = jax.random.split(key)
    t = jnp.exp(log_mean + log_std * jax.random.normal(level_key, images.shape[:1]))
    t = jnp.clip(t, SIGMA_MIN, sigma_max)
    r = earlier_level(t, gap)
    noise = jax.random.normal(noise_key, images.shape)
    origin = consistency(params, images + per_image(t, images) * noise, t, condition)
    # A level of 0 has no logarithm; its output is not used below.
    other = consistency(params, images + per_image(r, images) * noise, jnp.maximum(r, SIGMA_MIN), condition)
    target = jax.lax.stop_gradient(jnp.where(per_image(r, images) > 0, other, images))
    squares = jnp.sum(jnp.square(origin - target), axis=tuple(range(1, images.ndim)))
    # The square root has no gradient at 0.
    distance = jnp.sqrt(jnp.maximum(squares, 1e-12) + huber**2) - huber
    loss = jnp.mean((1.0 / jnp.square(t) + 1.0 / sigma_data**2) * distance)
    return loss, {"model/loss": loss, "model/distance": jnp.mean(distance)}


def ect_gap(step: jax.Array, num_steps: int, stages: int) -> jax.Array:
    """Returns the gap at a step: 2^-1, 2^-2, ... 2^-stages, each for an equal share of `num_steps`."""
    stage = jnp.minimum(step * stages // num_steps, stages - 1)
    return 2.0 ** -(stage + 1.0)


def consistency_distillation_loss(
    consistency: Denoise, params: PyTree, target_params: PyTree, teacher: Denoise, teacher_params: PyTree,
    images: jax.Array, condition: PyTree, key: Key, *, levels: np.ndarray, huber: float | None = None,
) -> tuple[jax.Array, Info]:
    """Computes the mean of d(f(x_t, t), f_target(x_s, s)) over images and neighbours t > s of the levels, unweighted.

    x_t = x_0 + t noise, and x_s is one Heun step of the teacher from x_t, so that both lie on one trajectory. No
    gradient flows through the target.

    Args:
      target_params: of f_target: an exponential moving average of `params`, or `params` themselves.
      teacher: EDM's denoiser.
      images: [B, ...].
      condition: of both models, leaves [B, ...].
      levels: [N], falling to the level at which f is the identity; the paper has `karras_levels` with N = 18, rho = 7.
      huber: see `image_distance`.

    Returns:
      (loss, info) with `model/loss`.

    Source: Consistency Models, algorithm 2 and section 5.
    """
    chex.assert_rank(levels, 1)
    level_key, noise_key = jax.random.split(key)
    index = jax.random.randint(level_key, images.shape[:1], 0, len(levels) - 1)
    t, s = jnp.asarray(levels)[index], jnp.asarray(levels)[index + 1]
    noisy = images + per_image(t, images) * jax.random.normal(noise_key, images.shape)
    earlier = heun_step(teacher, teacher_params, noisy, t, s, condition)
    target = jax.lax.stop_gradient(consistency(target_params, earlier, s, condition))
    loss = jnp.mean(image_distance(consistency(params, noisy, t, condition), target, huber))
    return loss, {"model/loss": loss}


def multistep(
    consistency: Denoise, params: PyTree, levels: jax.Array, sigma_min: float, shape: tuple[int, ...],
    condition: PyTree, key: Key, num_calls: int | jax.Array | None = None,
) -> jax.Array:
    """Samples images of a shape [B, ...] by one call of the model at each noise level.

    Args:
      levels: [K], falling.
      condition: leaves [B, ...].
      num_calls: how many of the levels to use, from the first one; None for all. It may be traced, so that samplers of
        different lengths share one compiled function.

    Source: Consistency Models, algorithm 1.
    """
    levels, keys = jnp.asarray(levels), jax.random.split(key, len(levels))
    stds = jnp.sqrt(jnp.square(levels) - sigma_min**2).at[0].set(levels[0])

    def call(number: jax.Array, images: jax.Array) -> jax.Array:
        noisy = images + stds[number] * jax.random.normal(keys[number], shape)
        return consistency(params, noisy, jnp.full(shape[0], levels[number]), condition)

    return jax.lax.fori_loop(0, len(levels) if num_calls is None else num_calls, call, jnp.zeros(shape))
