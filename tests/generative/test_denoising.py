"""Noise levels, scalings and losses of consistency and diffusion models, by hand and on Gaussian data."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rl_jax.generative.consistency import SIGMA_DATA, SIGMA_MIN, earlier_level, ect_gap, ect_loss
from rl_jax.generative.denoising import denoising_loss, geometric_levels, karras_levels, scaled, scalings

RNG = np.random.default_rng(0)
IMAGES = RNG.normal(0, SIGMA_DATA, (4096, 3)).astype(np.float32)
KEY = jax.random.key(0)


def network(params, x, label, condition):
    """Some function of all it is given."""
    return jnp.sin(params * x + label[:, None]) + condition


def test_levels_by_hand():
    np.testing.assert_allclose(geometric_levels(3, 0.5, 8.0), [8.0, 2.0, 0.5], rtol=1e-6)
    # rho = 1 is linear; EDM's rho = 7 has the middle at ((1 + 128^(1/7)) / 2)^7 = 1.5^7.
    np.testing.assert_allclose(karras_levels(3, 1.0, 3.0, rho=1.0), [3.0, 2.0, 1.0], rtol=1e-6)
    np.testing.assert_allclose(karras_levels(3, 1.0, 128.0), [128.0, 1.5**7, 1.0], rtol=1e-5)


def test_a_consistency_function_is_the_identity_at_the_least_noise():
    model, x = scaled(network, SIGMA_DATA, SIGMA_MIN), jnp.asarray(IMAGES[:5])
    np.testing.assert_allclose(model(2.0, x, jnp.full(5, SIGMA_MIN), 1.0), x, rtol=1e-6)
    assert float(jnp.abs(model(2.0, x, jnp.full(5, 1.0), 1.0) - x).max()) > 0.1


def test_scalings_by_hand_and_of_unit_variance():
    # t = 0.5 = sigma_data: c_skip = 1/2, c_out = 0.25 / sqrt(0.5), c_in = 1 / sqrt(0.5).
    found = scalings(jnp.array([0.5]), 0.5)
    np.testing.assert_allclose([float(x[0]) for x in found], [0.5, 0.25 * 2**0.5, 2**0.5, np.log(0.5) / 4], rtol=1e-6)
    for t in (0.1, 3.0):
        noisy = IMAGES + t * RNG.normal(size=IMAGES.shape)
        c_skip, c_out, c_in, _ = (float(x[0]) for x in scalings(jnp.array([t]), SIGMA_DATA))
        assert np.std(c_in * noisy) == pytest.approx(1.0, rel=0.03)
        # What the network has to give, (x_0 - c_skip x) / c_out, has unit variance too (EDM, equation 134).
        assert np.std((IMAGES - c_skip * noisy) / c_out) == pytest.approx(1.0, rel=0.03)


def test_the_best_denoiser_of_gaussian_data_has_the_loss_of_its_posterior():
    """D = x s^2 / (s^2 + t^2) leaves a variance of s^2 t^2 / (s^2 + t^2), which EDM's weight makes 1."""

    def exact(params, x, t, condition):
        return params * x * (SIGMA_DATA**2 / (SIGMA_DATA**2 + jnp.square(t)))[:, None]

    loss = jax.jit(lambda p: denoising_loss(exact, p, IMAGES, None, KEY, sigma_data=SIGMA_DATA)[0])
    losses = [float(loss(p)) for p in (0.9, 1.0, 1.1)]
    assert losses[1] == pytest.approx(1.0, rel=0.05) and losses[1] == min(losses)


def test_pairs_of_levels_by_hand():
    # sigmoid(-t) is 1/2 at 0 and 0 far out: t (1 - 5 gap) and t (1 - gap).
    np.testing.assert_allclose(earlier_level(jnp.array([1e-6, 60.0]), 0.125), [1e-6 * 0.375, 60.0 * 0.875], rtol=1e-5)
    np.testing.assert_array_equal(earlier_level(jnp.array([0.5, 60.0]), 1.0), [0.0, 0.0])
    gaps = [ect_gap(step, 40, 4) for step in (0, 9, 10, 39, 40)]
    np.testing.assert_allclose(gaps, [1 / 2, 1 / 2, 1 / 4, 1 / 16, 1 / 16])


def test_the_consistency_function_of_gaussian_data_has_no_distance_and_others_have():
    """The ODE keeps x / sqrt(s^2 + t^2), so f(x, t) = x sqrt((s^2 + t_min^2) / (s^2 + t^2))."""

    def exact(params, x, t, condition):
        ratio = (SIGMA_DATA**2 + SIGMA_MIN**2) / (SIGMA_DATA**2 + jnp.square(t))
        return x * (ratio ** (0.5 * params))[:, None]

    # For neighbours x_t and x_r of one noise the exact function differs by the noise's part that the ODE removes, which
    # vanishes with the gap; another function of t keeps a distance of the order of the gap itself.
    @jax.jit
    def distance(params, gap):
        return ect_loss(exact, params, IMAGES, None, KEY, gap=gap, sigma_max=20.0)[1]["model/distance"]

    assert distance(1.0, 1e-3) < 0.01 < distance(1.0, 0.3)
    assert distance(1.0, 1.0) == pytest.approx(  # r = 0: the distance to the image itself
        float(jnp.mean(jnp.linalg.norm(ect_origin(exact) - IMAGES, axis=1))), rel=1e-4
    )


def ect_origin(model):
    """f(x_t, t) of the images at the levels and the noise that `ect_loss` draws."""
    level_key, noise_key = jax.random.split(KEY)
    t = jnp.clip(jnp.exp(-1.1 + 2.0 * jax.random.normal(level_key, (len(IMAGES),))), SIGMA_MIN, 20.0)
    return model(1.0, IMAGES + t[:, None] * jax.random.normal(noise_key, IMAGES.shape), t, None)


def test_no_gradient_flows_through_the_earlier_point_and_none_is_nan():
    model = scaled(network, SIGMA_DATA, SIGMA_MIN)
    both = lambda p: ect_loss(model, p, IMAGES[:64], 0.1, KEY, gap=0.25, sigma_max=20.0)[0]  # noqa: E731
    gradient, step = jax.jit(jax.grad(both))(0.7), 1e-2

    @jax.jit
    def loss(moving, fixed):
        """The loss whose earlier point has parameters of its own: what the gradient belongs to."""
        both = jnp.array([moving, fixed])
        calls = iter([0, 1])
        one = lambda params, *inputs: model(params[next(calls)], *inputs)  # noqa: E731
        return ect_loss(one, both, IMAGES[:64], 0.1, KEY, gap=0.25, sigma_max=20.0)[0]

    numerical = (loss(0.7 + step, 0.7) - loss(0.7 - step, 0.7)) / (2 * step)
    assert float(gradient) == pytest.approx(float(numerical), rel=0.02) and np.isfinite(gradient)
