"""SINDy: PySINDy's numbers, closed forms, and equations of known systems found again."""

from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rl_jax.losses import sparse_regression as sr

GOLDEN = dict(np.load(Path(__file__).parents[1] / "golden" / "sindy.npz", allow_pickle=False))
RNG = np.random.default_rng(0)


FIT = jax.jit(sr.stlsq, static_argnames=("unbias", "iterations"))


def fitted(features, targets, threshold, ridge, weights=None, allowed=None, unbias=True):
    """In float64 from end to end."""
    weights = np.ones(len(features)) if weights is None else weights
    allowed = np.ones(features.shape[1], bool) if allowed is None else allowed
    with jax.enable_x64(True):
        numbers = (jnp.asarray(x) for x in (features, targets, weights, allowed))
        features, targets, weights, allowed = numbers
        found = FIT(features, targets, threshold=jnp.float64(threshold), ridge=jnp.float64(ridge), weights=weights,
                    allowed=allowed, unbias=unbias)
        return np.asarray(found)


# Dictionaries


def test_terms_are_those_of_the_dictionary():
    assert sr.monomials(2, 2, constant=True) == ((), (0,), (1,), (0, 0), (0, 1), (1, 1))
    assert sr.monomials(2, 2, mixed=False) == ((0,), (1,), (0, 0), (1, 1))
    assert sr.control_affine(2, 1, 1) == ((0,), (1,), (2,), (0, 2), (1, 2))
    assert len(sr.monomials(5, 3, constant=True)) == 56 and len(sr.control_affine(5, 1, 2)) == 26


def test_features_are_pysindys():
    with jax.enable_x64(True):
        ours = sr.features(sr.monomials(4, 2), *(jnp.asarray(GOLDEN[name]) for name in ("states", "actions")))
    np.testing.assert_allclose(ours, GOLDEN["features"], rtol=1e-12)


# Regression


@pytest.mark.parametrize("unbias", [True, False])
def test_coefficients_are_pysindys(unbias):
    for number, (threshold, ridge) in enumerate(GOLDEN["settings"]):
        ours = fitted(GOLDEN["features"], GOLDEN["targets"], threshold=threshold, ridge=ridge, unbias=unbias)
        np.testing.assert_allclose(ours, GOLDEN[f"coefficients/{number}/{unbias}"], rtol=1e-9, atol=1e-12)


def test_a_member_of_an_ensemble_is_pysindys():
    weights = np.bincount(GOLDEN["rows"], minlength=300).astype(np.float64)
    allowed = np.isin(np.arange(GOLDEN["features"].shape[1]), GOLDEN["terms"])
    ours = fitted(GOLDEN["features"], GOLDEN["targets"], threshold=0.1, ridge=0.5, weights=weights,
                  allowed=allowed)
    np.testing.assert_allclose(ours[GOLDEN["terms"]], GOLDEN["member"], rtol=1e-9, atol=1e-12)
    assert not ours[~allowed].any()


def test_without_a_threshold_it_is_ridge_regression():
    x, y = RNG.normal(size=(40, 5)), RNG.normal(size=(40, 2))
    expected = np.linalg.solve(x.T @ x + 0.7 * np.eye(5), x.T @ y)
    np.testing.assert_allclose(fitted(x, y, threshold=0.0, ridge=0.7, unbias=False), expected, rtol=1e-10)


def test_the_fit_is_in_float64_where_all_else_is_float32():
    """Powers of numbers near 1, of which float32's own least squares has no digit."""
    x = (np.linspace(1.0, 1.2, 12)[:, None] ** np.arange(1, 6)).astype(np.float32)
    y = (x.astype(np.float64) @ np.array([[1.0], [-2.0], [1.5], [0.5], [3.0]])).astype(np.float32)
    found = FIT(jnp.asarray(x), jnp.asarray(y), threshold=0.0, ridge=1e-12, unbias=False)
    exact = np.linalg.solve(x.T.astype(np.float64) @ x + 1e-12 * np.eye(5), x.T.astype(np.float64) @ y)
    assert found.dtype == jnp.float32
    np.testing.assert_allclose(found, exact, rtol=2e-3)
    assert not np.allclose(np.linalg.lstsq(x, y)[0], exact, rtol=0.1)


def test_collinear_cubic_terms_of_a_circle_stay_finite():
    angle = RNG.uniform(-np.pi, np.pi, 200)
    terms = sr.monomials(2, 3, constant=True)
    columns = np.stack([np.prod(np.stack([np.cos(angle), np.sin(angle)])[list(term)], 0) for term in terms], 1)
    target = np.sin(2 * angle)[:, None]
    found = fitted(columns, target, threshold=1e-3, ridge=1e-6)
    np.testing.assert_allclose(columns @ found, target, atol=1e-6)


def test_fewer_rows_than_terms_and_no_term_left():
    x, y = RNG.normal(size=(3, 6)), RNG.normal(size=(3, 1))
    np.testing.assert_allclose(x @ fitted(x, y, threshold=0.0, ridge=1e-9), y, atol=1e-6)
    np.testing.assert_array_equal(fitted(x, y, threshold=1e3, ridge=1e-3), 0.0)


