"""f-divergences: conjugates by maximisation, Fenchel-Young, derivatives, domains, and numbers that overflow."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rl_jax.losses.divergence import DIVERGENCES, SURROGATES

RATIOS = np.concatenate([[0.0], np.geomspace(1e-4, 1e4, 4001)])
# Inside the domain of every conjugate, and points near its end.
SLOPES = np.array([-3.0, -2.0, -1.2, -0.5, -0.3, 0.0, 0.2, 0.45], np.float32)
every = pytest.mark.parametrize("name", DIVERGENCES)


def in_domain(name, positive):
    low, high = DIVERGENCES[name].domain
    return SLOPES[(positive | (SLOPES >= low)) & (SLOPES < high)]


@every
def test_the_conjugates_are_maxima(name):
    divergence = DIVERGENCES[name]
    f = np.asarray(divergence.generator(RATIOS.astype(np.float32)), np.float64)
    for y, value in zip(in_domain(name, True), divergence.positive_conjugate(in_domain(name, True)), strict=True):
        assert value == pytest.approx(np.max(y * RATIOS - f), abs=2e-3)
    everywhere = np.concatenate([-RATIOS[:0:-1], RATIOS])
    f = np.asarray(divergence.generator(everywhere.astype(np.float32)), np.float64)
    for y, value in zip(in_domain(name, False), divergence.conjugate(in_domain(name, False)), strict=True):
        assert value == pytest.approx(np.max(y * everywhere - f), abs=2e-3)


@every
def test_fenchel_young_with_equality_at_the_weight(name):
    divergence = DIVERGENCES[name]
    y = in_domain(name, True)
    t = RATIOS[::40].astype(np.float32)
    gap = divergence.generator(t) + divergence.positive_conjugate(y)[:, None] - y[:, None] * t
    assert np.min(gap) > -1e-3 * np.max(t)  # float32 at ratios of 1e4
    small = t < 10
    assert np.min(gap[:, small]) > -1e-5
    weight = divergence.weight(y)
    at_weight = divergence.generator(weight) + divergence.positive_conjugate(y) - y * weight
    np.testing.assert_allclose(at_weight, 0.0, atol=1e-5)


@every
def test_derivatives_by_finite_differences(name):
    divergence = DIVERGENCES[name]
    with jax.enable_x64(True):
        t = jnp.array([0.3, 0.7, 1.5, 4.0])
        slope = (divergence.generator(t + 1e-6) - divergence.generator(t - 1e-6)) / 2e-6
        np.testing.assert_allclose(divergence.derivative(t), slope, rtol=1e-6, atol=1e-8)
        y = jnp.asarray(in_domain(name, True), jnp.float64) + 1e-3  # off the kinks
        slope = (divergence.positive_conjugate(y + 1e-6) - divergence.positive_conjugate(y - 1e-6)) / 2e-6
        np.testing.assert_allclose(divergence.weight(y), slope, rtol=1e-5, atol=1e-8)
        gradient = jax.vmap(jax.grad(divergence.positive_conjugate))(y)
        np.testing.assert_allclose(gradient, slope, rtol=1e-5, atol=1e-8)


@every
def test_nothing_is_at_one_and_at_zero(name):
    divergence = DIVERGENCES[name]
    one, zero = jnp.ones(()), jnp.zeros(())
    assert divergence.generator(one) == divergence.derivative(one) == 0
    assert divergence.conjugate(zero) == divergence.positive_conjugate(zero) == 0
    assert divergence.weight(zero) == 1


@every
def test_outside_its_domain_a_conjugate_is_infinite_without_gradient(name):
    low, high = DIVERGENCES[name].domain
    for function in (DIVERGENCES[name].conjugate, DIVERGENCES[name].positive_conjugate, DIVERGENCES[name].weight):
        if np.isfinite(high):
            assert function(jnp.float32(high + 0.01)) == np.inf
            assert jax.grad(function)(jnp.float32(high + 0.01)) == 0
            assert np.isfinite(function(jnp.float32(high - 0.01)))
    if np.isfinite(low):
        assert DIVERGENCES[name].conjugate(jnp.float32(low - 0.01)) == np.inf
        assert np.isfinite(DIVERGENCES[name].positive_conjugate(jnp.float32(low - 0.01)))


@every
def test_no_number_is_nan_where_float32_overflows(name):
    divergence = DIVERGENCES[name]
    for function in (divergence.conjugate, divergence.positive_conjugate, divergence.weight):
        for y in (-1e4, -90.0, 0.0, 90.0, 1e4):
            assert not np.isnan(function(jnp.float32(y))) and not np.isnan(jax.grad(function)(jnp.float32(y)))
    for y in (-1e4, -90.0):
        assert np.isfinite(divergence.positive_conjugate(jnp.float32(y)))
    for t in (0.0, 1e-4, 1.0, 1e4):
        assert not np.isnan(divergence.generator(jnp.float32(t)))
    assert np.isfinite(divergence.generator(jnp.float32(1e4)))


def test_the_table_of_the_paper():
    """Hand-computed: f_p* and the weight at -1 and at 0.4."""
    y = jnp.array([-1.0, 0.4])
    expected = {
        "reverse_kl": ([-0.632121, 0.491825], [0.367879, 1.491825]),
        "kl": ([-0.693147, 0.510826], [0.5, 1.666667]),
        "jensen_shannon": ([-0.489880, 0.676929], [0.225400, 2.935650]),
        "total_variation": ([-0.5, 0.4], [0.0, 1.0]),
        "pearson_chi2": ([-0.75, 0.44], [0.5, 1.2]),
        "neyman_chi2": ([-0.828427, 0.450807], [0.707107, 1.290994]),
        "squared_hellinger": ([-0.5, 0.666667], [0.25, 2.777778]),
    }
    assert set(expected) == set(DIVERGENCES)
    for name, (value, weight) in expected.items():
        np.testing.assert_allclose(DIVERGENCES[name].positive_conjugate(y), value, atol=2e-6, err_msg=name)
        np.testing.assert_allclose(DIVERGENCES[name].weight(y), weight, atol=2e-6, err_msg=name)
    assert DIVERGENCES["pearson_chi2"].conjugate(jnp.float32(-6.0)) == 3.0
    assert DIVERGENCES["pearson_chi2"].positive_conjugate(jnp.float32(-6.0)) == -1.0


def test_the_surrogates():
    y = jnp.array([-8.0, -4.0, -1.0, 0.0, 2.0])
    expected = {
        "total_variation": [0.0, 0.0, 0.0, 0.0, 2.0],
        "chi2_hinged": [0.0, 0.0, 0.0, 0.0, 3.0],
        "chi2_coded": [8.0, 0.0, 0.0, 0.0, 3.0],
    }
    assert set(expected) == set(SURROGATES)
    for name, values in expected.items():
        np.testing.assert_allclose(SURROGATES[name](y), values)
        for extreme in (-1e4, 1e4):
            assert np.isfinite(SURROGATES[name](jnp.float32(extreme)))
            assert np.isfinite(jax.grad(SURROGATES[name])(jnp.float32(extreme)))
