"""Distributions over boxes of actions, against scipy's densities and a change of variables done numerically."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.integrate
import scipy.stats
from jax.test_util import check_grads

from rl_jax.networks.distributions import Deterministic, Gaussian, SquashedGaussian

KEY = jax.random.key(0)
RNG = np.random.default_rng(0)


@pytest.mark.parametrize("log_std_shape", [(3,), (6, 3)])
def test_a_gaussians_log_prob_and_entropy_are_scipys(log_std_shape):
    actions, mean, log_std = (RNG.normal(size=shape).astype(np.float32) for shape in ((6, 3), (6, 3), log_std_shape))
    gaussian = Gaussian(mean, log_std)
    expected = scipy.stats.norm.logpdf(actions, mean, np.exp(log_std)).sum(-1)
    np.testing.assert_allclose(gaussian.log_prob(actions), expected, rtol=2e-5)
    covariance = np.diag(np.exp(2.0 * np.broadcast_to(log_std, (6, 3))[0]))
    first = scipy.stats.multivariate_normal(mean[0], covariance)
    np.testing.assert_allclose(gaussian.log_prob(actions)[0], first.logpdf(actions[0]), rtol=2e-5)
    np.testing.assert_allclose(gaussian.entropy()[0], first.entropy(), rtol=1e-5)


def test_a_gaussians_gradients_by_finite_differences():
    with jax.enable_x64(True):
        actions, mean, log_std = (jnp.asarray(RNG.normal(size=shape)) for shape in ((4, 3), (4, 3), (3,)))
        log_prob = jax.jit(lambda mean, log_std: Gaussian(mean, log_std).log_prob(actions))
        check_grads(log_prob, (mean, log_std), order=1, modes=("rev",))


@pytest.mark.parametrize("distribution", [Gaussian, SquashedGaussian])
def test_samples_are_scaled_by_the_temperature_and_stay_in_the_box(distribution):
    mean, log_std = jnp.array([[0.4, -2.0]]), jnp.array([[-1.0, 1.0]])
    policy = distribution(mean, log_std)
    squash = jnp.tanh if distribution is SquashedGaussian else lambda x: jnp.clip(x, -1.0, 1.0)
    noise = jax.random.normal(KEY, mean.shape)
    for temperature in (1.0, 0.3):
        expected = squash(mean + temperature * jnp.exp(log_std) * noise)
        np.testing.assert_allclose(policy.sample(KEY, temperature), expected, rtol=1e-6)
    np.testing.assert_array_equal(policy.sample(KEY, 0.0), policy.mode())
    np.testing.assert_array_equal(policy.mode(), squash(mean))


def test_a_deterministic_policy_ignores_key_and_temperature():
    actions = jnp.array([[0.2, -0.5]])
    np.testing.assert_array_equal(Deterministic(actions).sample(KEY, 7.0), actions)
    np.testing.assert_array_equal(Deterministic(actions).mode(), actions)


def test_a_squashed_density_is_the_gaussians_over_the_slope_of_tanh():
    unsquashed, mean, log_std = 0.5 * RNG.normal(size=(3, 7, 2)).astype(np.float32)
    gaussian = scipy.stats.norm.logpdf(unsquashed, mean, np.exp(log_std))
    slope = 1.0 - np.tanh(unsquashed.astype(np.float64)) ** 2
    expected = (gaussian - np.log(slope)).sum(-1)
    np.testing.assert_allclose(SquashedGaussian(mean, log_std).log_prob(np.tanh(unsquashed)), expected, rtol=1e-4)


def test_a_squashed_density_integrates_to_one_over_the_box():
    policy = SquashedGaussian(jnp.array([0.4]), jnp.array([-0.3]))
    density = jax.jit(lambda action: jnp.exp(policy.log_prob(action[None])))
    total, _ = scipy.integrate.quad(lambda a: float(density(jnp.float32(a))), -1 + 1e-6, 1 - 1e-6, limit=100)
    assert total == pytest.approx(1.0, abs=1e-3)


def test_a_squashed_sample_far_out_has_a_finite_density_and_gradient():
    total = lambda m: SquashedGaussian(m, jnp.zeros((1, 2))).sample_and_log_prob(KEY)[1].sum()  # noqa: E731
    value, grads = jax.value_and_grad(total)(jnp.full((1, 2), 30.0))
    assert np.isfinite(value) and np.isfinite(grads).all()


def test_squashed_samples_carry_gradients_and_broadcast_over_draws():
    mean, log_std = jnp.array([[0.2, -0.5]]), jnp.array([[-1.0, 0.3]])
    sample = lambda m: SquashedGaussian(m, log_std).sample_and_log_prob(KEY, (5,))  # noqa: E731
    actions, log_probs = sample(mean)
    assert actions.shape == (5, 1, 2) and log_probs.shape == (5, 1)
    noise = jax.random.normal(KEY, (5, 1, 2))
    np.testing.assert_allclose(actions, np.tanh(np.asarray(mean + jnp.exp(log_std) * noise)), rtol=1e-6)
    slope = jax.grad(lambda m: sample(m)[0].sum())(mean)
    np.testing.assert_allclose(slope, (1 - np.asarray(actions) ** 2).sum(0), rtol=1e-5)
    # The density of a draw is that of the action it became.
    again = SquashedGaussian(mean, log_std).log_prob(actions)
    np.testing.assert_allclose(log_probs, again, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("face", [-1.0, 1.0])
def test_a_squashed_density_is_finite_at_the_faces_of_the_box(face):
    policy = SquashedGaussian(jnp.zeros(1), jnp.zeros(1))
    at_face, beside = policy.log_prob(jnp.array([face])), policy.log_prob(jnp.array([0.999 * face]))
    assert np.isfinite(at_face) and at_face < beside
