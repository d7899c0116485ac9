"""The unification, checked: each method's own loss, written as its paper has it, has the gradient of the dual losses.

Q and V are linear in random features, more of them than samples, so that equal gradients mean equal coefficients of
every sample. Factors that a paper leaves out are stated beside each method.
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rl_jax.losses.divergence import PEARSON_CHI2, REVERSE_KL, SURROGATES
from rl_jax.losses.dual import dual_loss, implicit_maximum_loss, mixture_dual_loss
from rl_jax.losses.value_learning import expectile_loss, gumbel_loss

SIZE, FEATURES, DISCOUNT, ALPHA = 8, 40, 0.9, 0.7
RNG = np.random.default_rng(0)


def features():
    return jnp.asarray(RNG.normal(size=(SIZE, FEATURES)) / np.sqrt(FEATURES), jnp.float32)


# V or Q at the data, at the next states (with the policy's action) and at the initial states; the expert's data too.
HERE, NEXT, INITIAL, EXPERT_HERE, EXPERT_NEXT = (features() for _ in range(5))
PARAMS = jnp.asarray(RNG.normal(size=FEATURES), jnp.float32)
REWARDS = jnp.asarray(RNG.normal(size=SIZE), jnp.float32)
TARGETS = jnp.asarray(RNG.normal(size=SIZE), jnp.float32)  # a Q that is held fixed


def residuals(params, rewards=REWARDS):
    return rewards + DISCOUNT * NEXT @ params - HERE @ params


def expert_residuals(params):
    return DISCOUNT * EXPERT_NEXT @ params - EXPERT_HERE @ params


def assert_same_gradient(own, dual, factor=1.0):
    expected = factor * jax.grad(dual)(PARAMS)
    assert jnp.max(jnp.abs(expected)) > 1e-3
    np.testing.assert_allclose(jax.grad(own)(PARAMS), expected, rtol=2e-4, atol=2e-6)


def dual(conjugate, alpha=ALPHA, rewards=REWARDS):
    return lambda params: dual_loss(INITIAL @ params, residuals(params, rewards), conjugate, DISCOUNT, alpha)


def imitation(conjugate, alpha=ALPHA):
    """dual-Q whose only data are the expert's."""
    return lambda params: dual_loss(INITIAL @ params, expert_residuals(params), conjugate, DISCOUNT, alpha)


# Offline RL


@pytest.mark.parametrize("beta", [0.5, 2.0])
def test_xql_is_dual_v_with_reverse_kl(beta):
    """Garg et al. 2023: Gumbel regression of Q. d_0 is the data's states, Q is fixed, the factor beta / exp(-m)."""
    errors = TARGETS - HERE @ PARAMS
    scale = jnp.exp(-jnp.maximum(jnp.max(errors / beta), -1.0))

    def stated(params):
        z = (TARGETS - HERE @ params) / beta
        return jnp.mean(jnp.exp(z) - z - 1)

    def as_dual(params):
        # (1 - 0) E[V] + beta E[f*((Q - V) / beta)]
        return dual_loss(HERE @ params, TARGETS - HERE @ params, REVERSE_KL.positive_conjugate, 0.0, beta)

    assert_same_gradient(stated, as_dual, 1 / beta)
    assert_same_gradient(lambda params: gumbel_loss(TARGETS - HERE @ params, beta, np.inf), as_dual, scale / beta)


@pytest.mark.parametrize("expectile", [0.5, 0.7, 0.9])
def test_iql_is_dual_v_with_an_asymmetric_chi2(expectile):
    """Kostrikov et al. 2021: f(t) = (t - 1)^2 / (4 w), w the expectile above t = 1 and 1 - expectile below."""

    def weight(sign):
        return jnp.where(sign > 0, expectile, 1 - expectile)

    def conjugate(y):
        return y + weight(y) * jnp.square(y)

    t = jnp.linspace(-40, 40, 80_001)
    generator = jnp.square(t - 1) / (4 * weight(t - 1))
    for y in (-1.5, 0.0, 2.0):
        assert jnp.max(y * t - generator) == pytest.approx(float(conjugate(jnp.float32(y))), abs=1e-4)
    assert_same_gradient(
        lambda params: expectile_loss(TARGETS - HERE @ params, expectile),
        lambda params: dual_loss(HERE @ params, TARGETS - HERE @ params, conjugate, 0.0, 1.0),
    )


