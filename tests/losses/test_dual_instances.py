"""The unification, checked: each method's own loss, written as its paper has it, has the gradient of the dual losses.

Q and V are linear in random features, as many as there are samples, so that equal gradients mean equal coefficients of
every sample. Factors that a paper leaves out are stated beside each method.
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rl_jax.losses.divergence import PEARSON_CHI2, REVERSE_KL, SURROGATES
from rl_jax.losses.dual import dual_loss as dual_loss_and_terms
from rl_jax.losses.dual import mixture_dual_loss, normalized_kl_dual_loss
from rl_jax.losses.value_learning import expectile_loss, gumbel_loss, implicit_maximum_loss

SIZE, FEATURES, DISCOUNT, ALPHA = 8, 48, 0.9, 0.7
RNG = np.random.default_rng(0)


def features():
    return jnp.asarray(RNG.normal(size=(SIZE, FEATURES)) / np.sqrt(FEATURES), jnp.float32)


# V or Q at the data, at the next states (with the policy's action) and at the initial states; the expert's data too; Q
# at the data's states with the policy's action.
HERE, NEXT, INITIAL, EXPERT_HERE, EXPERT_NEXT, AT_POLICY = (features() for _ in range(6))
PARAMS = jnp.asarray(RNG.normal(size=FEATURES), jnp.float32)
REWARDS = jnp.asarray(RNG.normal(size=SIZE), jnp.float32)
TARGETS = jnp.asarray(RNG.normal(size=SIZE), jnp.float32)  # a Q that is held fixed


def dual_loss(*arguments):
    return dual_loss_and_terms(*arguments)[0]


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
    ours = lambda params: gumbel_loss(TARGETS - HERE @ params, beta, np.inf).mean()  # noqa: E731
    assert_same_gradient(ours, as_dual, scale / beta)


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
        lambda params: expectile_loss(TARGETS - HERE @ params, expectile).mean(),
        lambda params: dual_loss(HERE @ params, TARGETS - HERE @ params, conjugate, 0.0, 1.0),
    )


@pytest.mark.parametrize(
    "name, h",
    [
        ("total_variation", lambda d: jnp.maximum(d, 0)),
        ("chi2_hinged", lambda d: jnp.where(d > 0, d + d**2 / 4, 0)),
        ("chi2_coded", lambda d: jnp.maximum(d + d**2 / 4, 0)),
    ],
)
def test_fdvl_is_dual_v_on_the_data_states(name, h):
    """Sikchi et al. 2023: (1 - lambda) E[V] + lambda E[h(Q - V)]; the authors' code: lambda h(d) - (1 - lambda) d."""
    lam, targets = 0.8, 5 * TARGETS

    def stated(params):
        v = HERE @ params
        return jnp.mean((1 - lam) * v + lam * h(targets - v))

    def coded(params):
        d = targets - HERE @ params
        return jnp.mean(lam * h(d) - (1 - lam) * d)

    def as_dual(params):
        # The factor lambda: (1 - lambda) / lambda is the weight 1 - discount of the initial values.
        v = HERE @ params
        return dual_loss(v, targets - v, SURROGATES[name], 1 - (1 - lam) / lam, 1.0)

    errors = targets - HERE @ PARAMS
    assert jnp.min(errors) < -4 and jnp.any((errors > -4) & (errors < 0)) and jnp.max(errors) > 0
    assert_same_gradient(stated, as_dual, lam)
    assert_same_gradient(coded, as_dual, lam)
    ours = lambda params: implicit_maximum_loss(targets - HERE @ params, SURROGATES[name], lam)  # noqa: E731
    assert_same_gradient(lambda params: ours(params).mean(), coded)
    # The constant between the two forms is (1 - lambda) E[Q].
    np.testing.assert_allclose(stated(PARAMS) - coded(PARAMS), (1 - lam) * jnp.mean(targets), rtol=1e-4, atol=1e-5)


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
    order = np.random.default_rng(1).permutation(SIZE)

    def bellman_residuals(params):
        return REWARDS + DISCOUNT * (AT_POLICY @ params)[order] - HERE @ params

    def stated(params):
        conservatism = jnp.mean(AT_POLICY @ params) - jnp.mean(HERE @ params)
        return conservatism + jnp.mean(jnp.square(bellman_residuals(params))) / (4 * ALPHA)

    assert_same_gradient(
        stated,
        lambda params: dual_loss(
            AT_POLICY @ params, bellman_residuals(params), PEARSON_CHI2.conjugate, DISCOUNT, ALPHA
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
    shifted = lambda c: dual_loss(  # noqa: E731
        INITIAL @ PARAMS, expert_residuals(PARAMS) + c, REVERSE_KL.conjugate, DISCOUNT, 1.0
    )
    values = jax.vmap(lambda c: shifted(c) - c)(shifts)
    assert int(np.argmin(values)) == 100
    assert values[100] == pytest.approx(float(stated(PARAMS)), abs=1e-5)


def test_smodice_is_dual_v_with_the_log_ratio_as_reward():
    """Ma et al. 2022, arXiv 2202.02433, chi2: (1 - gamma) E[V_0] + E_O[f_p*(R + gamma V' - V)], R = log d_E / d_O."""
    ratio = jnp.exp(3 * REWARDS)

    def stated(params):
        y = jnp.log(ratio) + DISCOUNT * NEXT @ params - HERE @ params
        return (1 - DISCOUNT) * jnp.mean(INITIAL @ params) + jnp.mean(jnp.where(y > -2, y + y**2 / 4, -1.0))

    assert jnp.min(residuals(PARAMS, jnp.log(ratio))) < -2  # some weights are 0
    assert_same_gradient(stated, dual(PEARSON_CHI2.positive_conjugate, alpha=1.0, rewards=jnp.log(ratio)))


def test_demodice_is_dual_v_with_reverse_kl_at_the_best_constant():
    """Kim et al. 2022: (1 - gamma) E[nu_0] + (1 + alpha) log E_O[exp((r + gamma nu' - nu) / (1 + alpha))]."""
    weight = 1 + ALPHA

    def stated(params):
        y = residuals(params) / weight
        return (1 - DISCOUNT) * jnp.mean(INITIAL @ params) + weight * (jax.nn.logsumexp(y) - jnp.log(SIZE))

    def shifted(params, c):
        """The dual, with the constraint that d sums to 1 and its multiplier -c."""
        return dual_loss(INITIAL @ params, residuals(params) + c, REVERSE_KL.positive_conjugate, DISCOUNT, weight) - c

    best = -weight * (jax.nn.logsumexp(residuals(PARAMS) / weight) - jnp.log(SIZE))
    assert_same_gradient(stated, lambda params: shifted(params, best))
    assert jax.grad(shifted, 1)(PARAMS, best) == pytest.approx(0.0, abs=1e-5)
    assert shifted(PARAMS, best) == pytest.approx(float(stated(PARAMS)), abs=1e-5)
    assert_same_gradient(
        stated, lambda params: normalized_kl_dual_loss(INITIAL @ params, residuals(params), DISCOUNT, weight)[0]
    )


def test_smodice_with_kl_cannot_prefer_to_end_an_episode_and_chi2_can():
    """One state of value v and two actions in the data, reward -1 each: one stays, the other ends the episode.

    KL's derivative in v is -gamma P(end), with P(end) = sigmoid(-gamma v): v grows for ever and the end's ratio goes to
    0. chi2's ratios are -(1 - gamma) v and -v there, of which flow conservation makes -v = 0.2 / 1.01.
    """
    masks, rewards, gamma = jnp.array([1.0, 0.0]), -jnp.ones(2), 0.9

    def errors(v):
        return rewards + gamma * masks * v - v

    def kl(v):
        return normalized_kl_dual_loss(v[None], errors(v), gamma, 1.0)[0]

    for v in (-5.0, 0.0, 8.0):
        end = 1 / (1 + np.exp(gamma * v))
        assert jax.grad(kl)(v) == pytest.approx(-gamma * end, abs=1e-6)
        assert jax.nn.softmax(errors(v))[1] == pytest.approx(end, abs=1e-6)

    grid = np.linspace(-5, 5, 2001)
    chi2 = jax.vmap(lambda v: dual_loss(v[None], errors(v), PEARSON_CHI2.positive_conjugate, gamma, 0.5))(grid)
    ratios = PEARSON_CHI2.weight(errors(grid[np.argmin(chi2)]) / 0.5)
    np.testing.assert_allclose(ratios, [0.02 / 1.01, 0.2 / 1.01], atol=0.01)


def recoil(initial, params, expert, offline, beta):
    return mixture_dual_loss(initial @ params, expert, offline, PEARSON_CHI2.conjugate, DISCOUNT, beta)[0]


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
        stated, lambda params: recoil(INITIAL, params, expert_residuals(params), residuals(params, 0.0), beta)
    )


def test_recoil_lowers_the_policy_at_the_experts_states():
    """The paper's short form, beta (E_{s, pi}[Q] - E_E[Q]) + the Bellman residual / 4.

    It needs (1 - gamma) d_0 + gamma P d_E to be the states s. Here the expert's data are stationary, so these are the
    expert's; no choice of d_0 makes them the offline states in general, since P d_E has the share gamma in them.
    """
    beta = 0.3
    order = np.random.default_rng(1).permutation(SIZE)

    def expert(params):
        return DISCOUNT * (AT_POLICY @ params)[order] - EXPERT_HERE @ params

    def stated(params):
        linear = jnp.mean(AT_POLICY @ params) - jnp.mean(EXPERT_HERE @ params)
        bellman = beta * jnp.mean(jnp.square(expert(params)))
        bellman += (1 - beta) * jnp.mean(jnp.square(residuals(params, 0.0)))
        return beta * linear + bellman / 4

    assert_same_gradient(
        stated, lambda params: recoil(AT_POLICY, params, expert(params), residuals(params, 0.0), beta)
    )