def test_a_threshold_means_something_else_for_next_states_than_for_differences():
    """x' = x + dt (-2 x): as a next state the coefficient is 0.98, as a difference -0.02, below a threshold of 0.1."""
    x = RNG.normal(size=(50, 1))
    kept = fitted(x, 0.98 * x, threshold=0.1, ridge=0.0)
    lost = fitted(x, -0.02 * x, threshold=0.1, ridge=0.0)
    assert kept[0, 0] == pytest.approx(0.98) and lost[0, 0] == 0.0


# Known systems


def lorenz(z):
    x, y, w = z.T
    return np.stack([10.0 * (y - x), x * (28.0 - w) - y, x * y - 8.0 / 3.0 * w], 1)


def van_der_pol(z):
    x, y = z.T
    return np.stack([y, 2.0 * (1.0 - x**2) * y - x], 1)


@pytest.mark.parametrize("rates, degree, start, expected", [
    (lorenz, 2, [1.0, 1.0, 20.0], {
        (0, (0,)): -10.0, (0, (1,)): 10.0, (1, (0,)): 28.0, (1, (1,)): -1.0, (1, (0, 2)): -1.0, (2, (0, 1)): 1.0,
        (2, (2,)): -8.0 / 3.0,
    }),
    pytest.param(van_der_pol, 3, [0.5, 0.0], {
        (0, (1,)): 1.0, (1, (0,)): -1.0, (1, (1,)): 2.0, (1, (0, 0, 1)): -2.0,
    }, marks=pytest.mark.slow),
])
def test_equations_of_known_systems_are_found(rates, degree, start, expected):
    states = [np.array([start])]
    for _ in range(1000):
        middle = states[-1] + 0.005 * rates(states[-1])
        states.append(states[-1] + 0.01 * rates(middle))
    states = np.concatenate(states)
    noisy = rates(states) + 0.05 * RNG.normal(size=states.shape)
    terms = sr.monomials(states.shape[1], degree)
    fit = jax.jit(lambda key, x, y: sr.ensemble_stlsq(
        key, sr.features(terms, x), y, jnp.ones(len(x), bool), members=10, dropped=0, threshold=0.4, ridge=1e-3
    ))
    found = fit(jax.random.key(0), jnp.asarray(states, jnp.float32), jnp.asarray(noisy, jnp.float32))
    where = {(int(i), terms[p]): float(found.coefficients[p, i]) for p, i in zip(*np.nonzero(found.coefficients))}
    assert where.keys() == expected.keys()
    assert all(where[name] == pytest.approx(value, rel=0.02) for name, value in expected.items())
    assert float(sr.inclusion(found.members).max()) == 1.0


# Ensembles


def test_bootstraps_draw_valid_rows_and_leave_terms_out():
    valid = jnp.arange(50) % 2 == 0
    draw = jax.jit(sr.bootstraps, static_argnums=(2, 3, 4))
    weights, allowed = draw(jax.random.key(0), valid, 7, 200, 2)
    np.testing.assert_array_equal(weights.sum(1), 25.0)
    assert not np.asarray(weights)[:, 1::2].any()
    np.testing.assert_allclose(np.asarray(weights)[:, ::2].mean(0), 1.0, atol=0.35)
    np.testing.assert_array_equal(allowed.sum(1), 5)
    assert np.all(np.asarray(allowed).any(0)) and not np.asarray(allowed).all(0).any()


def test_rows_that_are_not_valid_may_hold_anything():
    x, y = jnp.asarray(RNG.normal(size=(30, 2)), jnp.float32), jnp.ones((30, 1))
    valid = jnp.arange(30) < 20
    settings = {"members": 3, "dropped": 0, "threshold": 0.0, "ridge": 1e-3, "unbias": False}
    fit = jax.jit(lambda x: sr.ensemble_stlsq(jax.random.key(0), x, y, valid, **settings).coefficients)
    np.testing.assert_array_equal(fit(x), fit(x.at[25].set(jnp.nan)))


def test_a_median_hides_terms_that_fewer_than_half_of_the_members_have():
    members = jnp.array([[[1.0]], [[1.0]], [[0.0]], [[0.0]], [[0.0]]])
    assert jnp.median(members, 0)[0, 0] == 0.0 and sr.inclusion(members)[0, 0] == pytest.approx(0.4)
    features = jnp.array([[2.0]])
    np.testing.assert_allclose(sr.spread(members, features), np.var([2.0, 2.0, 0.0, 0.0, 0.0]), rtol=1e-6)


def test_equations_are_written_largest_terms_first():
    found = sr.equations(np.array([[0.5, 0.0], [-2.0, 0.0]]), ((0,), (0, 1)), ("x", "u"), ("dx", "dy"))
    assert found == ["dx = -2 x u + 0.5 x", "dy = 0"]
