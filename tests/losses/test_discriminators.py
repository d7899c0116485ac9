"""Discriminators' losses against hand numbers, densities whose ratio is known, and finite differences."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.optimize
import scipy.special
from jax.test_util import check_grads

from rl_jax.losses.discriminators import binary_cross_entropy, gradient_penalty, positive_unlabelled_loss

RNG = np.random.default_rng(0)
EXPERT, OFFLINE = RNG.normal(0, 3, 5), RNG.normal(0, 3, 7)


def logit(*shares):
    return jnp.log(jnp.array(shares) / (1 - jnp.array(shares)))


def test_cross_entropy_by_hand():
    # c = 1/2 and 1/4 for the expert, 3/4 for the other
    expected = (np.log(2) + np.log(4)) / 2 + np.log(4)
    assert binary_cross_entropy(logit(0.5, 0.25), logit(0.75))[0] == pytest.approx(expected, rel=1e-6)


def test_cross_entropy_is_least_at_the_log_ratio_of_the_densities():
    """Two kinds of samples, each with a logit of its own, in 4 draws of the expert and 8 of the rest."""
    expert, offline = jnp.array([0, 0, 0, 1]), jnp.array([0, 1, 1, 1, 1, 1, 1, 0])
    loss = lambda logits: binary_cross_entropy(logits[expert], logits[offline])[0]  # noqa: E731
    best = scipy.optimize.minimize(loss, np.zeros(2), jac=jax.grad(loss)).x
    np.testing.assert_allclose(best, np.log([(3 / 4) / (2 / 8), (1 / 4) / (6 / 8)]), atol=1e-3)


def test_cross_entropy_of_large_logits_does_not_overflow():
    assert binary_cross_entropy(jnp.array([-300.0]), jnp.array([300.0]))[0] == pytest.approx(600.0)
    assert binary_cross_entropy(jnp.array([300.0]), jnp.array([-300.0]))[0] == 0.0


def test_positive_unlabelled_loss_by_hand():
    # c = 1/4 for the expert, 1/2 for the others: 0.3 (log 4 - log 4/3) + log 2
    loss, _ = positive_unlabelled_loss(logit(0.25), logit(0.5, 0.5), 0.3)
    assert loss == pytest.approx(0.3 * np.log(3) + np.log(2), rel=1e-6)


def test_positive_unlabelled_loss_is_the_cross_entropy_that_knows_the_labels():
    """A share eta of the offline data is the expert's: -eta E_expert[log c] - (1 - eta) E_others[log(1 - c)]."""
    others, share = RNG.normal(size=6), 0.25
    offline = np.concatenate([np.repeat(EXPERT, 2), np.repeat(others, 5)])  # 10 of the expert's in 40
    log_c, log_not_c = scipy.special.log_expit(EXPERT), scipy.special.log_expit(-others)
    expected = -share * np.mean(log_c) - (1 - share) * np.mean(log_not_c)
    assert positive_unlabelled_loss(EXPERT, offline, share)[0] == pytest.approx(expected, rel=1e-5)


def test_positive_unlabelled_loss_is_linear_in_the_experts_logits():
    slopes, _ = jax.grad(positive_unlabelled_loss, has_aux=True)(jnp.asarray(EXPERT), OFFLINE, 0.4)
    np.testing.assert_allclose(slopes, np.full(5, -0.4 / 5), rtol=1e-5)


def test_gradient_penalty_by_hand():
    # The slopes (3, 4) have norm 5 everywhere; x^2 / 2 has slope x, here 1/4 * 4 + 3/4 * 0 = 1 and 3.
    linear = lambda x: x @ jnp.array([3.0, 4.0])  # noqa: E731
    expert, offline = RNG.normal(size=(2, 6, 2))
    penalty, info = gradient_penalty(linear, expert, offline, RNG.random(6))
    assert (penalty, info["discriminator/slope"]) == (pytest.approx(16.0, rel=1e-5), pytest.approx(5.0, rel=1e-5))
    square = lambda x: jnp.sum(jnp.square(x), -1) / 2  # noqa: E731
    penalty, _ = gradient_penalty(square, jnp.array([[4.0], [4.0]]), jnp.zeros((2, 1)), jnp.array([0.25, 0.75]))
    assert penalty == pytest.approx((0.0 + 4.0) / 2)


def test_gradient_penalty_by_finite_differences():
    expert, offline, mix = RNG.normal(size=(9, 3)), RNG.normal(size=(9, 3)), RNG.random(9)
    kernels = RNG.normal(size=(3, 4)), RNG.normal(size=4)
    numpy_logits = lambda x: np.tanh(x @ kernels[0]) @ kernels[1]  # noqa: E731
    between = mix[:, None] * expert + (1 - mix[:, None]) * offline
    steps = 1e-5 * np.eye(3)
    slopes = np.stack([(numpy_logits(between + d) - numpy_logits(between - d)) / 2e-5 for d in steps], -1)
    expected = np.mean(np.square(np.linalg.norm(slopes, axis=-1) - 1))

    def penalty(first, second):
        return gradient_penalty(lambda x: jnp.tanh(x @ first) @ second, expert, offline, mix)[0]

    with jax.enable_x64(True):
        assert penalty(*kernels) == pytest.approx(expected, rel=1e-6)
        check_grads(penalty, kernels, order=1, modes=("rev",))


def test_gradient_penalty_of_a_flat_discriminator_has_a_finite_gradient():
    penalty = lambda slope: gradient_penalty(lambda x: x @ slope, *jnp.ones((2, 4, 3)), jnp.zeros(4))[0]  # noqa: E731
    value, grad = jax.value_and_grad(penalty)(jnp.zeros(3))
    assert value == 1.0
    np.testing.assert_array_equal(grad, np.zeros(3))
