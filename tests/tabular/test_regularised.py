"""Duals of regularised RL against linear programmes, value iteration, roll-outs and each other."""

import jax.numpy as jnp
import numpy as np
import pytest
import scipy.optimize

from rl_jax.losses.divergence import DIVERGENCES, PEARSON_CHI2, REVERSE_KL, TOTAL_VARIATION
from rl_jax.tabular.maze import maze_mdp
from rl_jax.tabular.mdp import TabularMDP
from rl_jax.tabular.regularised import (
    best_visitation,
    regularised_value,
    solve_dual_q,
    solve_dual_v,
    visitation,
)

DISCOUNT = 0.9
MAZE, _ = maze_mdp(["S..", ".#.", "..G"])
ENDING = TabularMDP(np.array([[1, 2], [2, -1], [0, -1]]), np.array([[0, 1], [2, -1], [0.5, 3]], np.float32), 1)
MDPS = {"maze": MAZE, "ending": ENDING}


def data_of(mdp: TabularMDP) -> np.ndarray:
    policy = np.random.default_rng(0).dirichlet(np.full(mdp.num_actions, 2.0), mdp.num_states)
    d = visitation(mdp, policy, DISCOUNT)
    return d / d.sum()


def inflow(mdp: TabularMDP, d: np.ndarray) -> np.ndarray:
    into = np.zeros(mdp.num_states)
    into[0] = 1 - DISCOUNT
    for (state, action), after in np.ndenumerate(mdp.transitions):
        if after >= 0:
            into[after] += DISCOUNT * d[state, action]
    return into


def best_value(mdp: TabularMDP) -> float:
    """(1 - gamma) V*(s_0), by value iteration."""
    values = np.zeros(mdp.num_states + 1)  # the last is that of a terminal, which -1 finds
    for _ in range(400):
        values[:-1] = (mdp.rewards + DISCOUNT * values[mdp.transitions]).max(1)
    return (1 - DISCOUNT) * values[0]


def test_a_visitation_is_counted_along_an_episode():
    """Right, right, down, down to the goal: steps 0, 1, 2, 3 and, in the goal, 4; then again."""
    policy = np.zeros(MAZE.rewards.shape)
    policy[:, 2] = 1.0
    policy[[0, 1]] = (0, 1, 0, 0)  # the start and the cell right of it
    d = visitation(MAZE, policy, DISCOUNT)
    assert d.sum() == pytest.approx(1.0)
    assert d[1, 1] == pytest.approx(0.1 * 0.9 / (1 - 0.9**5))
    assert np.sum(d * MAZE.rewards) == pytest.approx(0.1 * 0.9**4 / (1 - 0.9**5))


@pytest.mark.parametrize("mdp", MDPS.values(), ids=MDPS)
def test_the_linear_programme_is_value_iteration(mdp):
    d = best_visitation(mdp, DISCOUNT)
    np.testing.assert_allclose(d.sum(1), inflow(mdp, d), atol=1e-12)
    assert np.sum(d * mdp.rewards) == pytest.approx(best_value(mdp), rel=1e-9)


@pytest.mark.parametrize("name", DIVERGENCES)
@pytest.mark.parametrize("mdp", MDPS.values(), ids=MDPS)
def test_dual_v_has_the_primals_value_at_a_visitation(mdp, name):
    data, divergence, alpha = data_of(mdp), DIVERGENCES[name], 0.05
    found = solve_dual_v(mdp, data, divergence, discount=DISCOUNT, alpha=alpha)
    assert found.visitation.min() >= 0
    np.testing.assert_allclose(found.visitation.sum(1), inflow(mdp, found.visitation), atol=1e-7)
    # Strong duality: feasible points of primal and dual with one value are both optimal.
    assert regularised_value(mdp, found.visitation, data, divergence, alpha) == pytest.approx(found.value, abs=1e-6)


@pytest.mark.parametrize("name", DIVERGENCES)
def test_as_alpha_falls_dual_v_becomes_value_iteration(name):
    data = data_of(MAZE)
    values = [solve_dual_v(MAZE, data, DIVERGENCES[name], discount=DISCOUNT, alpha=a).value for a in (1e-2, 1e-4)]
    best = best_value(MAZE)
    assert values[0] < values[1] <= best and values[1] == pytest.approx(best, abs=0.05 * best)


def test_total_variation_is_the_linear_programme_over_visitations():
    """Greatest d . r - alpha / 2 sum z, with z >= |d - d_O|."""
    data, alpha = data_of(MAZE), 0.1
    pairs, states = data.size, MAZE.num_states
    eye = np.eye(pairs)
    flow = np.repeat(np.eye(states), 4, 1) - np.stack([inflow(MAZE, d) for d in eye.reshape(-1, states, 4)], 1)
    flow[0] += 1 - DISCOUNT  # inflow of a pair alone, without the start
    result = scipy.optimize.linprog(
        np.concatenate([-MAZE.rewards.ravel(), np.full(pairs, alpha / 2)]),
        A_ub=np.block([[eye, -eye], [-eye, -eye]]), b_ub=np.concatenate([data.ravel(), -data.ravel()]),
        A_eq=np.concatenate([flow, np.zeros_like(flow)], 1), b_eq=(1 - DISCOUNT) * np.eye(states)[0],
    )
    found = solve_dual_v(MAZE, data, TOTAL_VARIATION, discount=DISCOUNT, alpha=alpha)
    assert found.value == pytest.approx(-result.fun, abs=1e-9)
    assert np.sum(data * MAZE.rewards) + 1e-3 < found.value < best_value(MAZE) - 1e-3


