"""f-divergences: conjugates by maximisation, Fenchel-Young, derivatives, domains, and numbers that overflow."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rl_jax.losses.divergence import DIVERGENCES, SURROGATES

RATIOS = np.concatenate([[0.0], np.geomspace(1e-4, 1e4, 40_001)])
EVERYWHERE = np.concatenate([-RATIOS[:0:-1], RATIOS])
# Inside the domain of every positive conjugate, with the kinks at -2 and -1/2, and points near the end.
SLOPES = np.array([-3.0, -2.0, -1.2, -0.5, -0.3, 0.0, 0.2, 0.45])
every = pytest.mark.parametrize("name", DIVERGENCES)


def double(function, x) -> np.ndarray:
    with jax.enable_x64(True):
        return np.asarray(jax.jit(function)(jnp.asarray(x, jnp.float64)))


def values_and_gradients(functions, x) -> list[tuple[np.ndarray, np.ndarray]]:
    """Of each function, compiled together, in the type of x."""
    compiled = jax.jit(lambda x: [jax.vmap(jax.value_and_grad(function))(x) for function in functions])
    with jax.enable_x64(x.dtype == np.float64):
        return jax.tree.map(np.asarray, compiled(jnp.asarray(x)))


def difference(function, x, step: float = 1e-6) -> np.ndarray:
    return (double(function, x + step) - double(function, x - step)) / (2 * step)


def in_domain(name: str) -> np.ndarray:
    """Slopes in the domain of the plain conjugate."""
    low, high = DIVERGENCES[name].domain
    return SLOPES[(SLOPES >= low) & (SLOPES < high)]


@every
def test_the_conjugates_are_maxima(name):
    divergence = DIVERGENCES[name]
    f = double(divergence.generator, EVERYWHERE)
    for function, t, f, y in (
        (divergence.positive_conjugate, RATIOS, f[-RATIOS.size :], SLOPES),
        (divergence.conjugate, EVERYWHERE, f, in_domain(name)),
    ):
        maxima = [np.max(slope * t - f) for slope in y]
        np.testing.assert_allclose(double(function, y), maxima, rtol=1e-6, atol=1e-6)


@every
def test_fenchel_young_with_equality_at_the_weight(name):
    """f(t) + f*(y) >= t y, also where a side is infinite."""
    divergence = DIVERGENCES[name]
    y = np.append(SLOPES, [-10.0, 0.7, 0.999, 1.5])
    for function, t in ((divergence.positive_conjugate, RATIOS[::40]), (divergence.conjugate, EVERYWHERE[::40])):
        total = double(divergence.generator, t) + double(function, y)[:, None]
        assert np.all(total >= y[:, None] * t - 1e-9)
    weight = double(divergence.weight, SLOPES)
    assert np.all(weight >= 0)
    at_weight = double(divergence.generator, weight) + double(divergence.positive_conjugate, SLOPES)
    np.testing.assert_allclose(at_weight, SLOPES * weight, atol=1e-12)


@every
def test_derivatives_by_finite_differences(name):
    divergence = DIVERGENCES[name]
    t = np.array([1e-2, 0.3, 0.7, 1.5, 4.0])
    (_, gradient), (derivative, _) = values_and_gradients((divergence.generator, divergence.derivative), t)
    np.testing.assert_allclose(derivative, difference(divergence.generator, t), rtol=1e-5, atol=1e-8)
    np.testing.assert_allclose(derivative, gradient, rtol=1e-12)
    y = SLOPES + 1e-3  # off the kinks
    (_, gradient), (weight, _) = values_and_gradients((divergence.positive_conjugate, divergence.weight), y)
    np.testing.assert_allclose(weight, difference(divergence.positive_conjugate, y), rtol=1e-5, atol=1e-8)
    np.testing.assert_allclose(weight, gradient, rtol=1e-12)


@pytest.mark.parametrize("name", [name for name in DIVERGENCES if name != "total_variation"])  # which has no inverse
def test_the_weight_inverts_the_derivative(name):
    divergence = DIVERGENCES[name]
    t = np.array([0.05, 0.5, 1.0, 2.0, 20.0])
    np.testing.assert_allclose(double(divergence.weight, double(divergence.derivative, t)), t, rtol=1e-9)


@every
def test_nothing_is_at_one_and_at_zero(name):
    divergence = DIVERGENCES[name]
    at_one = values_and_gradients((divergence.generator, divergence.derivative), np.ones(1))
    assert [float(value[0]) for value, _ in at_one] == [0.0, 0.0]
    functions = (divergence.conjugate, divergence.positive_conjugate, divergence.weight)
    assert [float(value[0]) for value, _ in values_and_gradients(functions, np.zeros(1))] == [0.0, 0.0, 1.0]


@every
def test_outside_its_domain_a_function_is_infinite_without_gradient(name):
    divergence = DIVERGENCES[name]
    low, high = divergence.domain
    y = np.array([low - 1e4, low - 0.01, 0.0, min(high, 10.0) - 1e-6, high + 0.01, high + 1e4])
    y = y[np.isfinite(y)]
    functions = (divergence.conjugate, divergence.positive_conjugate, divergence.weight)
    for function, (values, gradients) in zip(functions, values_and_gradients(functions, y), strict=True):
        outside = (y > high) | ((y < low) & (function is functions[0]))
        np.testing.assert_array_equal(values[outside], np.inf)
        np.testing.assert_array_equal(gradients[outside], 0)
        assert np.all(np.isfinite(values[~outside])) and np.all(np.isfinite(gradients[~outside]))
    t = np.array([-1e4, -1e-3, 0.0])
    (values, gradients), (derivative, _) = values_and_gradients((divergence.generator, divergence.derivative), t)
    if name in ("total_variation", "pearson_chi2"):  # defined for every t
        assert np.all(np.isfinite(values)) and np.all(np.isfinite(gradients))
    else:
        np.testing.assert_array_equal(values[:2], np.inf)
        np.testing.assert_array_equal(gradients[:2], 0)
        np.testing.assert_array_equal(derivative, -np.inf)


def test_an_end_of_the_domain_is_closed_where_the_conjugate_is_finite():
    closed = {"total_variation": 0.5, "neyman_chi2": 2.0}
    for name, divergence in DIVERGENCES.items():
        if np.isfinite(divergence.domain[1]):
            assert double(divergence.conjugate, divergence.domain[1]) == closed.get(name, np.inf)
    assert double(DIVERGENCES["total_variation"].conjugate, -0.5) == -0.5


@every
def test_no_number_becomes_nan_in_float32(name):
    divergence = DIVERGENCES[name]
    end = np.float32(min(divergence.domain[1], 1.0))
    y = [-90.0, -2.0, -0.5, 0.0, -1e4, -3e38, np.nextafter(end, np.float32(0)), end, 90.0, 1e4, 3e38, np.nan]
    t = [1e-4, 1.0, 1e4, 0.0, 1e-30, 1e38, -1e4, np.nan]
    of_y = (divergence.conjugate, divergence.positive_conjugate, divergence.weight)
    for functions, x, moderate in ((of_y, y, 4), ((divergence.generator, divergence.derivative), t, 3)):
        x = np.array(x, np.float32)
        in_double = values_and_gradients(functions, x[:moderate].astype(np.float64))
        for function, (values, gradients), (expected, _) in zip(
            functions, values_and_gradients(functions, x), in_double, strict=True
        ):
            assert values.dtype == gradients.dtype == np.float32
            # The last stays NaN: it is not hidden as an infinity.
            np.testing.assert_array_equal(np.isnan(values), np.isnan(x))
            assert not np.any(np.isnan(gradients[:-1]))
            np.testing.assert_allclose(values[:moderate], expected, rtol=1e-4, atol=1e-7)
            if function is divergence.positive_conjugate:
                assert np.all(np.isfinite(values[:6])) and np.all(np.isfinite(gradients[:6]))


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


def test_the_surrogates_by_hand():
    y = jnp.array([-8.0, -4.0, -1.0, 0.0, 2.0])
    expected = {
        "total_variation": [0.0, 0.0, 0.0, 0.0, 2.0],
        "chi2_hinged": [0.0, 0.0, 0.0, 0.0, 3.0],
        "chi2_coded": [8.0, 0.0, 0.0, 0.0, 3.0],  # rises again below -4
    }
    slopes = {
        "total_variation": [0.0, 0.0, 1.0],
        "chi2_hinged": [0.0, 0.0, 2.0],
        "chi2_coded": [-3.0, 0.0, 2.0],
    }
    assert set(expected) == set(SURROGATES)
    for name, values in expected.items():
        np.testing.assert_allclose(SURROGATES[name](y), values)
        grad = jax.vmap(jax.grad(SURROGATES[name]))
        np.testing.assert_allclose(grad(jnp.array([-8.0, -1.0, 2.0])), slopes[name])
        extreme = jnp.array([-1e4, 0.0, 1e4])
        assert np.all(np.isfinite(SURROGATES[name](extreme))) and np.all(np.isfinite(grad(extreme)))


@pytest.mark.parametrize(
    "surrogate, name, low, high",
    [
        ("total_variation", "total_variation", -10.0, 0.5),
        ("chi2_hinged", "pearson_chi2", -10.0, 10.0),
        ("chi2_coded", "pearson_chi2", -4.0, 10.0),
    ],
)
def test_a_surrogate_is_the_positive_conjugate_cut_at_zero(surrogate, name, low, high):
    y = np.linspace(low, high, 401)
    expected = double(lambda y: jnp.maximum(DIVERGENCES[name].positive_conjugate(y), 0.0), y)
    np.testing.assert_allclose(double(SURROGATES[surrogate], y), expected, atol=1e-12)
