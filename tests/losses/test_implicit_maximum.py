"""f-DVL's loss of V: hand numbers, and the V that it settles at in closed form."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.optimize

from rl_jax.losses.divergence import SURROGATES
from rl_jax.losses.value_learning import implicit_maximum_loss

UNIFORM = (np.arange(20_000) + 0.5) / 2000  # quantiles of Q uniform in [0, 10]


def test_implicit_maximum_loss_by_hand():
    errors = jnp.array([2.0, -6.0])
    # 0.75 h(u) - 0.25 u, with h of 2 and of -6
    for name, h in [("total_variation", (2, 0)), ("chi2_hinged", (3, 0)), ("chi2_coded", (3, 3))]:
        expected = [0.75 * h[0] - 0.25 * 2, 0.75 * h[1] + 0.25 * 6]
        np.testing.assert_allclose(implicit_maximum_loss(errors, SURROGATES[name], 0.75), expected, rtol=1e-6)


def fitted(values: np.ndarray, surrogate: str, lam: float) -> float:
    """The V of least implicit_maximum_loss, found by a scalar minimiser."""
    with jax.enable_x64(True):
        loss = jax.jit(lambda v: implicit_maximum_loss(jnp.asarray(values) - v, SURROGATES[surrogate], lam).mean())
        bounds = (values.min(), values.max())
        return scipy.optimize.minimize_scalar(lambda v: float(loss(v)), bounds=bounds, method="bounded").x


CLOSED_FORMS = {
    # The quantile with P(Q > V) = (1 - lam) / lam.
    "total_variation": {0.6: 3.333, 0.7: 5.714, 0.8: 7.5, 0.9: 8.889, 0.95: 9.474, 0.99: 9.899},
    # E[1(Q > V) (1 + (Q - V) / 2)] = (1 - lam) / lam =: c, so that x = 10 - V solves x / 10 + x^2 / 40 = c.
    "chi2_hinged": {0.6: 6.462, 0.7: 7.402, 0.8: 8.258, 0.9: 9.094, 0.99: 9.901},
    # V = 7 - 2 c of the plain conjugate, E[1 + (Q - V) / 2] = c: for V > 4 the flat part, -4 to 0, adds nothing to it.
    "chi2_coded": {0.6: 5.667, 0.7: 6.143, 0.8: 6.5, 0.9: 6.778, 0.99: 6.980},
}


@pytest.mark.parametrize("surrogate", SURROGATES)
def test_v_of_a_uniform_q_is_its_closed_form(surrogate):
    for lam, expected in CLOSED_FORMS[surrogate].items():
        c = (1 - lam) / lam
        formula = {
            "total_variation": 10 * (1 - c),
            "chi2_hinged": 12 - np.sqrt(4 + 40 * c),
            "chi2_coded": 7 - 2 * c,
        }
        assert expected == pytest.approx(formula[surrogate], abs=5e-4)
        assert fitted(UNIFORM, surrogate, lam) == pytest.approx(expected, abs=1e-3)


def test_chi2_as_coded_depends_on_the_scale_of_q():
    """V / W of Q uniform in [0, W] at lambda 0.9: about 0.9 of a small range, the middle of a large one."""
    for width, coded, hinged in [(1, 0.892, 0.892), (4, 0.899, 0.899), (10, 0.678, 0.909), (100, 0.518, 0.950)]:
        assert fitted(UNIFORM * width / 10, "chi2_coded", 0.9) / width == pytest.approx(coded, abs=1e-3)
        assert fitted(UNIFORM * width / 10, "chi2_hinged", 0.9) / width == pytest.approx(hinged, abs=1e-3)


def test_total_variation_needs_lambda_above_one_half():
    """Far below every Q the loss is (1 - 2 lam) V and a constant."""
    h = SURROGATES["total_variation"]
    slope = jax.grad(lambda v, lam: implicit_maximum_loss(jnp.arange(5.0) - v, h, lam).mean())
    np.testing.assert_allclose([slope(-1e3, lam) for lam in (0.4, 0.5, 0.6)], [0.2, 0.0, -0.2], atol=1e-6)


@pytest.mark.parametrize("shape", [(), (2, 1)])
def test_wrong_ranks_are_refused(shape):
    with pytest.raises(AssertionError):
        implicit_maximum_loss(jnp.zeros(shape), SURROGATES["chi2_hinged"], 0.8)