@pytest.mark.parametrize("surrogate", SURROGATES)
def test_fdvl_as_coded_is_dual_v_on_the_data_states(surrogate):
    """Sikchi et al. 2023: (1 - lambda) E[V] + lambda E[h(Q - V)]."""

    def stated(params):
        v = HERE @ params
        return jnp.mean((1 - 0.8) * v + 0.8 * SURROGATES[surrogate](TARGETS - v))

    def as_dual(params):
        # The factor lambda: (1 - lambda) / lambda is the weight 1 - discount of the initial values.
        v = HERE @ params
        return dual_loss(v, TARGETS - v, SURROGATES[surrogate], 1 - (1 - 0.8) / 0.8, 1.0)

    assert_same_gradient(stated, as_dual, 0.8)
    assert_same_gradient(
        lambda params: implicit_maximum_loss(TARGETS - HERE @ params, SURROGATES[surrogate], 0.8), as_dual, 0.8
    )


def test_optidice_is_dual_v():
    """Lee et al. 2021, arXiv 2106.10783: E[w e] - alpha E[f(w)] + (1 - gamma) E[nu(s_0)] at the best w >= 0."""

    def stated(params):
        e = residuals(params)
        w = jax.lax.stop_gradient(jnp.maximum(0.0, 1 + e / (2 * ALPHA)))  # f'(w) = 2 (w - 1) = e / alpha
        return jnp.mean(w * e - ALPHA * jnp.square(w - 1)) + (1 - DISCOUNT) * jnp.mean(INITIAL @ params)

    assert jnp.min(residuals(PARAMS)) < -2 * ALPHA < jnp.max(residuals(PARAMS))  # weights of 0 and others
    assert_same_gradient(stated, dual(PEARSON_CHI2.positive_conjugate))


def test_algaedice_is_dual_q():
    """Nachum et al. 2019, arXiv 1912.02074, with f(t) = t^2 / 2: the squared Bellman residual over 2 alpha."""

    def stated(params):
        return (1 - DISCOUNT) * jnp.mean(INITIAL @ params) + jnp.mean(jnp.square(residuals(params))) / (2 * ALPHA)

    assert_same_gradient(stated, dual(lambda y: jnp.square(y) / 2))


def test_cql_is_dual_q_with_chi2():
    """Kumar et al. 2020: E_{s, pi}[Q] - E_D[Q] and the squared Bellman residual.

    d_0 = d_O here, and next states are the data's in another order: the flow (1 - gamma) d_0 + gamma P d_O is d_O.
    """
    at_policy = features()  # Q(s, pi(s)) of the data's states
    order = RNG.permutation(SIZE)

    def bellman_residuals(params):
        return REWARDS + DISCOUNT * (at_policy @ params)[order] - HERE @ params

    def stated(params):
        conservatism = jnp.mean(at_policy @ params) - jnp.mean(HERE @ params)
        return conservatism + jnp.mean(jnp.square(bellman_residuals(params))) / (4 * ALPHA)

    assert_same_gradient(
        stated,
        lambda params: dual_loss(
            at_policy @ params, bellman_residuals(params), PEARSON_CHI2.conjugate, DISCOUNT, ALPHA
        ),
    )


# Imitation


def test_iq_learn_is_dual_q_of_the_expert():
    """Garg et al. 2021, arXiv 2106.12142: max E_E[phi(Q - gamma V')] - (1 - gamma) E[V_0], phi(x) = x - x^2/4alpha."""

    def stated(params):
        reward = EXPERT_HERE @ params - DISCOUNT * EXPERT_NEXT @ params
        return -jnp.mean(reward - jnp.square(reward) / (4 * ALPHA)) + (1 - DISCOUNT) * jnp.mean(INITIAL @ params)

    assert_same_gradient(stated, imitation(PEARSON_CHI2.conjugate))


