"""Diffusion models with discrete timesteps that predict noise, such as Stable Diffusion and latent consistency models.

Ho, Jain and Abbeel 2020 (DDPM), arXiv 2006.11239; Song, Meng and Ermon 2021 (DDIM), arXiv 2010.02502; Luo, Tan, Huang,
Li and Zhao 2023, "Latent Consistency Models" (LCM), arXiv 2310.04378.

Their noisy image at timestep t is sqrt(a_t) x_0 + sqrt(1 - a_t) noise, where a_t falls from 1 to nearly 0. Divided by
sqrt(a_t) it is x_0 + sigma_t noise with sigma_t = sqrt((1 - a_t) / a_t), the notation of `denoising`.
`from_noise_prediction` and `latent_consistency` turn a noise-predicting network into a model that the samplers of
`policy` call.
"""

import chex
import jax
import jax.numpy as jnp
import numpy as np

from rl_jax.core.program import Key, PyTree
from rl_jax.generative.denoising import Denoise, Info, Network, image_distance, per_image

TIMESTEPS = 1000
TIMESTEP_SCALING = 10.0  # of LCM's boundary condition


def scaled_linear_alphas(number: int = TIMESTEPS, first: float = 0.00085, last: float = 0.012) -> np.ndarray:
    """Returns a_t of all timesteps, float32 [number]: the product of 1 - beta, with sqrt(beta) linear in the timestep.

    Args:
      first, last: beta of the first and of the last timestep.

    Source: Stable Diffusion's `scaled_linear` schedule.
    """
    betas = np.linspace(first**0.5, last**0.5, number, dtype=np.float64) ** 2
    return np.cumprod(1.0 - betas).astype(np.float32)


def noise_levels(alphas: np.ndarray) -> np.ndarray:
    """Returns sigma_t [T] float32 of a_t [T]; see the module."""
    alphas = np.asarray(alphas, np.float64)
    return np.sqrt((1.0 - alphas) / alphas).astype(np.float32)


