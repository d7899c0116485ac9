"""Targets and losses of value functions against hand numbers, closed forms and finite differences."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.optimize
import scipy.stats
from jax.test_util import check_grads

from rl_jax.losses.value_learning import expectile_loss, squared_error, td_target

REWARDS, MASKS, NEXT = jnp.array([1.0, 2.0, -1.0]), jnp.array([1.0, 0.0, 1.0]), jnp.array([10.0, 100.0, 4.0])


def test_td_target_by_hand():
    # 1 + 0.5 * 10; the episode ended: 2; -1 + 0.5 * 4
    np.testing.assert_allclose(td_target(REWARDS, MASKS, NEXT, 0.5), [6.0, 2.0, 1.0], rtol=0)


def test_gradients_flow_through_a_td_target_and_the_caller_stops_them():
    by_reward, by_mask, by_value = jax.grad(lambda *args: td_target(*args, 0.5).sum(), (0, 1, 2))(REWARDS, MASKS, NEXT)
    np.testing.assert_allclose(by_reward, [1.0, 1.0, 1.0])
    np.testing.assert_allclose(by_mask, 0.5 * NEXT)
    np.testing.assert_allclose(by_value, 0.5 * MASKS)
    # A loss of V against its own bootstrapped target: residual gradients, or with a stop semi-gradients.
    loss = lambda v, target: squared_error(v, target).sum()  # noqa: E731
    target = lambda next_v: td_target(jnp.array([1.0]), jnp.ones(1), next_v, 0.5)  # noqa: E731
    v, next_v = jnp.array([1.0]), jnp.array([2.0])
    residual = jax.grad(lambda v, next_v: loss(v, target(next_v)), (0, 1))(v, next_v)
    np.testing.assert_allclose(residual, [[2 * (1.0 - 2.0)], [-2 * 0.5 * (1.0 - 2.0)]])
    semi = jax.grad(lambda v, next_v: loss(v, jax.lax.stop_gradient(target(next_v))), (0, 1))(v, next_v)
    np.testing.assert_allclose(semi, [[2 * (1.0 - 2.0)], [0.0]])


def test_squared_error_by_hand_keeps_the_ensemble():
    targets = jnp.array([1.0, 3.0])
    np.testing.assert_allclose(squared_error(jnp.array([2.0, 5.0]), targets), [1.0, 4.0])
    np.testing.assert_allclose(squared_error(jnp.array([[2.0, 5.0], [1.0, 0.0]]), targets), [[1.0, 4.0], [0.0, 9.0]])


def test_expectile_loss_by_hand():
    # 0.7 * 2^2 and 0.3 * 1^2
    np.testing.assert_allclose(expectile_loss(jnp.array([2.0, -1.0]), 0.7), [2.8, 0.3], rtol=1e-6)


def test_expectile_one_half_is_half_the_squared_error():
    errors = jnp.asarray(np.random.default_rng(1).normal(size=50), jnp.float32)
    np.testing.assert_allclose(expectile_loss(errors, 0.5), 0.5 * np.square(errors), rtol=1e-6)


def minimiser(samples: np.ndarray, expectile: float) -> float:
    """The prediction that minimises expectile_loss, found by a scalar minimiser that knows only the loss."""
    with jax.enable_x64(True):
        loss = jax.jit(lambda v: expectile_loss(jnp.asarray(samples, jnp.float64) - v, expectile).mean())
        bounds = (samples.min(), samples.max())
        return scipy.optimize.minimize_scalar(lambda v: float(loss(v)), bounds=bounds, method="bounded").x


@pytest.mark.parametrize("expectile", [0.1, 0.5, 0.7, 0.9])
def test_the_minimiser_is_the_expectile(expectile):
    # Of the uniform distribution on [0, 1]: tau (1 - e)^2 = (1 - tau) e^2.
    uniform = (np.arange(4000) + 0.5) / 4000
    closed_form = np.sqrt(expectile) / (np.sqrt(expectile) + np.sqrt(1 - expectile))
    assert minimiser(uniform, expectile) == pytest.approx(closed_form, abs=1e-4)
    samples = np.random.default_rng(2).gamma(2.0, size=300)
    assert minimiser(samples, expectile) == pytest.approx(scipy.stats.expectile(samples, expectile), abs=1e-4)


@pytest.mark.parametrize("expectile", [0.2, 0.9])
def test_gradients_by_finite_differences(expectile):
    rng = np.random.default_rng(3)
    with jax.enable_x64(True):
        errors = jnp.asarray(rng.normal(size=9), jnp.float64)
        check_grads(jax.jit(functools.partial(expectile_loss, expectile=expectile)), (errors,), order=1, modes=("rev",))
        predictions, targets = jnp.asarray(rng.normal(size=(2, 5))), jnp.asarray(rng.normal(size=5))
        check_grads(jax.jit(squared_error), (predictions, targets), order=1, modes=("rev",))


CALLS = {
    "td_target": (functools.partial(td_target, discount=0.9), (REWARDS, MASKS, NEXT)),
    "squared_error": (squared_error, (jnp.stack([REWARDS, NEXT]), MASKS)),
    "expectile_loss": (functools.partial(expectile_loss, expectile=0.7), (REWARDS,)),
}


@pytest.mark.parametrize("name", CALLS)
def test_jit_changes_nothing(name):
    function, args = CALLS[name]
    np.testing.assert_allclose(jax.jit(function)(*args), function(*args), rtol=1e-6)


@pytest.mark.parametrize(
    "function, shapes",
    [
        # Each would broadcast to [3, 3] or [N, B, B] and train on nonsense.
        pytest.param(functools.partial(td_target, discount=0.9), [(3,), (3, 1), (3,)], id="td_target masks"),
        pytest.param(functools.partial(td_target, discount=0.9), [(3,), (3,), (3, 1)], id="td_target next_values"),
        pytest.param(functools.partial(td_target, discount=0.9), [(3, 1), (3, 1), (3, 1)], id="td_target rank 2"),
        pytest.param(squared_error, [(3, 1), (3,)], id="squared_error predictions"),
        pytest.param(squared_error, [(2, 3), (2, 3)], id="squared_error targets"),
        pytest.param(functools.partial(expectile_loss, expectile=0.7), [(3, 1)], id="expectile_loss"),
    ],
)
def test_wrong_shapes_are_refused(function, shapes):
    with pytest.raises(AssertionError):
        function(*(jnp.ones(shape) for shape in shapes))
