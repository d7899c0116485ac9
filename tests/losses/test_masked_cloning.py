"""The cloning loss of sequences: hand numbers, numpy, and what the mask does."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rl_jax.losses.policy_learning import masked_cloning_loss

RNG = np.random.default_rng(0)
PREDICTED, ACTIONS = (jnp.asarray(RNG.normal(size=(3, 4, 2)), jnp.float32) for _ in range(2))
MASK = jnp.asarray(np.arange(4) < np.array([[4], [2], [1]]), jnp.float32)


def test_by_hand():
    predicted, actions = jnp.array([[[1.0], [5.0]]]), jnp.array([[[3.0], [0.0]]])
    assert masked_cloning_loss(predicted, actions, jnp.array([[1.0, 0.0]])) == pytest.approx(4.0 / 2)
    assert masked_cloning_loss(predicted, actions, jnp.ones((1, 2))) == pytest.approx((4.0 + 25.0) / 2)


def test_it_is_the_sum_over_the_steps_divided_by_all():
    errors = np.square(PREDICTED - ACTIONS)
    expected = (errors[0].sum() + errors[1, :2].sum() + errors[2, :1].sum()) / errors.size
    np.testing.assert_allclose(jax.jit(masked_cloning_loss)(PREDICTED, ACTIONS, MASK), expected, rtol=1e-5)


def test_a_masked_step_has_no_gradient():
    gradient = jax.grad(masked_cloning_loss)(PREDICTED, ACTIONS, MASK)
    np.testing.assert_allclose(gradient, MASK[:, :, None] * 2 * (PREDICTED - ACTIONS) / ACTIONS.size, rtol=1e-5)


@pytest.mark.parametrize("shapes", [[(3, 4, 2), (3, 4, 1), (3, 4)], [(3, 4, 2), (3, 4, 2), (3, 4, 1)],
                                    [(3, 4, 2), (3, 4, 2), (3, 3)], [(3, 4), (3, 4), (3, 4)]])
def test_wrong_shapes_are_refused(shapes):
    with pytest.raises(AssertionError):
        masked_cloning_loss(*(jnp.ones(shape) for shape in shapes))
