"""Losses of policies against hand numbers and finite differences."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.test_util import check_grads

from rl_jax.losses.policy_learning import (
    advantage_weighted_loss,
    advantage_weights,
    behavioural_cloning_loss,
    rebrac_loss,
    squared_distance,
    td3_bc_loss,
)


def normals(*shapes: tuple[int, ...], seed: int = 0) -> list[np.ndarray]:
    rng = np.random.default_rng(seed)
    return [rng.normal(size=shape).astype(np.float32) for shape in shapes]


def test_behavioural_cloning_loss_by_hand_averages_over_action_dimensions():
    predicted, actions = jnp.array([[0.0, 1.0], [1.0, 1.0]]), jnp.array([[1.0, 1.0], [-1.0, 0.0]])
    np.testing.assert_allclose(behavioural_cloning_loss(predicted, actions), [(1 + 0) / 2, (4 + 1) / 2])
    np.testing.assert_allclose(behavioural_cloning_loss(predicted[None], actions[None]), [[0.5, 2.5]])  # of sequences


def test_advantage_weights_by_hand():
    weights = advantage_weights(jnp.array([-1.0, 0.0, 0.5, 3.0]), 2.0, 10.0)
    np.testing.assert_allclose(weights, [np.exp(-2.0), 1.0, np.exp(1.0), 10.0], rtol=1e-6)


def test_advantages_that_overflow_are_clipped_and_not_nan():
    weights = advantage_weights(jnp.array([1e4, -1e4]), 3.0, 100.0)
    np.testing.assert_array_equal(weights, [100.0, 0.0])


def test_temperature_zero_clones():
    log_probs, advantages = normals((5,), (5,))
    loss = advantage_weighted_loss(jnp.asarray(log_probs), advantage_weights(jnp.asarray(advantages), 0.0, 100.0))
    np.testing.assert_allclose(loss, -log_probs, rtol=1e-6)


def test_no_gradient_flows_through_advantage_weights():
    advantages, log_probs = jnp.array([0.3, -0.2]), jnp.array([-1.0, -2.0])
    loss = lambda a: advantage_weighted_loss(log_probs, advantage_weights(a, 3.0, 100.0)).sum()  # noqa: E731
    np.testing.assert_array_equal(jax.grad(loss)(advantages), [0.0, 0.0])


def test_advantage_weighted_loss_by_hand():
    log_probs, weights = jnp.array([-1.0, -2.0]), jnp.array([3.0, 0.5])
    np.testing.assert_allclose(advantage_weighted_loss(log_probs, weights), [3.0, 1.0])
    slope = jax.grad(lambda x: advantage_weighted_loss(x, weights).mean())(log_probs)
    np.testing.assert_allclose(slope, -weights / 2)


def test_td3_bc_loss_by_hand():
    q, predicted, actions = jnp.array([1.0, -3.0]), jnp.array([[0.0], [1.0]]), jnp.array([[1.0], [1.0]])
    # lambda = 2.5 / mean(|1|, |-3|) = 1.25; the squared errors are 1 and 0.
    np.testing.assert_allclose(td3_bc_loss(q, predicted, actions, 2.5), [-1.25 + 1.0, 3.75 + 0.0])


def test_lambda_is_a_constant_for_the_gradient():
    q, (predicted, actions) = jnp.array([1.0, -3.0]), normals((2, 1), (2, 1))
    # With lambda differentiated too, the two entries would differ.
    slope = jax.grad(lambda q: td3_bc_loss(q, predicted, actions, 2.5).mean())(q)
    np.testing.assert_allclose(slope, [-1.25 / 2, -1.25 / 2], rtol=1e-6)


@pytest.mark.parametrize("scale", [1e-3, 1e3])
def test_td3_bc_balances_q_and_cloning_whatever_the_scale_of_rewards(scale):
    q, predicted, actions = normals((8,), (8, 2), (8, 2))
    loss = td3_bc_loss(jnp.asarray(q), predicted, actions, 2.5)
    np.testing.assert_allclose(td3_bc_loss(jnp.asarray(scale * q), predicted, actions, 2.5), loss, rtol=1e-5, atol=1e-6)


def test_squared_distance_by_hand_adds_action_dimensions():
    np.testing.assert_allclose(squared_distance(jnp.array([[0.0, 1.0]]), jnp.array([[3.0, -3.0]])), [9.0 + 16.0])


def test_rebrac_loss_by_hand():
    q = jnp.array([1.0, -3.0])
    predicted, actions = jnp.array([[0.0, 0.0], [1.0, 0.0]]), jnp.array([[1.0, 2.0], [1.0, 0.0]])
    # lambda = 1 / mean(|1|, |-3|) = 0.5; the distances are 5 and 0.
    np.testing.assert_allclose(rebrac_loss(q, predicted, actions, 0.1), [0.1 * 5.0 - 0.5, 0.5 * 3.0])
    grads = jax.grad(lambda *args: rebrac_loss(*args, actions, 0.1).mean(), argnums=(0, 1))(q, predicted)
    np.testing.assert_allclose(grads[0], [-0.5 / 2, -0.5 / 2])  # lambda is a constant
    np.testing.assert_allclose(grads[1], [[-0.1, -0.2], [0.0, 0.0]], rtol=1e-6)


def test_gradients_by_finite_differences():
    actions, mean, log_probs, weights = normals((4, 3), (4, 3), (4,), (4,))
    with jax.enable_x64(True):
        as64 = functools.partial(jnp.asarray, dtype=jnp.float64)
        check_grads(jax.jit(behavioural_cloning_loss), (as64(mean), as64(actions)), order=1, modes=("rev",))
        check_grads(jax.jit(advantage_weighted_loss), (as64(log_probs), as64(weights)), order=1, modes=("rev",))
        cloning = functools.partial(td3_bc_loss, as64(log_probs), actions=as64(actions), alpha=2.5)
        check_grads(jax.jit(cloning), (as64(mean),), order=1, modes=("rev",))


ACTIONS, MEAN, Q, WEIGHTS = (jnp.asarray(x) for x in normals((4, 3), (4, 3), (4,), (4,), seed=1))
CALLS = {
    "behavioural_cloning_loss": (behavioural_cloning_loss, (MEAN, ACTIONS)),
    "advantage_weights": (functools.partial(advantage_weights, temperature=3.0, max_weight=2.0), (Q,)),
    "advantage_weighted_loss": (advantage_weighted_loss, (Q, WEIGHTS)),
    "td3_bc_loss": (functools.partial(td3_bc_loss, alpha=2.5), (Q, MEAN, ACTIONS)),
    "rebrac_loss": (functools.partial(rebrac_loss, penalty=0.1), (Q, MEAN, ACTIONS)),
}


@pytest.mark.parametrize("name", CALLS)
def test_jit_changes_nothing(name):
    function, args = CALLS[name]
    np.testing.assert_allclose(jax.jit(function)(*args), function(*args), rtol=1e-5)


@pytest.mark.parametrize(
    "function, shapes",
    [
        pytest.param(behavioural_cloning_loss, [(4, 3), (4, 1)], id="behavioural_cloning_loss actions"),
        pytest.param(behavioural_cloning_loss, [(4,), (4,)], id="behavioural_cloning_loss rank 1"),
        pytest.param(behavioural_cloning_loss, [(3, 4, 2), (3, 4, 1)], id="behavioural_cloning_loss sequences"),
        pytest.param(functools.partial(advantage_weights, temperature=1.0, max_weight=1.0), [(4, 1)], id="advantages"),
        pytest.param(advantage_weighted_loss, [(4,), (4, 1)], id="advantage_weighted_loss weights"),
        pytest.param(advantage_weighted_loss, [(4, 1), (4, 1)], id="advantage_weighted_loss rank 2"),
        pytest.param(functools.partial(td3_bc_loss, alpha=1.0), [(4, 1), (4, 3), (4, 3)], id="td3_bc_loss q"),
        pytest.param(functools.partial(td3_bc_loss, alpha=1.0), [(2,), (4, 3), (4, 3)], id="td3_bc_loss batch"),
        pytest.param(functools.partial(td3_bc_loss, alpha=1.0), [(4,), (4, 3), (4, 1)], id="td3_bc_loss actions"),
        pytest.param(squared_distance, [(4, 3), (4, 1)], id="squared_distance actions"),
        pytest.param(functools.partial(rebrac_loss, penalty=1.0), [(4, 1), (4, 3), (4, 3)], id="rebrac_loss q"),
        pytest.param(functools.partial(rebrac_loss, penalty=1.0), [(2,), (4, 3), (4, 3)], id="rebrac_loss batch"),
    ],
)
def test_wrong_shapes_are_refused(function, shapes):
    with pytest.raises(AssertionError):
        function(*(jnp.ones(shape) for shape in shapes))


def test_actions_that_are_no_floats_are_refused():
    with pytest.raises(AssertionError, match="assert_type"):
        behavioural_cloning_loss(MEAN, ACTIONS.astype(jnp.int32))
