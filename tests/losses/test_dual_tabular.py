"""On a small random MDP the duals' optima are the regularised optimum that scipy finds over visitations."""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.optimize

from rl_jax.losses.divergence import PEARSON_CHI2, REVERSE_KL, Divergence
from rl_jax.losses.dual import dual_loss

STATES, ACTIONS, DISCOUNT = 4, 2, 0.9


class MDP(NamedTuple):
    transitions: np.ndarray  # [S, A, S]
    rewards: np.ndarray  # [S, A]
    initial: np.ndarray  # [S] int, how often a state begins an episode
    counts: np.ndarray  # [S, A] int, how often a pair is in the data

    @property
    def data(self) -> np.ndarray:
        return self.counts / self.counts.sum()

    def inflow(self, d: np.ndarray) -> np.ndarray:
        """(1 - gamma) d_0 + gamma P d: [S]."""
        start = self.initial / self.initial.sum()
        return (1 - DISCOUNT) * start + DISCOUNT * np.einsum("sa,sat->t", d, self.transitions)


def random_mdp(seed: int) -> MDP:
    rng = np.random.default_rng(seed)
    return MDP(
        rng.dirichlet(np.full(STATES, 0.5), (STATES, ACTIONS)), rng.normal(size=(STATES, ACTIONS)),
        rng.integers(1, 4, STATES), rng.integers(1, 6, (STATES, ACTIONS)),
    )


def visitation(mdp: MDP, policy: np.ndarray) -> np.ndarray:
    """d^pi, [S, A], by a linear solve."""
    chain = np.einsum("sa,sat->st", policy, mdp.transitions)
    start = mdp.initial / mdp.initial.sum()
    states = np.linalg.solve(np.eye(STATES) - DISCOUNT * chain.T, (1 - DISCOUNT) * start)
    return states[:, None] * policy


def regularised(mdp: MDP, divergence: Divergence, alpha: float, d: np.ndarray) -> float:
    """E_d[r] - alpha D_f(d || d_O)."""
    return float(np.sum(d * mdp.rewards) - alpha * np.sum(mdp.data * divergence.generator(jnp.asarray(d / mdp.data))))


def primal(mdp: MDP, divergence: Divergence, alpha: float) -> tuple[float, np.ndarray]:
    """The best regularised value over all visitations, and where it is, by SLSQP."""
    result = scipy.optimize.minimize(
        lambda x: -regularised(mdp, divergence, alpha, x.reshape(STATES, ACTIONS)),
        visitation(mdp, np.full((STATES, ACTIONS), 1 / ACTIONS)).ravel(),
        bounds=[(0, 1)] * (STATES * ACTIONS), method="SLSQP", options={"ftol": 1e-13, "maxiter": 2000},
        constraints={"type": "eq", "fun": lambda x: (lambda d: d.sum(1) - mdp.inflow(d))(x.reshape(STATES, ACTIONS))},
    )
    assert result.success, result.message
    return -result.fun, result.x.reshape(STATES, ACTIONS)


def minimum(value_and_grad, size: int) -> tuple[float, np.ndarray]:
    result = scipy.optimize.minimize(
        lambda x: [np.asarray(y, np.float64) for y in value_and_grad(jnp.asarray(x))], np.zeros(size), jac=True,
        method="BFGS", options={"gtol": 1e-9, "maxiter": 5000},
    )
    return float(result.fun), result.x


def repeated(values: jax.Array, counts: np.ndarray) -> jax.Array:
    """Each value as often as it is in the data, so that a plain mean is the data's."""
    return jnp.repeat(values.ravel(), counts.ravel(), total_repeat_length=int(counts.sum()))


def residuals_of_v(mdp: MDP, v: jax.Array) -> jax.Array:
    return jnp.asarray(mdp.rewards) + DISCOUNT * jnp.asarray(mdp.transitions) @ v - v[:, None]


def dual_v(mdp: MDP, divergence: Divergence, alpha: float) -> tuple[float, np.ndarray]:
    def loss(v):
        residuals = repeated(residuals_of_v(mdp, v), mdp.counts)
        return dual_loss(repeated(v, mdp.initial), residuals, divergence.positive_conjugate, DISCOUNT, alpha)[0]

    return minimum(jax.jit(jax.value_and_grad(loss)), STATES)


