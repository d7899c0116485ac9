"""Distillation by hand, on Gaussian data, whose consistency function is known, and as its authors do it."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rl_jax.generative.consistency import consistency_distillation_loss
from rl_jax.generative.denoising import heun_step, image_distance, karras_levels
from rl_jax.generative.diffusion import (
    TIMESTEP_SCALING,
    latent_consistency_distillation_loss,
    noise_levels,
    scaled_linear_alphas,
)

STD, SIGMA_MIN = 0.5, 0.002  # of Gaussian data; the noise level at which images count as clean
KEY = jax.random.key(0)
IMAGES = jnp.asarray(np.random.default_rng(0).normal(0, STD, (512, 3)), jnp.float32)
ALPHAS = scaled_linear_alphas()


def denoiser(params, x, t, condition):
    """E[x_0 | x_t] of data N(0, STD^2)."""
    return params * x * (STD**2 / (STD**2 + jnp.square(t)))[:, None]


def consistency(params, x, t, condition):
    """The ODE keeps x / sqrt(STD^2 + t^2)."""
    return params * x * jnp.sqrt((STD**2 + SIGMA_MIN**2) / (STD**2 + jnp.square(t)))[:, None]


def distill(params, target, levels, huber=None, model=consistency, teacher=denoiser):
    return consistency_distillation_loss(
        model, params, target, teacher, 1.0, IMAGES, None, KEY, levels=levels, huber=huber
    )[0]


QUICK = {"xla_backend_optimization_level": 0}  # compiling is most of the time here


def compiled(fn):
    return jax.jit(fn, compiler_options=QUICK)


def test_distances_by_hand():
    x, y = jnp.array([[3.0, 4.0], [0.0, 0.0]]), jnp.zeros((2, 2))
    np.testing.assert_allclose(image_distance(x, y, None), [12.5, 0.0])
    np.testing.assert_allclose(image_distance(x, y, 2.0), [(13**0.5 + 20**0.5) / 2 - 2.0, 0.0], rtol=1e-6)
    gradient = jax.grad(lambda x: image_distance(x, y, 0.001).sum())(x)
    np.testing.assert_allclose(gradient, [[0.5, 0.5], [0.0, 0.0]], rtol=1e-6)


def test_heuns_step_by_hand():
    """D = x / 2 at x = 3 from 2 to 1: slopes 0.75 at 3 and, at 2.25, 1.125."""
    half = lambda params, x, t, condition: x / params  # noqa: E731
    found = heun_step(half, 2.0, jnp.array([[3.0]]), jnp.array([2.0]), jnp.array([1.0]), None)
    assert found.tolist() == [[3.0 - (0.75 + 1.125) / 2]]


def test_heuns_step_leaves_the_trajectory_by_the_third_power_of_its_length():
    errors = []
    for step in (0.2, 0.1, 0.05):
        t, s = jnp.array([1.0]), jnp.array([1.0 - step])
        exact = jnp.sqrt((STD**2 + s**2) / (STD**2 + t**2))
        errors.append(abs(float((heun_step(denoiser, 1.0, jnp.ones((1, 1)), t, s, None) - exact)[0, 0])))
    ratios = np.array(errors[:-1]) / errors[1:]
    assert errors[0] < 1e-3 and (ratios > 7.0).all() and (ratios < 10.0).all(), (errors, ratios)


@pytest.mark.parametrize("huber", [None, 0.1])
def test_a_loss_by_hand(huber):
    """One pair of levels, 2 and 1; f = p x / t, D = x / 2."""
    model = lambda params, x, t, condition: params * x / t[:, None]  # noqa: E731
    half = lambda params, x, t, condition: x / 2.0  # noqa: E731
    found = compiled(lambda p: distill(p, 5.0, np.array([2.0, 1.0]), huber, model, half))(3.0)
    noisy = IMAGES + 2.0 * jax.random.normal(jax.random.split(KEY)[1], IMAGES.shape)
    # Slopes x / 4 and, of 3 x / 4 at level 1, 3 x / 8.
    differences = 3.0 * noisy / 2.0 - 5.0 * noisy * (1.0 - (1 / 4 + 3 / 8) / 2)
    terms = differences**2 if huber is None else np.sqrt(differences**2 + huber**2) - huber
    np.testing.assert_allclose(found, np.mean(terms), rtol=1e-5)


@pytest.mark.parametrize("huber", [None, 0.1])
def test_the_consistency_function_of_gaussian_data_is_what_distillation_looks_for(huber):
    levels = karras_levels(18, SIGMA_MIN, 80.0)
    loss = compiled(jax.value_and_grad(lambda p, levels: distill(p, 1.0, levels, huber)))
    exact, gradient = loss(1.0, levels)
    other, slope = loss(0.9, levels)
    assert exact < 0.05 * other and abs(gradient) < 0.1 * abs(slope)
    # More levels: shorter steps, of which the teacher's errors vanish.
    finer, _ = loss(1.0, karras_levels(72, SIGMA_MIN, 80.0))
    assert finer < 0.1 * exact


def test_every_pair_of_levels_is_drawn_and_no_other():
    levels, asked = karras_levels(5, SIGMA_MIN, 80.0), []

    def watched(params, x, t, condition):
        asked.append(np.asarray(t))
        return x

    distill(1.0, 1.0, levels, model=watched)
    target, online = asked  # in the order of the calls
    assert set(online.tolist()) == set(levels[:-1].tolist())
    np.testing.assert_array_equal(levels[1:][[levels.tolist().index(t) for t in online]], target)


def test_only_the_trained_parameters_get_a_gradient():
    levels = karras_levels(4, SIGMA_MIN, 20.0)
    for loss in (lambda *params: distill(*params, levels), lambda *params: distill_latents(*params)[0]):
        trained, target = compiled(jax.grad(loss, (0, 1)))(0.7, 0.9)
        assert trained != 0.0 and target == 0.0


def noise_of(params, x, timesteps, condition):
    """The teacher's: some function of all it is given."""
    return params * jnp.tanh(x + timesteps[:, None] / 1000.0) + condition[:, None]


