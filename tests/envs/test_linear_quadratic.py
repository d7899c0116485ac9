"""The double integrator: scipy's Riccati solution, exact regrets, and pictures."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.linalg import solve_discrete_are

from rl_jax.data.segments import regret_scores
from rl_jax.envs.linear_quadratic import (
    collect,
    double_integrator,
    environment,
    picture,
    regrets,
    seen_as_pictures,
    solve,
    values,
)

PROBLEM = double_integrator()
SOLUTION = solve(PROBLEM)


def test_the_solution_is_scipys():
    cost = solve_discrete_are(PROBLEM.dynamics, PROBLEM.control, PROBLEM.state_cost, PROBLEM.control_cost)
    np.testing.assert_allclose(SOLUTION.cost, cost, rtol=1e-9)
    corners = np.array([[1.0, 1.0], [1.0, -1.0]])
    assert np.abs(corners @ SOLUTION.gain.T).max() < PROBLEM.bound
    adrift = PROBLEM._replace(control=np.zeros((2, 1)), dynamics=1.1 * np.eye(2))
    with np.errstate(over="ignore", invalid="ignore"), pytest.raises(ValueError, match="cannot be stabilised"):
        solve(adrift)


def test_a_segments_score_is_minus_the_sum_of_its_exact_regrets():
    episodes = collect(PROBLEM, 3, 20, strength=0.2, noise=0.3, seed=1)
    starts, lengths = np.array([0, 25, 45]), np.array([20, 10, 15])
    value, behind = episodes.extras["value"][starts], episodes.extras["next_value"][starts + lengths - 1]
    scores = regret_scores(episodes, starts, lengths, value, behind)
    lost = regrets(PROBLEM, SOLUTION, episodes.observations, episodes.actions)
    expected = [-lost[s : s + n].sum() for s, n in zip(starts, lengths)]
    np.testing.assert_allclose(scores, expected, rtol=1e-4)


def test_the_environment_is_the_problem():
    """The optimal policy's cost over a long episode is x' P x."""
    task = environment(double_integrator(horizon=200))
    gain = jnp.asarray(SOLUTION.gain, jnp.float32)
    (state, observation), total = task.reset(jax.random.key(0)), 0.0
    start = np.asarray(observation)

    def one(carried, _):
        state, observation = carried
        state, stepped = task.step(state, -gain @ observation, jax.random.key(0))
        return (state, stepped.observation), (stepped.reward, stepped.truncated)

    _, (rewards, truncated) = jax.lax.scan(one, (state, observation), length=200)
    total = float(rewards.sum())
    np.testing.assert_allclose(total, values(SOLUTION, start[None])[0], rtol=1e-4)
    assert truncated.tolist() == [False] * 199 + [True]
    lost = values(SOLUTION, start[None])[0] - (-(start @ start) - 9.0)  # a clipped action
    after = PROBLEM.dynamics @ start + PROBLEM.control[:, 0] * 3.0
    lost -= values(SOLUTION, after[None])[0]
    np.testing.assert_allclose(lost, regrets(PROBLEM, SOLUTION, start[None], np.array([[3.0]]))[0], rtol=1e-5)


def test_a_picture_shows_both_numbers():
    dot = np.asarray(picture(jnp.array([[2.0, -2.0]]), 9, 4.0))[0]
    assert dot.shape == (9, 9, 3) and dot.dtype == np.uint8
    assert np.argwhere(dot[..., 0] == 255).tolist() == [[6, 6]]  # right of the middle, and below it
    task = seen_as_pictures(environment(PROBLEM), 9, 4.0)
    state, seen = task.reset(jax.random.key(0))
    assert np.array_equal(seen, picture(state[0], 9, 4.0))
    state, stepped = task.step(state, jnp.ones(1), jax.random.key(0))
    assert np.array_equal(stepped.observation, picture(state[0], 9, 4.0))