def dual_q(mdp: MDP, divergence: Divergence, alpha: float):
    """policy [S, A] -> the least dual-Q, and its gradient in the policy there."""

    @jax.jit
    @functools.partial(jax.value_and_grad, argnums=(0, 1))
    def loss(q, policy):
        q = q.reshape(STATES, ACTIONS)
        v = jnp.sum(q * policy, 1)
        residuals = jnp.asarray(mdp.rewards) + DISCOUNT * jnp.asarray(mdp.transitions) @ v - q
        return dual_loss(
            repeated(v, mdp.initial), repeated(residuals, mdp.counts), divergence.conjugate, DISCOUNT, alpha
        )[0]

    def least(policy: np.ndarray) -> tuple[float, np.ndarray]:
        def of_q(q):
            value, (gradient, _) = loss(q, policy)
            return value, gradient

        value, q = minimum(of_q, STATES * ACTIONS)
        return value, np.asarray(loss(q, policy)[1][1])

    return least


CASES = [(d, alpha, seed) for d in (REVERSE_KL, PEARSON_CHI2) for alpha, seed in ((1.0, 0), (0.2, 1))]
cases = pytest.mark.parametrize("divergence, alpha, seed", CASES, ids=["kl-1", "kl-0.2", "chi2-1", "chi2-0.2"])


@pytest.fixture(autouse=True)
def _float64():
    with jax.enable_x64(True):
        yield


@cases
def test_dual_v_is_the_regularised_optimum(divergence, alpha, seed):
    mdp = random_mdp(seed)
    best, d = primal(mdp, divergence, alpha)
    value, v = dual_v(mdp, divergence, alpha)
    assert value == pytest.approx(best, abs=1e-6)
    weights = divergence.weight(residuals_of_v(mdp, jnp.asarray(v)) / alpha)
    np.testing.assert_allclose(weights * mdp.data, d, atol=1e-4)


@cases
def test_dual_q_is_a_policys_regularised_value(divergence, alpha, seed):
    mdp = random_mdp(seed)
    best, d = primal(mdp, divergence, alpha)
    least = dual_q(mdp, divergence, alpha)
    assert least(d / d.sum(1, keepdims=True))[0] == pytest.approx(best, abs=1e-5)
    uniform = np.full((1, STATES, ACTIONS), 1 / ACTIONS)
    others = np.random.default_rng(seed).dirichlet(np.ones(ACTIONS), (2, STATES))
    for policy in np.concatenate([uniform, others]):
        value, _ = least(policy)
        # A policy has one visitation: the primal problem's only feasible point.
        assert value == pytest.approx(regularised(mdp, divergence, alpha, visitation(mdp, policy)), abs=1e-6)
        assert value < best


@cases
def test_the_best_policy_of_dual_q_has_dual_vs_optimum(divergence, alpha, seed):
    mdp = random_mdp(seed)
    least = dual_q(mdp, divergence, alpha)

    def lost(chances: np.ndarray) -> tuple[float, np.ndarray]:
        """-min_Q at the chances of action 0; the policy ascends the number that Q has minimised."""
        value, gradient = least(np.stack([chances, 1 - chances], 1))
        return -value, gradient[:, 1] - gradient[:, 0]

    result = scipy.optimize.minimize(
        lost, np.full(STATES, 0.5), jac=True, bounds=[(0, 1)] * STATES, method="L-BFGS-B",
        options={"ftol": 1e-12, "gtol": 1e-7},
    )
    value, v = dual_v(mdp, divergence, alpha)
    assert -result.fun == pytest.approx(value, abs=1e-6)
    d = divergence.weight(residuals_of_v(mdp, jnp.asarray(v)) / alpha) * mdp.data
    np.testing.assert_allclose(result.x, d[:, 0] / d.sum(1), atol=2e-3)


def test_a_weight_of_zero_is_met():
    """At a small alpha chi2 leaves pairs out: the positive conjugate acts, the plain one has another optimum."""
    mdp, alpha = random_mdp(1), 0.05
    _, d = primal(mdp, PEARSON_CHI2, alpha)
    assert np.min(d) < 1e-6
    value, _ = dual_v(mdp, PEARSON_CHI2, alpha)
    plain, _ = dual_v(mdp, PEARSON_CHI2._replace(positive_conjugate=PEARSON_CHI2.conjugate), alpha)
    assert plain > value + 1e-3
