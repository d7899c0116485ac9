"""The posterior of a linear reward by comparisons: scipy's maximum, samples, and what goes wrong without care."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.optimize

from rl_jax.losses import preference_posterior
from rl_jax.losses.preference_posterior import (
    BLOCK,
    Comparisons,
    derivatives,
    disagreement,
    gaussian_draw,
    no_comparisons,
    norm,
    with_answer,
)

RNG = np.random.default_rng(0)
newton = jax.jit(preference_posterior.newton)
PRECISION = np.array([[4.0, 1.5, 0.0], [1.5, 1.0, 0.3], [0.0, 0.3, 2.0]], np.float32)


def answered(features, answers):
    """Comparisons of arrays, in a store with one empty block more."""
    rows = (len(features) // BLOCK + 2) * BLOCK
    store = np.zeros((rows, features.shape[1]), np.float32), np.zeros(rows, np.float32)
    store[0][: len(features)], store[1][: len(features)] = features, answers
    return Comparisons(*map(jnp.asarray, store), jnp.asarray(len(features)))


def loss(theta, features, answers, ridge):
    margins = (2.0 * answers - 1.0) * (features @ theta)
    return np.logaddexp(0.0, -margins).sum() + 0.5 * ridge * theta @ theta


@pytest.mark.parametrize("count", [7, 300])
def test_newton_finds_the_maximum_of_scipy(count):
    features = RNG.integers(-2, 3, (count, 4)).astype(float)
    answers = (RNG.random(count) < 1.0 / (1.0 + np.exp(-features @ [1.0, -0.5, 0.2, 0.0]))).astype(float)
    found, hessian = newton(jnp.zeros(4), jnp.eye(4), answered(features, answers), 0.5, 12)
    best = scipy.optimize.minimize(loss, np.zeros(4), (features, answers, 0.5), method="BFGS", options={"gtol": 1e-8})
    np.testing.assert_allclose(found, best.x, atol=2e-4)
    chance = 1.0 / (1.0 + np.exp(-features @ best.x))
    np.testing.assert_allclose(hessian, 0.5 * np.eye(4) + (features.T * chance * (1 - chance)) @ features, rtol=1e-3)


def test_damped_steps_never_raise_the_loss_where_whole_ones_diverge():
    """Answers that are separated, from far away: a whole step lands 10 beyond the other side."""
    features, answers = np.array([[1.0], [1.0], [-1.0]]), np.array([1.0, 0.0, 0.0])
    store, theta = answered(features, answers), jnp.array([4.0])
    gradient, hessian = derivatives(theta, store, 1e-3)
    whole = np.asarray(theta - gradient[0] / hessian[0, 0])
    assert loss(whole, features, answers, 1e-3) > loss(np.array([4.0]), features, answers, 1e-3)
    losses = [loss(np.asarray(newton(theta, hessian, store, 1e-3, steps)[0]), features, answers, 1e-3)
              for steps in range(9)]
    assert np.all(np.diff(losses) <= 1e-6) and losses[-1] < 0.7 * losses[0]
    separated = newton(jnp.zeros(1), jnp.eye(1), answered(np.full((50, 1), 3.0), np.ones(50)), 1e-3, 30)[0]
    assert np.isfinite(separated).all() and separated[0] > 1.0


def test_no_step_leaves_all_as_it_was():
    theta, hessian = newton(jnp.ones(2), 3.0 * jnp.eye(2), no_comparisons(1, 2), 1.0, jnp.asarray(0))
    np.testing.assert_array_equal(theta, np.ones(2))
    np.testing.assert_array_equal(hessian, 3.0 * np.eye(2))


def test_what_no_pair_shows_stays_at_0():
    """Counts of steps add up to the same in both trajectories, so that a constant reward is never seen."""
    features = RNG.multinomial(3, np.ones(5) / 5, 60) - RNG.multinomial(3, np.ones(5) / 5, 60).astype(float)
    found, _ = newton(jnp.zeros(5), jnp.eye(5), answered(features, RNG.integers(0, 2, 60)), 1.0, 8)
    assert abs(float(jnp.mean(found))) < 1e-5 < float(jnp.max(jnp.abs(found)))


def test_an_answer_counts_where_it_was_asked_for():
    store = no_comparisons(3, 2)
    assert len(store.answers) == BLOCK
    store = with_answer(store, jnp.array([1.0, 2.0]), jnp.array(True), jnp.array(False))
    assert int(store.count) == 0 and not np.any(store.features) and not np.any(store.answers)
    store = with_answer(store, jnp.array([1.0, 2.0]), jnp.array(True), jnp.array(True))
    store = with_answer(store, jnp.array([3.0, 4.0]), jnp.array(False), jnp.array(True))
    assert int(store.count) == 2
    np.testing.assert_array_equal(store.features[:3], [[1, 2], [3, 4], [0, 0]])
    np.testing.assert_array_equal(store.answers[:3], [1, 0, 0])


def test_draws_have_the_inverse_of_the_precision():
    means = jnp.broadcast_to(jnp.array([1.0, 2.0, 3.0]), (40_000, 3))
    precisions = jnp.broadcast_to(jnp.asarray(PRECISION), (40_000, 3, 3))
    draws = jax.jit(gaussian_draw)(jax.random.key(0), means, precisions, 2.0)
    covariance, lower = np.cov(draws.T), np.linalg.cholesky(PRECISION)
    np.testing.assert_allclose(draws.mean(0), [1, 2, 3], atol=0.06)
    np.testing.assert_allclose(covariance, 4.0 * np.linalg.inv(PRECISION), atol=0.15)
    wrong_side = 4.0 * np.linalg.inv(lower.T @ lower)
    assert np.abs(covariance - wrong_side).max() > 1.0


def test_the_rule_is_the_mean_distance_of_two_draws():
    x = jnp.array([1.0, -2.0, 0.5])
    assert float(norm(x, jnp.asarray(PRECISION))) == pytest.approx(np.sqrt(x @ np.linalg.inv(PRECISION) @ x), rel=1e-5)
    draws = RNG.multivariate_normal(np.zeros(3), 0.49 * np.linalg.inv(PRECISION), (2, 100_000))
    expected = np.abs((draws[0] - draws[1]) @ np.asarray(x)).mean()
    assert float(disagreement(x, jnp.asarray(PRECISION), 0.7)) == pytest.approx(expected, rel=0.01)
    assert float(disagreement(jnp.zeros(3), jnp.asarray(PRECISION), 0.7)) == 0.0
