"""The KL divergence: estimators and weights against verl's functions, gradients against closed forms."""

from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rl_jax.losses.kl import ESTIMATORS, kl_estimate, kl_penalty, next_coefficient

GOLDEN = np.load(Path(__file__).parents[1] / "golden" / "preference.npz")
LOGITS, REFERENCE = jnp.array([0.3, -1.0, 0.8, 0.1]), jnp.array([-1.5, 1.2, 0.1, 1.0])
BETA = 0.7


def log_policy(logits):
    return jax.nn.log_softmax(logits)


def divergence(one, other):
    """KL(one || other) of two categorical distributions by their log-probs."""
    return jnp.sum(jnp.exp(one) * (one - other))


REVERSE = jax.grad(lambda logits: divergence(log_policy(logits), log_policy(REFERENCE)))(LOGITS)
FORWARD = jax.grad(lambda logits: divergence(log_policy(REFERENCE), log_policy(logits)))(LOGITS)


def expected_over_samples(of_sample):
    """The mean over samples of the present policy, which is itself not differentiated."""
    share = jnp.exp(log_policy(LOGITS))
    return sum(share[y] * jax.grad(of_sample)(LOGITS, y) for y in range(len(LOGITS)))


@pytest.mark.parametrize("estimator", ESTIMATORS)
def test_values_and_gradients_are_those_of_verl(estimator):
    reference = GOLDEN["given/reference_log_probs"]
    found, pull = jax.vjp(lambda x: kl_estimate(x, reference, estimator), GOLDEN["given/log_probs"])
    np.testing.assert_allclose(found, GOLDEN[estimator], rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(pull(jnp.ones_like(found))[0], GOLDEN[f"{estimator}/gradient"], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("estimator, expected", [("k1", jnp.zeros(4)), ("k2", REVERSE), ("k3", FORWARD)])
def test_the_gradient_in_the_loss(estimator, expected):
    def of_sample(logits, y):
        penalty = kl_penalty(
            log_policy(logits)[y], log_policy(REFERENCE)[y], coefficient=BETA, estimator=estimator, place="loss"
        )
        return penalty.losses

    np.testing.assert_allclose(expected_over_samples(of_sample), BETA * expected, atol=1e-6)


def test_k1_in_the_reward_has_the_gradient_of_the_reverse_divergence():
    def of_sample(logits, y):
        log_prob = log_policy(logits)[y]
        penalty = kl_penalty(log_prob, log_policy(REFERENCE)[y], coefficient=BETA, estimator="k1", place="reward")
        return -penalty.rewards * log_prob + penalty.losses  # the policy gradient of a reward

    np.testing.assert_allclose(expected_over_samples(of_sample), BETA * REVERSE, atol=1e-6)
    assert float(jnp.abs(REVERSE - FORWARD).max()) > 0.1  # the two directions are not the same here


@pytest.mark.parametrize("estimator, unbiased", [("k1", True), ("k2", False), ("k3", True)])
def test_which_estimators_have_the_divergence_as_their_mean(estimator, unbiased):
    mean = jnp.sum(jnp.exp(log_policy(LOGITS)) * kl_estimate(log_policy(LOGITS), log_policy(REFERENCE), estimator))
    exact = divergence(log_policy(LOGITS), log_policy(REFERENCE))
    assert np.isclose(mean, exact, atol=1e-6) == unbiased


def test_far_from_the_reference_k3_stays_finite():
    value, gradient = jax.value_and_grad(lambda x: kl_estimate(x, jnp.zeros(()), "k3"))(jnp.float32(-200.0))
    assert np.isfinite(value) and np.isfinite(gradient)


def test_the_adaptive_controller_is_verls_and_the_fixed_one_stays():
    coefficient, found = 0.2, []
    for divergence in GOLDEN["given/divergences"]:
        coefficient = next_coefficient(coefficient, divergence, target=6.0, horizon=1000, samples=64)
        found.append(float(coefficient))
    np.testing.assert_allclose(found, GOLDEN["coefficients"], rtol=1e-6)
    assert float(next_coefficient(0.2, 50.0, target=None, horizon=1000, samples=64)) == pytest.approx(0.2)


def test_unknown_names_are_one_error():
    x = jnp.zeros(2)
    with pytest.raises(ValueError, match="'k4': choose k1, k2, k3"):
        kl_estimate(x, x, "k4")
    with pytest.raises(ValueError, match="acts in 'advantage': choose reward or loss"):
        kl_penalty(x, x, coefficient=1.0, estimator="k1", place="advantage")
