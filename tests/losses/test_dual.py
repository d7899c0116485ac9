"""The dual losses: hand numbers, and f-DVL's V in closed form."""

import jax.numpy as jnp
import numpy as np
import pytest
import scipy.optimize

from rl_jax.losses.divergence import PEARSON_CHI2, REVERSE_KL, SURROGATES
from rl_jax.losses.dual import dual_loss, implicit_maximum_loss, mixture_dual_loss

UNIFORM = (np.arange(20_000, dtype=np.float32) + 0.5) / 2000  # Q uniform in [0, 10]


def test_dual_loss_by_hand():
    # 0.1 * 3 + 2 * mean(y + y^2/4) with y = (1, -2): 1.25 and -1.
    loss = dual_loss(jnp.array([2.0, 4.0]), jnp.array([2.0, -4.0]), PEARSON_CHI2.positive_conjugate, 0.9, 2.0)
    assert loss == pytest.approx(0.3 + 2 * 0.125)
    loss = dual_loss(jnp.array([0.0]), jnp.array([np.log(3.0)]), REVERSE_KL.conjugate, 0.9, 1.0)
    assert loss == pytest.approx(2.0)


def test_mixture_dual_loss_by_hand():
    # 0.25 * 0.1 * 4 + 0.25 * f*(2) + 0.75 * f*(-2) - 0.75 * (-2), with f*(2) = 3 and f*(-2) = -1.
    loss = mixture_dual_loss(
        jnp.array([4.0]), jnp.array([2.0, 2.0]), jnp.array([-2.0]), PEARSON_CHI2.conjugate, 0.9, 0.25
    )
    assert loss == pytest.approx(0.1 + 0.75 - 0.75 + 1.5)
    # With the expert alone in the mixture it is imitation's dual-Q.
    alone = mixture_dual_loss(jnp.array([4.0]), jnp.array([2.0, 1.0]), jnp.array([9.0]), REVERSE_KL.conjugate, 0.9, 1.0)
    assert alone == pytest.approx(dual_loss(jnp.array([4.0]), jnp.array([2.0, 1.0]), REVERSE_KL.conjugate, 0.9, 1.0))


def test_implicit_maximum_loss_by_hand():
    errors = jnp.array([2.0, -6.0])
    assert implicit_maximum_loss(errors, SURROGATES["total_variation"], 0.75) == pytest.approx(0.75 * 1 + 0.25 * 2)
    assert implicit_maximum_loss(errors, SURROGATES["chi2_hinged"], 0.75) == pytest.approx(0.75 * 1.5 + 0.25 * 2)
    assert implicit_maximum_loss(errors, SURROGATES["chi2_coded"], 0.75) == pytest.approx(0.75 * 3 + 0.25 * 2)


@pytest.mark.parametrize(
    "surrogate, lam, expected",
    [
        # total variation: the quantile with P(Q > V) = (1 - lam) / lam
        *(("total_variation", lam, 10 * (1 - (1 - lam) / lam)) for lam in (0.6, 0.7, 0.8, 0.9, 0.95, 0.99)),
        # chi2: lam E[1(Q > V) (1 + (Q - V) / 2)] = 1 - lam, so with x = 10 - V: x/10 + x^2/40 = (1 - lam) / lam
        *(
            ("chi2_hinged", lam, 10 - 20 * (np.sqrt(0.01 + (1 - lam) / lam / 10) - 0.1))
            for lam in (0.6, 0.7, 0.8, 0.9, 0.99)
        ),
    ],
)
def test_v_of_a_uniform_q_is_its_closed_form(surrogate, lam, expected):
    result = scipy.optimize.minimize_scalar(
        lambda v: float(implicit_maximum_loss(jnp.asarray(UNIFORM) - v, SURROGATES[surrogate], lam)),
        bounds=(0, 10), method="bounded", options={"xatol": 1e-4},
    )  # fmt: skip
    assert result.x == pytest.approx(expected, abs=0.02)


def test_chi2_as_coded_depends_on_the_scale_of_q():
    """V / W of Q uniform in [0, W] at lambda 0.9: about 0.9 of a small range, the middle of a large one."""
    for width, expected in [(1, 0.892), (10, 0.678), (100, 0.518)]:
        values = jnp.asarray(UNIFORM) * (width / 10)
        grid = np.linspace(0, width, 2001)
        losses = [float(implicit_maximum_loss(values - v, SURROGATES["chi2_coded"], 0.9)) for v in grid]
        assert grid[np.argmin(losses)] / width == pytest.approx(expected, abs=3e-3)


def test_shapes_are_checked():
    two = jnp.zeros((2, 2))
    for loss in (
        lambda: dual_loss(two, two[0], REVERSE_KL.conjugate, 0.9, 1.0),
        lambda: mixture_dual_loss(two[0], two, two[0], REVERSE_KL.conjugate, 0.9, 0.5),
        lambda: implicit_maximum_loss(two, SURROGATES["chi2_hinged"], 0.8),
    ):
        with pytest.raises(AssertionError):
            loss()
