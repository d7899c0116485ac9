"""Diffusion by timesteps: schedules by hand, DDIM and guidance in closed form, one sampler in two notations."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rl_jax.generative.diffusion import (
    ddim_step,
    ddim_timesteps,
    from_noise_prediction,
    guided,
    latent_consistency,
    lcm_timesteps,
    noise_levels,
    noise_prediction_loss,
    scaled_linear_alphas,
)
from rl_jax.generative.policy import ancestral_sampler, consistency_sampler, step_mean

ALPHAS = scaled_linear_alphas()
RNG = np.random.default_rng(0)
X = jnp.asarray(RNG.normal(size=(4, 3, 2)), jnp.float32)


def network(params, x, timesteps, condition):
    """Some function of all it is given."""
    return jnp.tanh(params * x + timesteps[:, None, None] / 1000.0) + condition[:, None, None]


def test_the_schedule_by_hand():
    # Of three steps sqrt(beta) is 0.1, 0.2, 0.3.
    np.testing.assert_allclose(scaled_linear_alphas(3, 0.01, 0.09), [0.99, 0.99 * 0.96, 0.99 * 0.96 * 0.91], rtol=1e-6)
    assert noise_levels(np.array([0.5, 0.2])).tolist() == [1.0, 2.0]
    # Stable Diffusion's last a_t, 0.0047: 14.6 times as much noise as image.
    assert ALPHAS[-1] == pytest.approx(0.00466, rel=1e-3) and noise_levels(ALPHAS)[-1] == pytest.approx(14.61, rel=1e-3)


def test_timesteps_by_hand():
    assert lcm_timesteps(8).tolist() == [999, 879, 759, 639, 519, 399, 279, 159]
    assert lcm_timesteps(16).tolist() == list(range(999, 98, -60))
    assert ddim_timesteps(50).tolist() == list(range(981, 0, -20))
    with pytest.raises(ValueError, match="1000 calls of the model begin at timestep 1000, and there are 1000"):
        ddim_timesteps(1000)
    with pytest.raises(ValueError, match="distilled at 50 timesteps, and there are 40"):
        lcm_timesteps(8, 40)
    for timesteps in (lcm_timesteps, ddim_timesteps):
        assert len(timesteps(1)) == 1 and len(timesteps(50)) == 50
        with pytest.raises(ValueError, match="0 calls of the model: give 1 to"):
            timesteps(0)


def test_the_network_is_asked_for_its_own_timesteps_and_scale():
    """Of images that are sqrt(a_t) x: the notations differ by that factor."""
    asked = []

    def watched(params, x, timesteps, condition):
        asked.append((np.asarray(x), np.asarray(timesteps)))
        return jnp.zeros_like(x)

    timesteps = np.array([0, 159, 500, 999])
    denoised = from_noise_prediction(watched, ALPHAS)(None, X, jnp.asarray(noise_levels(ALPHAS)[timesteps]), None)
    assert asked[0][1].tolist() == timesteps.tolist()
    np.testing.assert_allclose(asked[0][0], np.sqrt(ALPHAS[timesteps])[:, None, None] * X, rtol=1e-5)
    np.testing.assert_array_equal(denoised, X)


@pytest.mark.parametrize("calls", [10, 50])
def test_ddpo_takes_the_step_of_ddim_with_eta_1(calls):
    """The sampler's mean and std, times sqrt(a_next), are DDIM's."""
    timesteps, condition = ddim_timesteps(calls), jnp.arange(4.0)
    sampler = ancestral_sampler(from_noise_prediction(network, ALPHAS), noise_levels(ALPHAS)[timesteps])
    mean_at = jax.jit(lambda step: step_mean(sampler, 0.7, X, jnp.full(4, step), condition))
    for step in (0, calls // 2, calls - 2):
        alpha, next_alpha = (jnp.full(4, ALPHAS[timesteps[step + number]]) for number in (0, 1))
        noisy = X * jnp.sqrt(alpha)[:, None, None]
        noise = network(0.7, noisy, jnp.full(4, timesteps[step]), condition)
        mean, std = ddim_step(noisy, noise, alpha, next_alpha, 1.0)
        found = mean_at(step)
        np.testing.assert_allclose(found * jnp.sqrt(next_alpha)[:, None, None], mean, rtol=2e-3, atol=2e-4)
        np.testing.assert_allclose(sampler.stds[step] * np.sqrt(next_alpha), std, rtol=2e-3)


def test_rlcm_takes_the_step_of_a_latent_consistency_model():
    """N(sqrt(a_next) D, (1 - a_next) I) of LCM, with D of its own scalings by hand."""
    timesteps, condition = lcm_timesteps(8), jnp.arange(4.0)
    sampler = consistency_sampler(
        latent_consistency(network, ALPHAS), noise_levels(ALPHAS)[timesteps], 0.0, last_step=False
    )
    alpha, next_alpha = ALPHAS[timesteps[2]], ALPHAS[timesteps[3]]
    noisy = np.sqrt(alpha) * X
    noise = network(0.7, noisy, jnp.full(4, timesteps[2]), condition)
    origin = (noisy - np.sqrt(1 - alpha) * noise) / np.sqrt(alpha)
    root = (10.0 * timesteps[2]) ** 2 + 0.25
    wanted = 0.25 / root * noisy + 10.0 * timesteps[2] / np.sqrt(root) * origin
    np.testing.assert_allclose(step_mean(sampler, 0.7, X, jnp.full(4, 2), condition), wanted, rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(sampler.stds[2] * np.sqrt(next_alpha), np.sqrt(1 - next_alpha), rtol=1e-5)


def test_a_latent_consistency_function_is_the_identity_at_timestep_0():
    first = jnp.full(4, noise_levels(ALPHAS)[0])
    found = jax.jit(latent_consistency(network, ALPHAS))(0.7, X, first, jnp.zeros(4))
    np.testing.assert_allclose(found, X * np.sqrt(ALPHAS[0]), rtol=1e-6)


def test_ddim_without_noise_follows_gaussian_data_to_its_marginals():
    """Of data N(0, s^2) the exact noise is sqrt(1 - a) x / (a s^2 + 1 - a); small steps keep x over its std."""
    s, alphas = 0.5, jnp.asarray(ALPHAS[::-1])

    def one(x, pair):
        alpha, next_alpha = pair
        noise = jnp.sqrt(1 - alpha) * x / (alpha * s**2 + 1 - alpha)
        mean, std = ddim_step(x, noise, alpha[None], next_alpha[None], 0.0)
        return mean, std

    start = jnp.array([[1.0, -2.0]])
    end, stds = jax.lax.scan(one, start, (alphas[:-1], alphas[1:]))
    variances = alphas * s**2 + 1 - alphas
    assert not stds.any()
    np.testing.assert_allclose(end, start * jnp.sqrt(variances[-1] / variances[0]), rtol=5e-3)


def test_guidance_goes_from_nothing_through_the_condition():
    timesteps, condition, nothing = jnp.full(4, 500), jnp.arange(4.0), jnp.full(1, -1.0)
    own, empty = (network(0.7, X, timesteps, c) for c in (condition, jnp.full(4, -1.0)))
    at_scale = jax.jit(lambda scale: guided(network, nothing, scale)(0.7, X, timesteps, condition))
    for scale, wanted in ((0.0, empty), (1.0, own), (5.0, 5.0 * own - 4.0 * empty)):
        found = at_scale(scale)
        np.testing.assert_allclose(found, wanted, rtol=1e-5, atol=1e-5)


def test_the_best_prediction_of_noise_has_the_loss_of_its_posterior():
    """Of data N(0, s^2): noise is left with a variance of a s^2 / (a s^2 + 1 - a)."""
    s = 0.5
    images = jnp.asarray(s * RNG.normal(size=(20_000, 3)), jnp.float32)

    def exact(params, x, timesteps, condition):
        alpha = jnp.asarray(ALPHAS)[timesteps][:, None]
        return params * jnp.sqrt(1 - alpha) * x / (alpha * s**2 + 1 - alpha)

    loss = jax.jit(lambda p: noise_prediction_loss(exact, p, images, None, jax.random.key(0), alphas=ALPHAS)[0])
    losses = [float(loss(p)) for p in (0.9, 1.0, 1.1)]
    assert losses[1] == pytest.approx(np.mean(ALPHAS * s**2 / (ALPHAS * s**2 + 1 - ALPHAS)), rel=0.03)
    assert losses[1] == min(losses)