def test_valuedice_is_dual_q_with_reverse_kl_at_the_best_constant():
    """Kostrikov et al. 2020, arXiv 1912.05032: log E_E[exp(nu - gamma nu')] - (1 - gamma) E[nu_0], nu = -Q.

    Its Donsker-Varadhan form is the dual's minimum over a constant c that is added to the residuals.
    """

    def stated(params):
        nu = -params
        log_mean = jax.nn.logsumexp(EXPERT_HERE @ nu - DISCOUNT * EXPERT_NEXT @ nu) - jnp.log(SIZE)
        return log_mean - (1 - DISCOUNT) * jnp.mean(INITIAL @ nu)

    best = -(jax.nn.logsumexp(expert_residuals(PARAMS)) - jnp.log(SIZE))

    def as_dual(params):
        return dual_loss(INITIAL @ params, expert_residuals(params) + best, REVERSE_KL.conjugate, DISCOUNT, 1.0)

    assert_same_gradient(stated, as_dual)
    shifts = best + jnp.linspace(-1, 1, 201)
    values = [
        dual_loss(INITIAL @ PARAMS, expert_residuals(PARAMS) + c, REVERSE_KL.conjugate, DISCOUNT, 1.0) - c
        for c in shifts
    ]
    assert int(np.argmin(values)) == 100


def test_smodice_is_dual_v_with_the_log_ratio_as_reward():
    """Ma et al. 2022, arXiv 2202.02433, chi2: (1 - gamma) E[V_0] + E_O[f_p*(R + gamma V' - V)], R = log d_E / d_O."""
    ratio = jnp.exp(REWARDS)

    def stated(params):
        y = jnp.log(ratio) + DISCOUNT * NEXT @ params - HERE @ params
        return (1 - DISCOUNT) * jnp.mean(INITIAL @ params) + jnp.mean(jnp.where(y > -2, y + y**2 / 4, -1.0))

    assert_same_gradient(stated, dual(PEARSON_CHI2.positive_conjugate, alpha=1.0, rewards=jnp.log(ratio)))


def test_demodice_is_dual_v_with_reverse_kl_at_the_best_constant():
    """Kim et al. 2022: (1 - gamma) E[nu_0] + (1 + alpha) log E_O[exp((r + gamma nu' - nu) / (1 + alpha))]."""
    weight = 1 + ALPHA

    def stated(params):
        y = residuals(params) / weight
        return (1 - DISCOUNT) * jnp.mean(INITIAL @ params) + weight * (jax.nn.logsumexp(y) - jnp.log(SIZE))

    best = -weight * (jax.nn.logsumexp(residuals(PARAMS) / weight) - jnp.log(SIZE))
    assert_same_gradient(
        stated,
        lambda params: dual_loss(
            INITIAL @ params, residuals(params) + best, REVERSE_KL.positive_conjugate, DISCOUNT, weight
        ),
    )


def test_recoil_with_chi2_raises_the_expert_lowers_the_policy_and_keeps_residuals_small():
    """Sikchi et al. 2023: with f*(y) = y + y^2 / 4 the linear terms of the offline data cancel."""
    beta = 0.3

    def stated(params):
        raised = jnp.mean(EXPERT_HERE @ params) - DISCOUNT * jnp.mean(EXPERT_NEXT @ params)
        lowered = (1 - DISCOUNT) * jnp.mean(INITIAL @ params)
        bellman = beta * jnp.mean(jnp.square(expert_residuals(params)))
        bellman += (1 - beta) * jnp.mean(jnp.square(residuals(params, 0.0)))
        return beta * (lowered - raised) + bellman / 4

    assert_same_gradient(
        stated,
        lambda params: mixture_dual_loss(
            INITIAL @ params, expert_residuals(params), residuals(params, 0.0), PEARSON_CHI2.conjugate, DISCOUNT, beta
        ),
    )
