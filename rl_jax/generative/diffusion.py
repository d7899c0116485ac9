"""Diffusion models of discrete timesteps that predict noise, as Stable Diffusion and latent consistency models are.

Ho, Jain and Abbeel 2020 (DDPM), arXiv 2006.11239; Song, Meng and Ermon 2021 (DDIM), arXiv 2010.02502; Luo, Tan, Huang,
Li and Zhao 2023, "Latent Consistency Models" (LCM), arXiv 2310.04378.

Their noisy image at timestep t is sqrt(a_t) x_0 + sqrt(1 - a_t) noise, with a_t falling from 1 to nearly 0. Divided by
sqrt(a_t) it is x_0 + sigma_t noise, the notation of `denoising`, with sigma_t = sqrt((1 - a_t) / a_t):
`from_noise_prediction` and `latent_consistency` make of a noise-predicting network what the samplers of `policy` call.
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
    """a_t of all timesteps, float32 [number]: the product of 1 - beta, sqrt(beta) linear from `first` to `last`.

    Source: Stable Diffusion's `scaled_linear` schedule.
    """
    betas = np.linspace(first**0.5, last**0.5, number, dtype=np.float64) ** 2
    return np.cumprod(1.0 - betas).astype(np.float32)


def noise_levels(alphas: np.ndarray) -> np.ndarray:
    """sigma_t of a_t, float32; see the module."""
    alphas = np.asarray(alphas, np.float64)
    return np.sqrt((1.0 - alphas) / alphas).astype(np.float32)


def ddim_timesteps(number: int, timesteps: int = TIMESTEPS, offset: int = 1) -> np.ndarray:
    """Stable Diffusion's timesteps of a sampler of `number` calls, falling, int [number]: 981, 961, ..., 1 of 50."""
    _check_calls(number, timesteps)
    return (np.arange(number) * (timesteps // number) + offset)[::-1]


def lcm_timesteps(number: int, timesteps: int = TIMESTEPS, origin: int = 50) -> np.ndarray:
    """LCM's timesteps of a sampler of `number` calls, falling, int [number]: of the `origin` ones that it was distilled
    at, every (origin // number)-th from the last. Of 8: 999, 879, ..., 159."""
    _check_calls(number, origin)
    distilled = np.arange(1, origin + 1) * (timesteps // origin) - 1
    return distilled[:: -(origin // number)][:number]


def _check_calls(number: int, most: int) -> None:
    if not 1 <= number <= most:
        raise ValueError(f"{number} calls of the model: give 1 to {most}")


def from_noise_prediction(network: Network, alphas: np.ndarray) -> Denoise:
    """The denoiser of a network (params, x, timesteps [B], condition) -> noise: D(x, sigma) = x - sigma noise.

    Noise levels [B] stand for the timestep that is nearest.
    """
    levels = noise_levels(alphas)

    def denoise(params: PyTree, x: jax.Array, t: jax.Array, condition: PyTree) -> jax.Array:
        chex.assert_shape(t, x.shape[:1])
        scaled = x / per_image(jnp.sqrt(1.0 + jnp.square(t)), x)  # 1 / sqrt(1 + sigma_t^2) = sqrt(a_t)
        return x - per_image(t, x) * network(params, scaled, _timesteps(levels, t), condition)

    return denoise


def latent_consistency(network: Network, alphas: np.ndarray, sigma_data: float = 0.5) -> Denoise:
    """LCM's consistency function: c_out D(x, sigma) + c_skip x sqrt(a_t), the identity at timestep 0.

    With t the timestep, c_skip = sigma_data^2 / ((10 t)^2 + sigma_data^2) and
    c_out = 10 t / sqrt((10 t)^2 + sigma_data^2): at all that are sampled c_skip is nearly 0. Source: LCM, appendix and
    code.
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
    """The numbers of the levels that are nearest to t by their logarithms, [B]."""
    return jnp.round(jnp.interp(jnp.log(t), np.log(levels), np.arange(len(levels))))


def guided(network: Network, unconditional: PyTree, scale: float | jax.Array) -> Network:
    """Classifier-free guidance: noise(nothing) + scale (noise(condition) - noise(nothing)), in one call of both.

    Args:
      unconditional: the condition of an empty prompt, leaves [1, ...].
      scale: 1 gives the conditional model; a number, or one an image, [B, 1, ...].

    Source: Ho and Salimans 2022, arXiv 2207.12598, equation 6, whose w is scale - 1.
    """

    def both(params: PyTree, x: jax.Array, timesteps: jax.Array, condition: PyTree) -> jax.Array:
        def beside(nothing: jax.Array, own: jax.Array) -> jax.Array:
            return jnp.concatenate([jnp.broadcast_to(nothing, own.shape), own])

        conditions = jax.tree.map(beside, unconditional, condition)
        doubled = network(params, jnp.concatenate([x, x]), jnp.concatenate([timesteps, timesteps]), conditions)
        nothing, own = jnp.split(doubled, 2)
        return nothing + scale * (own - nothing)

    return both


def ddim_step(
    x: jax.Array, noise: jax.Array, alpha: jax.Array, next_alpha: jax.Array, eta: float
) -> tuple[jax.Array, jax.Array]:
    """(mean [B, ...], std [B]) of the next noisy image of x, in DDIM's own notation.

    Args:
      x, noise: [B, ...], the noisy image at a_t and the network's prediction.
      alpha, next_alpha: [B], a_t and the larger one of the next timestep.
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
    """Mean of (network(noisy, t) - noise)^2, t uniform over the timesteps (DDPM, equation 14)."""
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
    """Mean of d(f(z_t, t, w), f_target(z_s, s, w)), f the `latent_consistency` of the network, s = t - skip.

    z_t is a noisy latent and z_s the teacher's DDIM step from it with guidance w: with e the noise that it predicts,

        e = e(condition) + w (e(condition) - e(nothing)),   z_s = sqrt(a_s) x_0(z_t, e) + sqrt(1 - a_s) e.

    d is the pseudo-Huber distance, w uniform over `guidance` for each image, and t uniform over skip - 1,
    2 skip - 1, ..., where s of the first one is 0. No gradient flows through the target.

    Args:
      network: its condition is (condition, w [B]), since w is distilled into it; w is `guided`'s scale minus 1.
      target_params: an exponential mean of `params` that the caller keeps, or `params` themselves.
      teacher: a noise-predicting network of the condition alone.
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
    told = guided(teacher, unconditional, per_image(1.0 + w, latents))
    predicted = told(teacher_params, noisy / per_image(jnp.sqrt(1.0 + jnp.square(t)), noisy), start, condition)
    # Divided by sqrt(a) DDIM's step is Euler's along dx / dsigma = noise.
    earlier = noisy + per_image(s - t, latents) * predicted
    model = latent_consistency(network, alphas)
    target = jax.lax.stop_gradient(model(target_params, earlier, s, (condition, w)))
    loss = jnp.mean(image_distance(model(params, noisy, t, (condition, w)), target, huber))
    return loss, {"model/loss": loss}
