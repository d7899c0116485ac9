"""Squashed Gaussians against a change of variables done numerically, and the temperature's loss by hand."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.integrate
import scipy.stats

from rl_jax.losses.maximum_entropy import sample_squashed, squashed_log_prob, temperature_loss


def test_density_is_the_gaussians_over_the_slope_of_tanh():
    rng = np.random.default_rng(0)
    unsquashed, mean, log_std = rng.normal(size=(3, 7, 2)).astype(np.float32)
    gaussian = scipy.stats.norm.logpdf(unsquashed, mean, np.exp(log_std))
    slope = 1.0 - np.tanh(unsquashed.astype(np.float64)) ** 2
    expected = (gaussian - np.log(slope)).sum(-1)
    np.testing.assert_allclose(squashed_log_prob(unsquashed, mean, log_std), expected, rtol=2e-5)


def test_density_integrates_to_one_over_the_box():
    def density(action):
        u = jnp.asarray([np.arctanh(action)], jnp.float32)
        return float(jnp.exp(squashed_log_prob(u, jnp.array([0.4]), jnp.array([-0.3]))))

    total, _ = scipy.integrate.quad(density, -1 + 1e-6, 1 - 1e-6, limit=100)
    assert total == pytest.approx(1.0, abs=1e-3)


def test_a_sample_far_out_has_a_finite_density_and_gradient():
    mean, log_std, noise = jnp.full((1, 2), 30.0), jnp.zeros((1, 2)), jnp.ones((1, 2))
    value, grads = jax.value_and_grad(lambda m: sample_squashed(noise, m, log_std)[1].sum())(mean)
    assert np.isfinite(value) and np.isfinite(grads).all()


def test_samples_carry_gradients_and_broadcast_over_draws():
    mean, log_std = jnp.array([[0.2, -0.5]]), jnp.array([[-1.0, 0.3]])
    noise = jax.random.normal(jax.random.key(0), (5, 1, 2))
    actions, log_probs = sample_squashed(noise, mean, log_std)
    assert actions.shape == (5, 1, 2) and log_probs.shape == (5, 1)
    np.testing.assert_allclose(actions, np.tanh(np.asarray(mean + jnp.exp(log_std) * noise)), rtol=1e-6)
    slope = jax.grad(lambda m: sample_squashed(noise, m, log_std)[0].sum())(mean)
    np.testing.assert_allclose(slope, (1 - np.asarray(actions) ** 2).sum(0), rtol=1e-5)


def test_temperature_rises_while_the_entropy_is_below_its_target():
    log_probs, target = jnp.array([3.0, 1.0]), -1.0
    loss, slope = jax.value_and_grad(temperature_loss)(jnp.array(0.5), log_probs, target)
    assert loss == pytest.approx(-0.5 * (2.0 - 1.0))
    assert slope == pytest.approx(-1.0)  # entropy -2 is below -1: descent raises log alpha
