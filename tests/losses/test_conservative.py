"""The conservative regulariser against hand numbers, quadrature and finite differences; its calibrated form."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.integrate
import scipy.stats
from jax.test_util import check_grads

from rl_jax.losses.conservative import calibrated, conservative_gap

RNG = np.random.default_rng(0)
SAMPLED, DENSITIES, DATA = (RNG.normal(size=shape) for shape in [(2, 5, 4), (5, 4), (2, 4)])


def test_by_hand():
    # 2 / 0.5 + 3 / 0.25 = 16 and 1 / 1 + 1 / 1 = 2
    sampled_q = jnp.log(jnp.array([[2.0, 1.0], [3.0, 1.0]]))
    log_densities = jnp.log(jnp.array([[0.5, 1.0], [0.25, 1.0]]))
    gap = conservative_gap(sampled_q, log_densities, jnp.array([1.0, -3.0]))
    np.testing.assert_allclose(gap, [np.log(16) - 1, np.log(2) + 3], rtol=1e-6)


def test_each_member_of_an_ensemble_has_its_own_gap():
    alone = [conservative_gap(sampled, DENSITIES, data) for sampled, data in zip(SAMPLED, DATA, strict=True)]
    np.testing.assert_allclose(conservative_gap(SAMPLED, DENSITIES, DATA), alone, rtol=1e-6)


def test_samples_of_two_distributions_estimate_the_integral_of_exp_q():
    q = lambda a: 3.0 * np.sin(2.0 * a) + a  # noqa: E731
    integral, _ = scipy.integrate.quad(lambda a: np.exp(q(a)), -1, 1)
    number = 20_000
    uniform, unsquashed = RNG.uniform(-1, 1, (number, 1)), RNG.normal(0.3, 1.0, (number, 1))
    # A squashed Gaussian, which covers the box: 1 / mu has a finite variance.
    actions = np.tanh(unsquashed)
    log_probs = scipy.stats.norm.logpdf(unsquashed, 0.3, 1.0) - np.log(1.0 - actions**2)
    sampled = np.concatenate([uniform, actions])
    log_densities = np.concatenate([np.full((number, 1), np.log(0.5)), log_probs])
    gap = conservative_gap(q(sampled), log_densities, jnp.zeros(1))
    assert gap[0] - np.log(2 * number) == pytest.approx(np.log(integral), abs=0.02)


def test_it_pushes_samples_down_as_much_as_it_lifts_the_data():
    total = lambda *args: conservative_gap(*args).sum()  # noqa: E731
    by_sample, by_data = jax.grad(total, argnums=(0, 2))(jnp.asarray(SAMPLED), DENSITIES, jnp.asarray(DATA))
    weights = np.exp(SAMPLED - DENSITIES)
    np.testing.assert_allclose(by_sample, weights / weights.sum(1, keepdims=True), rtol=1e-5)
    np.testing.assert_allclose(by_data, np.full((2, 4), -1.0), rtol=1e-6)


def test_gradients_by_finite_differences():
    with jax.enable_x64(True):
        arrays = [jnp.asarray(x, jnp.float64) for x in (SAMPLED, DENSITIES, DATA)]
        check_grads(jax.jit(conservative_gap), arrays, order=1, modes=("rev",))


def test_large_values_do_not_overflow():
    gap = lambda q: conservative_gap(q, jnp.zeros((3, 1)), jnp.array([1000.0]))[0]  # noqa: E731
    value, grad = jax.value_and_grad(gap)(jnp.full((3, 1), 1000.0))
    assert value == pytest.approx(np.log(3), abs=1e-3)
    np.testing.assert_allclose(grad, np.full((3, 1), 1 / 3), rtol=1e-5)


RETURNS = jnp.array([0.0, 2.0])
POLICY_Q = jnp.array([[1.0, 1.0], [-1.0, 3.0]])


def test_calibrated_values_by_hand():
    np.testing.assert_array_equal(calibrated(POLICY_Q, RETURNS), [[1.0, 2.0], [0.0, 3.0]])
    np.testing.assert_array_equal(calibrated(jnp.stack([POLICY_Q, -POLICY_Q]), RETURNS)[1], [[0.0, 2.0], [1.0, 2.0]])


def test_no_gradient_reaches_a_clipped_action_and_the_others_share_the_push():
    random_q, log_densities = jnp.array([[0.5, -0.5]]), jnp.asarray(DENSITIES[:3, :2])

    def gap(policy_q):
        return conservative_gap(
            jnp.concatenate([random_q, calibrated(policy_q, RETURNS)]), log_densities, jnp.zeros(2)
        ).mean()

    grad = jax.grad(gap)(POLICY_Q)
    # What is clipped still weighs in the sum, with the return for its value.
    weights = np.exp(np.array([[0.5, -0.5], [1.0, 2.0], [0.0, 3.0]]) - DENSITIES[:3, :2])
    shares = weights / weights.sum(0) / 2
    np.testing.assert_array_equal(np.asarray(grad)[[0, 1], [1, 0]], 0.0)
    np.testing.assert_allclose(np.asarray(grad)[[0, 1], [0, 1]], shares[[1, 2], [0, 1]], rtol=1e-5)


def test_without_a_bound_calibrated_is_plain():
    bound = jnp.full(4, -jnp.inf)
    calibrated_gap = lambda q: conservative_gap(calibrated(q, bound), DENSITIES, DATA).sum()  # noqa: E731
    plain_gap = lambda q: conservative_gap(q, DENSITIES, DATA).sum()  # noqa: E731
    for ours, plain in zip(
        jax.value_and_grad(calibrated_gap)(jnp.asarray(SAMPLED)), jax.value_and_grad(plain_gap)(jnp.asarray(SAMPLED)),
        strict=True,
    ):
        np.testing.assert_array_equal(ours, plain)


@pytest.mark.parametrize(
    "function, shapes",
    [
        # Each would broadcast and train on nonsense.
        pytest.param(conservative_gap, [(2, 5, 4), (5, 1), (2, 4)], id="densities of one observation"),
        pytest.param(conservative_gap, [(2, 5, 4), (2, 5, 4), (2, 4)], id="densities by member"),
        pytest.param(conservative_gap, [(2, 5, 4), (5, 4), (4,)], id="data without members"),
        pytest.param(conservative_gap, [(5, 4), (5, 4), (5, 4)], id="data by sample"),
        pytest.param(calibrated, [(5, 4), (4, 1)], id="returns as a column"),
        pytest.param(calibrated, [(5, 4), (1,)], id="one return"),
    ],
)
def test_wrong_shapes_are_refused(function, shapes):
    with pytest.raises(AssertionError):
        function(*(jnp.ones(shape) for shape in shapes))