@pytest.mark.parametrize("divergence", [REVERSE_KL, PEARSON_CHI2], ids=["reverse_kl", "pearson_chi2"])
@pytest.mark.parametrize("mdp", MDPS.values(), ids=MDPS)
def test_dual_q_is_a_policys_value_and_the_best_policys_is_dual_vs(mdp, divergence):
    data, settings = data_of(mdp), {"discount": DISCOUNT, "alpha": 0.2}
    best = solve_dual_v(mdp, data, divergence, **settings)
    greedy = best.visitation / best.visitation.sum(1, keepdims=True)
    other = np.random.default_rng(1).dirichlet(np.ones(mdp.num_actions), mdp.num_states)
    for policy in (greedy, other):
        found, d = solve_dual_q(mdp, policy, data, divergence, **settings), visitation(mdp, policy, DISCOUNT)
        np.testing.assert_allclose(found.visitation, d, atol=1e-7)
        assert found.value == pytest.approx(regularised_value(mdp, d, data, divergence, 0.2), abs=1e-6)
        assert (found.value < best.value - 1e-3) == (policy is other)
    assert solve_dual_q(mdp, greedy, data, divergence, **settings).value == pytest.approx(best.value, abs=1e-7)


def test_a_bandit_by_hand():
    """One state: d = d_O exp(A / alpha) with sum 1, so the value is alpha log E_{d_O} exp(r / alpha)."""
    bandit = TabularMDP(np.zeros((1, 2), int), np.array([[1.0, 0.0]], np.float32), 1)
    found = solve_dual_v(bandit, np.array([[0.25, 0.75]]), REVERSE_KL, discount=0.5, alpha=1.0)
    e = np.exp(1.0)
    assert found.value == pytest.approx(np.log(0.25 * e + 0.75), abs=1e-9)
    np.testing.assert_allclose(found.visitation, np.array([[0.25 * e, 0.75]]) / (0.25 * e + 0.75), atol=1e-7)
    weights = REVERSE_KL.weight(jnp.asarray(bandit.rewards - 0.5 * found.multipliers[0]))
    np.testing.assert_allclose(weights * np.array([[0.25, 0.75]]), found.visitation, atol=1e-6)


def test_bad_input_is_named():
    data, settings = data_of(MAZE), {"discount": DISCOUNT, "alpha": 1.0}
    uniform = np.full(data.shape, 0.25)
    with pytest.raises(ValueError, match=r"data has shape \(3,\)"):
        solve_dual_v(MAZE, np.ones(3) / 3, REVERSE_KL, **settings)
    with pytest.raises(ValueError, match="sums to 2: give shares that sum to 1"):
        solve_dual_v(MAZE, 2 * data, REVERSE_KL, **settings)
    with pytest.raises(ValueError, match="discount is 1.0"):
        solve_dual_v(MAZE, data, REVERSE_KL, discount=1.0, alpha=1.0)
    with pytest.raises(ValueError, match="alpha is 0.0"):
        solve_dual_v(MAZE, data, REVERSE_KL, discount=0.9, alpha=0.0)
    with pytest.raises(ValueError, match=r"policy has shape \(1, 8, 4\): give \[8, 4\]"):
        visitation(MAZE, uniform[None], DISCOUNT)
    with pytest.raises(ValueError, match=r"the visitation has shape \(8,\): give \[8, 4\]"):
        regularised_value(MAZE, data.sum(1), data, REVERSE_KL, 1.0)
    with pytest.raises(ValueError, match="use regularised_value"):
        solve_dual_q(MAZE, uniform, data, TOTAL_VARIATION, **settings)


@pytest.mark.parametrize("divergence", [REVERSE_KL, TOTAL_VARIATION], ids=["reverse_kl", "total_variation"])
def test_data_that_lead_nowhere_are_refused(divergence):
    dead_end = np.zeros(MAZE.rewards.shape)
    dead_end[0, 1] = 1.0  # from the start to the right, and no action there
    with pytest.raises(ValueError, match="must hold an action to go on with"):
        solve_dual_v(MAZE, dead_end, divergence, discount=DISCOUNT, alpha=1.0)


def test_a_visitation_outside_the_data_is_worth_minus_infinity():
    data = data_of(MAZE)
    data[0, 1], data[0, 2] = 0.0, data[0, 1] + data[0, 2]
    d = visitation(MAZE, np.full(data.shape, 0.25), DISCOUNT)
    assert regularised_value(MAZE, d, data, REVERSE_KL, 1.0) == -np.inf
