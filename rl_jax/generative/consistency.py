"""Consistency models: from any point of a trajectory of the probability-flow ODE to its origin in one call.

Song, Dhariwal, Chen and Sutskever 2023, "Consistency Models", arXiv 2303.01469. They are trained here by easy
consistency tuning (ECT): Geng, Pokle, Luo, Lin and Kolter 2024, "Consistency Models Made Easy", arXiv 2406.14548; or
distilled from a diffusion model by consistency distillation (CD, the first paper's).
"""

import chex
import jax
import jax.numpy as jnp
import numpy as np

from rl_jax.core.program import Key, PyTree
from rl_jax.generative.denoising import Denoise, Info, heun_step, image_distance, per_image

SIGMA_DATA, SIGMA_MIN = 0.5, 0.002  # the images' standard deviation, and the noise at which they count as clean


def earlier_level(t: jax.Array, gap: jax.Array | float) -> jax.Array:
    """r(t) = max(0, t (1 - gap (1 + 8 sigmoid(-t)))): the noise level that a pair of ECT has beside t.

    With a gap of 1 r is 0, and training is denoising; as the gap goes to 0 r goes to t, where the pair's condition is
    that of consistency. Source: ECT, section 3.2, and its code (b = 1, k = 8; gap = q^-(stage + 1)).
    """
    return jnp.maximum(t * (1.0 - gap * (1.0 + 8.0 * jax.nn.sigmoid(-t))), 0.0)


def ect_loss(
    consistency: Denoise, params: PyTree, images: jax.Array, condition: PyTree, key: Key, *, gap: jax.Array | float,
    most: float, sigma_data: float = SIGMA_DATA, huber: float = 0.0, log_mean: float = -1.1, log_std: float = 2.0,
) -> tuple[jax.Array, Info]:
    """Mean of w(t) (sqrt(|f(x_t, t) - f(x_r, r)|^2 + huber^2) - huber), x_t and x_r the same image and noise.

    w(t) = 1 / t^2 + 1 / sigma_data^2; no gradient flows through f(x_r, r), which is the image itself where r is 0.

    Args:
      gap: see `earlier_level`.
      most: t is log-normal, clipped to [SIGMA_MIN, most].
      huber: 0 gives the distance itself.

    Source: ECT, section 3 and its code.
    """
    level_key, noise_key = jax.random.split(key)
    t = jnp.exp(log_mean + log_std * jax.random.normal(level_key, images.shape[:1]))
    t = jnp.clip(t, SIGMA_MIN, most)
    r = earlier_level(t, gap)
    noise = jax.random.normal(noise_key, images.shape)
    origin = consistency(params, images + per_image(t, images) * noise, t, condition)
    # A level of 0 has no logarithm; what it gives is not used.
    other = consistency(params, images + per_image(r, images) * noise, jnp.maximum(r, SIGMA_MIN), condition)
    wanted = jax.lax.stop_gradient(jnp.where(per_image(r, images) > 0, other, images))
    squares = jnp.sum(jnp.square(origin - wanted), axis=tuple(range(1, images.ndim)))
    # The root of 0 has no gradient.
    distance = jnp.sqrt(jnp.maximum(squares, 1e-12) + huber**2) - huber
    loss = jnp.mean((1.0 / jnp.square(t) + 1.0 / sigma_data**2) * distance)
    return loss, {"model/loss": loss, "model/distance": jnp.mean(distance)}


def ect_gap(step: jax.Array, num_steps: int, stages: int) -> jax.Array:
    """2^-1, 2^-2, ... 2^-stages, each for an equal share of `num_steps`."""
    stage = jnp.minimum(step * stages // num_steps, stages - 1)
    return 2.0 ** -(stage + 1.0)


def consistency_distillation_loss(
    consistency: Denoise, params: PyTree, target_params: PyTree, teacher: Denoise, teacher_params: PyTree,
    images: jax.Array, condition: PyTree, key: Key, *, levels: np.ndarray, huber: float | None = None,
) -> tuple[jax.Array, Info]:
    """Mean of d(f(x_t, t), f_target(x_s, s)) over images and neighbours t > s of the levels, each with weight 1.

    x_t = x_0 + t noise, and x_s is one Heun step of the teacher from it, so that both lie on one trajectory. No
    gradient flows through the target.

    Args:
      target_params: of f_target: an exponential mean of `params` that the caller keeps, or `params` themselves.
      teacher: EDM's denoiser.
      images: [B, ...].
      condition: of both models, leaves [B, ...].
      levels: [N], falling to the level at which f is the identity: `karras_levels`, of rho 7 and 18 in the paper.
      huber: None gives d its mean squared difference, a number the pseudo-Huber one; see `image_distance`.

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
    consistency: Denoise, params: PyTree, levels: np.ndarray, sigma_min: float, shape: tuple[int, ...],
    condition: PyTree, key: Key,
) -> jax.Array:
    """Images of a shape [B, ...] by a call at each of the levels, falling; one is enough (Consistency Models,
    algorithm 1)."""
    keys = jax.random.split(key, len(levels))
    images = jnp.zeros(shape)
    for number, (level, own) in enumerate(zip(levels, keys, strict=True)):
        std = np.sqrt(level**2 - sigma_min**2) if number else level
        images = consistency(params, images + std * jax.random.normal(own, shape), jnp.full(shape[0], level), condition)
    return images
