"""Distributional policy gradients against the gradients of the divergences themselves, on distributions of 5 texts."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rl_jax.losses import distribution_matching as matching
from rl_jax.losses.advantages import leave_one_out_advantages
from rl_jax.losses.divergence import DIVERGENCES

LOGITS = jnp.array([0.3, -1.0, 0.5, 0.0, 1.2])
TARGET = jnp.array([0.1, 0.3, 0.05, 0.25, 0.3])
PROPOSAL = jnp.array([0.2, 0.2, 0.3, 0.2, 0.1])


def expected_gradient(weights, probs):
    """sum_x probs(x) weights(x) grad log pi(x), over the logits."""
    return jax.grad(lambda logits: jnp.sum(probs * jax.lax.stop_gradient(weights) * jax.nn.log_softmax(logits)))(LOGITS)


@pytest.mark.parametrize("name", DIVERGENCES)
def test_pseudo_rewards_descend_their_divergence(name):
    """f-DPG, theorem 1: minus the gradient of D_f(pi || p) by automatic differentiation."""
    divergence, log_pi = DIVERGENCES[name], jax.nn.log_softmax(LOGITS)
    found = expected_gradient(matching.pseudo_rewards(divergence, log_pi, jnp.log(TARGET)), jnp.exp(log_pi))
    exact = jax.grad(lambda logits: jnp.sum(TARGET * divergence.generator(jax.nn.softmax(logits) / TARGET)))(LOGITS)
    np.testing.assert_allclose(found, -exact, atol=1e-6)


def test_pseudo_rewards_by_hand():
    log_pi, log_p = jnp.log(jnp.array([0.2, 0.4])), jnp.log(jnp.array([0.4, 0.1]))
    expected = {
        "reverse_kl": [np.log(2.0), np.log(0.25)], "kl": [2.0 - 1.0, 0.25 - 1.0], "total_variation": [0.5, -0.5],
        "jensen_shannon": [np.log(3.0 / 2.0), np.log(1.25 / 2.0)],
    }
    for name, values in expected.items():
        np.testing.assert_allclose(matching.pseudo_rewards(DIVERGENCES[name], log_pi, log_p), values, rtol=1e-5)


@pytest.mark.parametrize("name", ["reverse_kl", "kl", "total_variation", "jensen_shannon"])
def test_what_is_ruled_out_is_finite_and_worst(name):
    log_pi, log_p = jnp.full(3, jnp.log(0.1)), jnp.log(jnp.array([0.0, 0.05, 0.3]))
    found = matching.pseudo_rewards(DIVERGENCES[name], log_pi, log_p)
    assert np.all(np.isfinite(found)) and found[0] <= found[1] < found[2]


@pytest.mark.parametrize("baseline", [True, False])
def test_off_policy_weights_descend_the_forward_divergence(baseline):
    log_pi = jax.nn.log_softmax(LOGITS)
    weights = matching.off_policy_weights(jnp.log(TARGET), log_pi, jnp.log(PROPOSAL), baseline)
    exact = jax.grad(lambda logits: -jnp.sum(TARGET * jax.nn.log_softmax(logits)))(LOGITS)
    np.testing.assert_allclose(expected_gradient(weights, PROPOSAL), -exact, atol=1e-6)
    if baseline:  # it lowers the variance where the proposal is near, and is on-policy the pseudo-reward of kl
        own = matching.off_policy_weights(jnp.log(TARGET), log_pi, log_pi)
        np.testing.assert_allclose(own, matching.pseudo_rewards(DIVERGENCES["kl"], log_pi, jnp.log(TARGET)), rtol=1e-5)


def test_estimates_from_a_proposal():
    """A uniform proposal of which each text comes once: the estimates are the sums themselves."""
    uniform, log_p = jnp.full(5, jnp.log(0.2)), jnp.log(TARGET)
    np.testing.assert_allclose(matching.log_partition(log_p + jnp.log(7.0), uniform), jnp.log(7.0), rtol=1e-6)
    log_pi = jax.nn.log_softmax(LOGITS)
    exact = jnp.sum(TARGET * (log_p - log_pi))
    np.testing.assert_allclose(matching.kl_by_importance(log_p, log_pi, uniform), exact, rtol=1e-5)
    ruled_out = log_p.at[0].set(-jnp.inf)
    assert np.isfinite(matching.kl_by_importance(ruled_out, log_pi, uniform))


def test_a_tilt_has_the_moments_that_are_asked():
    """Of one feature of 0 and 1 lambda is the difference of two log-odds."""
    features = jnp.array([[1.0], [0.0], [0.0], [0.0], [1.0]])  # a share of 0.4
    found = matching.tilt(features, jnp.array([0.8]), tolerance=1e-5)
    np.testing.assert_allclose(found, [np.log(0.8 / 0.2) - np.log(0.4 / 0.6)], atol=1e-3)
    two = jax.random.normal(jax.random.key(0), (200, 2))
    moments = jnp.array([0.3, -0.2])
    coefficients = matching.tilt(two, moments, tolerance=1e-4)
    np.testing.assert_allclose(jax.nn.softmax(two @ coefficients) @ two, moments, atol=1e-4)
    assert np.all(np.isfinite(matching.tilt(features, jnp.array([2.0]), max_steps=5)))  # out of reach: it stops


def test_the_baseline_is_the_mean_of_the_others():
    np.testing.assert_allclose(
        leave_one_out_advantages(jnp.array([1.0, 2.0, 6.0])), [1.0 - 4.0, 2.0 - 3.5, 6.0 - 1.5], rtol=1e-6
    )


def test_shapes_that_do_not_fit_are_refused():
    with pytest.raises(AssertionError):
        matching.pseudo_rewards(DIVERGENCES["kl"], jnp.zeros(3), jnp.zeros(2))
    with pytest.raises(AssertionError):
        matching.tilt(jnp.zeros(3), jnp.zeros(1))
    chex.assert_shape(matching.off_policy_weights(*[jnp.zeros(4)] * 3), (4,))