def student(params, x, timesteps, condition):
    prompt, w = condition
    return noise_of(params, x, timesteps, prompt) + 0.01 * w[:, None]


CONDITION, NOTHING = jnp.linspace(-1.0, 1.0, len(IMAGES)), jnp.array([0.3])


def distill_latents(params, target, network=student, teacher=noise_of, **settings):
    return latent_consistency_distillation_loss(
        network, params, target, teacher, 0.5, IMAGES, CONDITION, NOTHING, KEY, alphas=ALPHAS, **settings
    )


def test_latents_are_distilled_as_the_authors_do_it():
    """In their own notation, sqrt(a) x_0 + sqrt(1 - a) noise, and with the draws of the same keys."""
    level_key, noise_key, guidance_key = jax.random.split(KEY, 3)
    steps = np.arange(1, 51) * 20 - 1
    start = steps[np.asarray(jax.random.randint(level_key, (len(IMAGES),), 0, 50))]
    end = np.maximum(start - 20, 0)
    w = np.asarray(jax.random.uniform(guidance_key, (len(IMAGES),), minval=2.0, maxval=14.0))
    a, b = (ALPHAS[at].astype(np.float64)[:, None] for at in (start, end))
    noisy = np.sqrt(a) * IMAGES + np.sqrt(1 - a) * jax.random.normal(noise_key, IMAGES.shape)

    own, nothing = (np.asarray(noise_of(0.5, noisy, start, c)) for c in (CONDITION, jnp.full(len(IMAGES), 0.3)))
    origins = [(noisy - np.sqrt(1 - a) * noise) / np.sqrt(a) for noise in (own, nothing)]
    noise, origin = own + w[:, None] * (own - nothing), origins[0] + w[:, None] * (origins[0] - origins[1])
    earlier = np.sqrt(b) * origin + np.sqrt(1 - b) * noise

    def model(params, x, timesteps, alpha):
        scaled = TIMESTEP_SCALING * timesteps[:, None]
        c_skip, c_out = 0.25 / (scaled**2 + 0.25), scaled / np.sqrt(scaled**2 + 0.25)
        noise = student(params, x, timesteps, (CONDITION, jnp.asarray(w)))
        return c_skip * x + c_out * (x - np.sqrt(1 - alpha) * noise) / np.sqrt(alpha)

    differences = np.asarray(model(0.7, noisy, start, a) - model(0.9, earlier, end, b), np.float64)
    wanted = np.mean(np.sqrt(differences**2 + 0.001**2) - 0.001)
    np.testing.assert_allclose(compiled(lambda p: distill_latents(p, 0.9)[0])(0.7), wanted, rtol=1e-4)


def test_guidance_and_timesteps_lie_where_they_should_and_the_student_is_told():
    asked = []

    def watched(params, x, timesteps, condition):
        asked.append((np.asarray(timesteps), np.asarray(condition[1])))
        return x

    distill_latents(1.0, 1.0, network=watched)
    (target, w), (online, same) = asked
    np.testing.assert_array_equal(w, same)
    assert 2.0 <= w.min() < 2.5 and 13.5 < w.max() <= 14.0
    assert set(online.astype(int)) == set(range(19, 1000, 20))
    np.testing.assert_array_equal(target, np.maximum(online - 20, 0))


def test_the_latent_consistency_function_of_gaussian_data_is_what_distillation_looks_for():
    """Of sigma^2 = (1 - a) / a the ODE keeps x / sqrt(STD^2 + sigma^2), down to timestep 0."""
    levels, squared = noise_levels(ALPHAS), STD**2 + noise_levels(ALPHAS)[0] ** 2

    def exact_noise(params, x, timesteps, condition):
        """-sigma times the score."""
        alpha = jnp.asarray(ALPHAS)[timesteps][:, None]
        return x * jnp.sqrt(1 - alpha) / (alpha * STD**2 + 1 - alpha)

    def exact(params, x, timesteps, condition):
        """What the network has to say for c_skip x + c_out D to be f, whose scale at timestep 0 is sqrt(a_0)."""
        timesteps = timesteps.astype(int)
        alpha, level = jnp.asarray(ALPHAS)[timesteps][:, None], jnp.asarray(levels)[timesteps][:, None]
        wanted = params * jnp.sqrt(ALPHAS[0] * squared / (STD**2 + level**2)) * x / jnp.sqrt(alpha)
        scaled = jnp.maximum(TIMESTEP_SCALING * timesteps[:, None], 1.0)
        c_skip, c_out = STD**2 / (scaled**2 + STD**2), scaled / jnp.sqrt(scaled**2 + STD**2)
        return (x - jnp.sqrt(alpha) * (wanted - c_skip * x) / c_out) / jnp.sqrt(1 - alpha)

    def loss(skip):
        settings = {"network": exact, "teacher": exact_noise, "skip": skip}
        return compiled(jax.value_and_grad(lambda params: distill_latents(params, 1.0, **settings)[0]))

    (small, gradient), (large, slope) = map(loss(20), (1.0, 0.9))
    assert small < 0.1 * large and abs(gradient) < 0.3 * abs(slope)
    assert loss(5)(1.0)[0] < 0.3 * small


def test_a_skip_that_cannot_be_is_named():
    for skip in (0, 1001):
        with pytest.raises(ValueError, match=f"skip is {skip}: give 1 to 1000"):
            distill_latents(1.0, 1.0, skip=skip)