def ddim_timesteps(number: int, timesteps: int = TIMESTEPS, offset: int = 1) -> np.ndarray:
    """Returns Stable Diffusion's timesteps for `number` calls, falling, int [number]: 981, 961, ..., 1 for 50.

    Raises:
      ValueError: there are not that many timesteps.
    """
    _check_calls(number, timesteps)
    found = (np.arange(number) * (timesteps // number) + offset)[::-1]
    if found[0] >= timesteps:
        raise ValueError(f"{number} calls of the model begin at timestep {found[0]}, and there are {timesteps}")
    return found


def lcm_timesteps(number: int, timesteps: int = TIMESTEPS, origin: int = 50) -> np.ndarray:
    """Returns LCM's timesteps for `number` calls, falling, int [number]: 999, 879, ..., 159 for 8.

    Of the `origin` timesteps at which the model was distilled they are every (origin // number)-th, from the last one.

    Raises:
      ValueError: there are not that many timesteps.
    """
    _check_calls(number, origin)
    if origin > timesteps:
        raise ValueError(f"the model was distilled at {origin} timesteps, and there are {timesteps}")
    distilled = np.arange(1, origin + 1) * (timesteps // origin) - 1
    return distilled[:: -(origin // number)][:number]


def _check_calls(number: int, maximum: int) -> None:
    if not 1 <= number <= maximum:
        raise ValueError(f"{number} calls of the model: give 1 to {maximum}")


def from_noise_prediction(network: Network, alphas: np.ndarray) -> Denoise:
    """Makes the denoiser D(x, sigma) = x - sigma noise of a network (params, x, timesteps [B], condition) -> noise.

    A noise level is mapped to the nearest timestep.
    """
    levels = noise_levels(alphas)

    def denoise(params: PyTree, x: jax.Array, t: jax.Array, condition: PyTree) -> jax.Array:
        chex.assert_shape(t, x.shape[:1])
        scaled = x / per_image(jnp.sqrt(1.0 + jnp.square(t)), x)  # 1 / sqrt(1 + sigma_t^2) = sqrt(a_t)
        return x - per_image(t, x) * network(params, scaled, _timesteps(levels, t), condition)

    return denoise


def latent_consistency(network: Network, alphas: np.ndarray, sigma_data: float = 0.5) -> Denoise:
    """Makes LCM's consistency function c_out D(x, sigma) + c_skip x sqrt(a_t), the identity at timestep 0.

    With t the timestep, c_skip = sigma_data^2 / ((10 t)^2 + sigma_data^2) and
    c_out = 10 t / sqrt((10 t)^2 + sigma_data^2), so that c_skip is nearly 0 at all timesteps that are sampled.

    Source: LCM, appendix and code.
    """
    denoise, levels = from_noise_prediction(network, alphas), noise_levels(alphas)

    def consistency(params: PyTree, x: jax.Array, t: jax.Array, condition: PyTree) -> jax.Array:
        scaled_time = TIMESTEP_SCALING * _timesteps(levels, t)
        total = jnp.square(scaled_time) + sigma_data**2
        c_skip, c_out = sigma_data**2 / total, scaled_time / jnp.sqrt(total)
        kept = per_image(c_skip / jnp.sqrt(1.0 + jnp.square(t)), x) * x
        return kept + per_image(c_out, x) * denoise(params, x, t, condition)

    return consistency


def _timesteps(levels: np.ndarray, t: jax.Array) -> jax.Array:
    """Returns the indices [B] of the levels whose logarithms are nearest to log t, for t [B]."""
    return jnp.round(jnp.interp(jnp.log(t), np.log(levels), np.arange(len(levels))))


def guided(network: Network, unconditional: PyTree, scale: float | jax.Array) -> Network:
    """Applies classifier-free guidance, noise(empty) + scale (noise(condition) - noise(empty)), in one doubled call.

    Args:
      unconditional: the condition of an empty prompt, leaves [1, ...].
      scale: a number, or one for each image [B, 1, ...]; 1 gives the conditional model.

    Source: Ho and Salimans 2022, arXiv 2207.12598, equation 6, whose w is scale - 1.
    """

    def both(params: PyTree, x: jax.Array, timesteps: jax.Array, condition: PyTree) -> jax.Array:
        def doubled(empty: jax.Array, own: jax.Array) -> jax.Array:
            return jnp.concatenate([jnp.broadcast_to(empty, own.shape), own])

        conditions = jax.tree.map(doubled, unconditional, condition)
        noise = network(params, jnp.concatenate([x, x]), jnp.concatenate([timesteps, timesteps]), conditions)
        empty, own = jnp.split(noise, 2)
        return empty + scale * (own - empty)

    return both


def ddim_step(
    x: jax.Array, noise: jax.Array, alpha: jax.Array, next_alpha: jax.Array, eta: float
) -> tuple[jax.Array, jax.Array]:
    """Returns (mean [B, ...], std [B]) of the next noisy image after x, in DDIM's own notation.

    Args:
      x, noise: [B, ...], the noisy image at a_t and the network's prediction.
      alpha, next_alpha: [B], a_t of this and of the next timestep, which is larger.
      eta: 0 for the deterministic sampler, 1 for DDPO's.

    Source: DDIM, equations 12 and 16.
    """
    chex.assert_equal_shape([x, noise])
    std = eta * jnp.sqrt((1.0 - next_alpha) / (1.0 - alpha) * (1.0 - alpha / next_alpha))
    clean = (x - per_image(jnp.sqrt(1.0 - alpha), x) * noise) / per_image(jnp.sqrt(alpha), x)
    towards_x = jnp.sqrt(1.0 - next_alpha - jnp.square(std))
    return per_image(jnp.sqrt(next_alpha), x) * clean + per_image(towards_x, x) * noise, std


def noise_prediction_loss(
    network: Network, params: PyTree, images: jax.Array, condition: PyTree, key: Key, *, alphas: np.ndarray
) -> tuple[jax.Array, Info]:
    """Computes the mean of (network(noisy, t) - noise)^2, with t uniform over the timesteps (DDPM, equation 14).

    Args:
      images: [B, ...].
      condition: leaves [B, ...].
      alphas: [T], a_t.

    Returns:
      (loss, info) with `model/loss`.
    """
    time_key, noise_key = jax.random.split(key)
    timesteps = jax.random.randint(time_key, images.shape[:1], 0, len(alphas))
    alpha = per_image(jnp.asarray(alphas)[timesteps], images)
    noise = jax.random.normal(noise_key, images.shape)
    noisy = jnp.sqrt(alpha) * images + jnp.sqrt(1.0 - alpha) * noise
    loss = jnp.mean(jnp.square(network(params, noisy, timesteps, condition) - noise))
    return loss, {"model/loss": loss}


def latent_consistency_distillation_loss(
    network: Network, params: PyTree, target_params: PyTree, teacher: Network, teacher_params: PyTree,
    latents: jax.Array, condition: PyTree, unconditional: PyTree, key: Key, *, alphas: np.ndarray,
    guidance: tuple[float, float] = (2.0, 14.0), skip: int = 20, huber: float = 0.001,
) -> tuple[jax.Array, Info]:
    """Computes the mean of d(f(z_t, t, w), f_target(z_s, s, w)), with f the `latent_consistency` of the network.

    s = t - skip, z_t is a noisy latent and z_s the teacher's DDIM step from z_t with guidance w. With e the teacher's
    prediction of the noise,

        e = e(condition) + w (e(condition) - e(empty)),   z_s = sqrt(a_s) x_0(z_t, e) + sqrt(1 - a_s) e.

    d is the pseudo-Huber distance. w is uniform over `guidance` for each image. t is uniform over skip - 1,
    2 skip - 1, ..., and s of the first of these is 0. No gradient flows through the target.

    Args:
      network: its condition is (condition, w [B]), because w is distilled into it; w is the scale of `guided` minus 1.
      target_params: an exponential moving average of `params`, or `params` themselves.
      teacher: a noise-predicting network that takes the condition alone.
      latents: [B, ...], in the U-Net's units.
      unconditional: the condition of an empty prompt, leaves [1, ...].
      alphas: [T], a_t.

    Raises:
      ValueError: `skip` is below 1 or above T.

    Source: LCM, algorithm 1, and the code of its authors.
    """
    if not 1 <= skip <= len(alphas):
        raise ValueError(f"skip is {skip}: give 1 to {len(alphas)}, the number of timesteps")
    level_key, noise_key, guidance_key = jax.random.split(key, 3)
    timesteps = jnp.arange(skip - 1, len(alphas), skip)
    start = timesteps[jax.random.randint(level_key, latents.shape[:1], 0, len(timesteps))]
    levels = jnp.asarray(noise_levels(alphas))
    t, s = levels[start], levels[jnp.maximum(start - skip, 0)]
    w = jax.random.uniform(guidance_key, latents.shape[:1], minval=guidance[0], maxval=guidance[1])
    chex.assert_shape([t, s, w], latents.shape[:1])
    noisy = latents + per_image(t, latents) * jax.random.normal(noise_key, latents.shape)
    guided_teacher = guided(teacher, unconditional, per_image(1.0 + w, latents))
    predicted = guided_teacher(
        teacher_params, noisy / per_image(jnp.sqrt(1.0 + jnp.square(t)), noisy), start, condition
    )
    # Divided by sqrt(a), DDIM's step is Euler's step along dx / dsigma = noise.
    earlier = noisy + per_image(s - t, latents) * predicted
    model = latent_consistency(network, alphas)
    target = jax.lax.stop_gradient(model(target_params, earlier, s, (condition, w)))
    loss = jnp.mean(image_distance(model(params, noisy, t, (condition, w)), target, huber))
    return loss, {"model/loss": loss}
