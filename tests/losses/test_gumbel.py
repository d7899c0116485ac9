"""Gumbel regression against hand numbers, its closed form, a scalar minimiser and finite differences."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.optimize
import scipy.special

from rl_jax.losses.value_learning import gumbel_loss

E = np.e


def plain(errors: np.ndarray, beta: float) -> float:
    """The loss of the paper, equation 11, without stabilisers: numpy and double precision."""
    z = np.asarray(errors, np.float64) / beta
    return np.mean(np.exp(z) - z - 1.0)


DERIVATIVE = jax.jit(jax.grad(lambda v, targets, beta, max_clip: gumbel_loss(targets - v, beta, max_clip).mean()))


def slope(targets: np.ndarray, prediction: float, beta: float, max_clip: float = np.inf) -> float:
    """Derivative of gumbel_loss in the prediction, double precision."""
    with jax.enable_x64(True):
        return float(DERIVATIVE(np.float64(prediction), targets, beta, max_clip))


def difference(function, x: float, step: float = 1e-5) -> float:
    return (function(x + step) - function(x - step)) / (2 * step)


def settles(targets: np.ndarray, beta: float, max_clip: float = np.inf) -> float:
    """Where the gradient vanishes. The loss itself is no guide: m moves with the prediction."""
    inside = (np.mean(targets) - 0.1, np.max(targets) + 0.1)
    return scipy.optimize.brentq(lambda v: slope(targets, v, beta, max_clip), *inside)


def test_gumbel_loss_by_hand():
    # m = 1: exp(-1) (e - 1 - 1) and exp(-1) (1/e + 1 - 1)
    assert gumbel_loss(jnp.array([1.0, -1.0]), 1.0, np.inf).mean() == pytest.approx((1 - 2 / E + 1 / E**2) / 2)
    # The same z from errors twice as large at a beta twice as large.
    assert gumbel_loss(jnp.array([2.0, -2.0]), 2.0, np.inf).mean() == pytest.approx((1 - 2 / E + 1 / E**2) / 2)
    # Without the scale: e - 1 - 1 and 1/e + 1 - 1.
    assert gumbel_loss(jnp.array([1.0, -1.0]), 1.0, np.inf, scaled=False).mean() == pytest.approx((E - 2 + 1 / E) / 2)
    # Clipped at 0.5, which is then m: exp(-0.5) (exp(0.5) - 0.5 - 1) and exp(-0.5) (1/e + 1 - 1)
    clipped = (np.exp(0.5) - 1.5 + 1 / E) / np.exp(0.5) / 2
    assert gumbel_loss(jnp.array([1.0, -1.0]), 1.0, 0.5).mean() == pytest.approx(clipped, rel=1e-5)
    # Errors beside it count for m alone: m = 2, but not below the batch's own 1, and clipped at 1.5.
    for beside, max_clip, m in (([2.0, 0.0], np.inf, 2.0), ([-3.0], np.inf, 1.0), ([9.0], 1.5, 1.5)):
        loss = gumbel_loss(jnp.array([1.0, -1.0]), 1.0, max_clip, beside=jnp.array(beside))
        assert loss.shape == (2,) and loss.mean() == pytest.approx((E - 2 + 1 / E) / 2 * np.exp(-m), rel=1e-5)


@pytest.mark.parametrize("beta", [0.3, 1.0, 5.0])
def test_it_settles_at_the_log_mean_exp(beta):
    targets = np.random.default_rng(0).gamma(2.0, size=60)
    closed_form = beta * (scipy.special.logsumexp(targets / beta) - np.log(60))
    assert settles(targets, beta) == pytest.approx(closed_form, abs=1e-6)
    # The stabilisers have not moved what the paper's own loss is least at.
    found = scipy.optimize.minimize_scalar(lambda v: plain(targets - v, beta), bounds=(0.0, 12.0), method="bounded").x
    assert found == pytest.approx(closed_form, abs=1e-4)


def test_between_the_mean_and_the_maximum():
    targets = np.random.default_rng(1).normal(size=40)
    settled = [settles(targets, beta) for beta in (100.0, 2.0, 0.5, 0.02)]
    assert settled == sorted(settled)
    assert settled[0] == pytest.approx(targets.mean(), abs=0.02)
    assert settled[-1] == pytest.approx(targets.max(), abs=0.1)


def test_a_large_beta_is_half_the_squared_error():
    errors = np.random.default_rng(2).normal(size=50)
    with jax.enable_x64(True):
        loss = float(gumbel_loss(jnp.asarray(errors), 1e4, np.inf).mean())
    assert loss * 1e8 == pytest.approx(0.5 * np.mean(np.square(errors)), rel=1e-3)


@pytest.mark.parametrize("beta", [0.5, 2.0])
def test_the_scaling_changes_the_size_of_the_gradient_alone(beta):
    targets = np.random.default_rng(3).normal(size=20)
    for prediction in (-1.0, 0.3, 4.0):  # the last above every target
        unscaled = difference(lambda v: plain(targets - v, beta), prediction)
        m = max(np.max(targets - prediction) / beta, -1.0)
        assert slope(targets, prediction, beta) == pytest.approx(np.exp(-m) * unscaled, rel=1e-6)


def test_far_below_the_prediction_the_gradient_is_bounded():
    # m stays at -1, so the slope is e (1 - exp(z)) / beta.
    assert slope(np.array([-10.0, -20.0]), 0.0, 2.0) == pytest.approx(E * (1 - np.mean(np.exp([-5.0, -10.0]))) / 2)


def test_gradients_by_finite_differences_with_the_clip_acting():
    errors, beta, max_clip = np.random.default_rng(4).normal(size=9), 0.5, 1.2
    z = np.minimum(errors / beta, max_clip)
    assert 2 <= np.sum(z == max_clip) <= 7
    m = z.max()

    def scaled(u, i):
        """The loss as a function of error i, with m held."""
        z = np.minimum(np.where(np.arange(9) == i, u, errors) / beta, max_clip)
        return np.mean(np.exp(z - m) - z * np.exp(-m) - np.exp(-m))

    with jax.enable_x64(True):
        grads = jax.grad(lambda u: gumbel_loss(u, beta, max_clip).mean())(jnp.asarray(errors))
    expected = [difference(lambda u, i=i: scaled(u, i), errors[i]) for i in range(9)]
    np.testing.assert_allclose(grads, expected, rtol=1e-6, atol=1e-10)
    np.testing.assert_array_equal(np.asarray(grads) == 0, z == max_clip)


def test_a_clipped_error_no_longer_pulls():
    rest = np.random.default_rng(5).normal(size=30)
    closed_form = scipy.special.logsumexp(rest) - np.log(30)
    targets = np.append(rest, 50.0)
    assert slope(targets, closed_form, 1.0, 7.0) == pytest.approx(0.0, abs=1e-8)
    assert slope(targets, closed_form, 1.0) < -0.01  # without the clip the outlier pulls the prediction up
    assert slope(rest - 50.0, -100.0, 1.0, 7.0) == 0.0  # all clipped: nothing moves


@pytest.mark.parametrize("max_clip", [7.0, np.inf])
@pytest.mark.parametrize("errors", [[1e4, -1e4], [1e4, 1e4], [-1e4, -1e4], [1e4, 0.0]])
def test_huge_errors_do_not_overflow(errors, max_clip):
    with np.errstate(over="ignore"):
        assert np.isinf(np.float32(np.exp(np.float32(1e4))))
    mean = lambda u: gumbel_loss(u, 1.0, max_clip).mean()  # noqa: E731
    loss, grads = jax.jit(jax.value_and_grad(mean))(jnp.array(errors))
    assert np.isfinite(loss) and np.all(np.isfinite(grads))
    assert np.abs(grads).max() <= E


def test_hyper_parameters_may_be_traced():
    errors = jnp.array([0.5, 3.0, -2.0])
    settings = jnp.array([[0.5, 2.0], [1.0, 7.0], [3.0, np.inf]])
    swept = jax.jit(jax.vmap(lambda beta, max_clip: gumbel_loss(errors, beta, max_clip)))(*settings.T)
    np.testing.assert_allclose(swept, [gumbel_loss(errors, *setting) for setting in settings.tolist()], rtol=1e-6)


def test_wrong_shapes_are_refused():
    with pytest.raises(AssertionError):
        gumbel_loss(jnp.ones((3, 1)), 1.0, 7.0)
