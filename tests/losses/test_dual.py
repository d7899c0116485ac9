"""The dual losses by hand."""

import jax.numpy as jnp
import numpy as np
import pytest

from rl_jax.losses.divergence import PEARSON_CHI2, REVERSE_KL
from rl_jax.losses.dual import dual_loss, mixture_dual_loss, normalized_kl_dual_loss


def test_dual_loss_by_hand():
    # 0.1 * 3 + 2 * mean(y + y^2/4) with y = (1, -2): 1.25 and -1.
    loss, info = dual_loss(jnp.array([2.0, 4.0]), jnp.array([2.0, -4.0]), PEARSON_CHI2.positive_conjugate, 0.9, 2.0)
    assert loss == pytest.approx(0.3 + 2 * 0.125)
    assert (info["dual/initial"], info["dual/divergence"]) == (pytest.approx(0.3), pytest.approx(0.25))
    loss, _ = dual_loss(jnp.array([0.0]), jnp.array([np.log(3.0)]), REVERSE_KL.conjugate, 0.9, 1.0)
    assert loss == pytest.approx(2.0)


def test_normalized_kl_dual_loss_by_hand():
    # 0.1 * 3 + 2 log mean(1, 3)
    loss, info = normalized_kl_dual_loss(jnp.array([2.0, 4.0]), 2 * jnp.log(jnp.array([1.0, 3.0])), 0.9, 2.0)
    assert loss == pytest.approx(0.3 + 2 * np.log(2.0))
    assert (info["dual/initial"], info["dual/divergence"]) == (pytest.approx(0.3), pytest.approx(2 * np.log(2.0)))


def test_mixture_dual_loss_by_hand():
    # 0.25 * 0.1 * 4 + 0.25 * f*(2) + 0.75 * f*(-2) - 0.75 * (-2), with f*(2) = 3 and f*(-2) = -1.
    loss, info = mixture_dual_loss(
        jnp.array([4.0]), jnp.array([2.0, 2.0]), jnp.array([-2.0]), PEARSON_CHI2.conjugate, 0.9, 0.25
    )
    assert loss == pytest.approx(0.1 + 0.75 - 0.75 + 1.5)
    terms = [float(info[f"dual/{name}"]) for name in ("initial", "divergence", "offline")]
    np.testing.assert_allclose(terms, [0.1, 0.0, 1.5], atol=1e-6)
    # With the expert alone in the mixture it is imitation's dual-Q.
    initial, residuals = jnp.array([4.0]), jnp.array([2.0, 1.0])
    alone, _ = mixture_dual_loss(initial, residuals, jnp.array([9.0]), REVERSE_KL.conjugate, 0.9, 1.0)
    assert alone == pytest.approx(dual_loss(initial, residuals, REVERSE_KL.conjugate, 0.9, 1.0)[0])


@pytest.mark.parametrize("position", range(3))
@pytest.mark.parametrize("shape", [(), (2, 1)])
def test_wrong_ranks_are_refused(position, shape):
    args = [jnp.zeros(shape if i == position else 2) for i in range(3)]
    with pytest.raises(AssertionError):
        mixture_dual_loss(*args, REVERSE_KL.conjugate, 0.9, 0.5)
    if position < 2:
        with pytest.raises(AssertionError):
            dual_loss(*args[:2], REVERSE_KL.conjugate, 0.9, 1.0)
        with pytest.raises(AssertionError):
            normalized_kl_dual_loss(*args[:2], 0.9, 1.0)
