"""The temperature's loss by hand."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rl_jax.losses.maximum_entropy import temperature_loss


def test_temperature_rises_while_the_entropy_is_below_its_target():
    log_probs, target = jnp.array([3.0, 1.0]), -1.0
    np.testing.assert_allclose(temperature_loss(jnp.array(0.5), log_probs, target), [-0.5 * 2.0, 0.0])
    slope, by_policy = jax.grad(lambda *args: temperature_loss(*args, target).mean(), (0, 1))(jnp.array(0.5), log_probs)
    assert slope == pytest.approx(-1.0)  # entropy -2 is below -1: descent raises log alpha
    assert not np.any(by_policy)
