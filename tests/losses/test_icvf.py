"""ICVF's loss by hand, its fixed points in a corridor against exact values, and the time contrast."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rl_jax.losses.icvf import goal_target, icvf_loss, intent_advantage, time_contrastive_loss
from rl_jax.tabular.maze import goal_values, maze_mdp

GAMMA, TAU = 0.9, 0.999
ROWS = ("#######", "#S....#", "#.###.#", "#...#.#", "#.#...#", "#....G#", "#######")
CORRIDOR = np.array([[max(s - 1, 0), min(s + 1, 5)] for s in range(6)])


def test_at_the_goal_nothing_is_lost_and_nothing_follows():
    reached, following = jnp.array([1.0, 0.0]), jnp.array([-5.0, -5.0])
    np.testing.assert_allclose(goal_target(reached, following, GAMMA), [0.0, -5.5])
    bottom = -1 / (1 - GAMMA)
    np.testing.assert_allclose(goal_target(jnp.zeros(1), jnp.array([bottom]), GAMMA), [bottom], rtol=1e-6)


def test_the_advantage_takes_the_minimum_ahead_and_the_mean_here():
    ahead, here = jnp.array([[-2.0, -9.0], [-4.0, -9.0]]), jnp.array([[-3.0, -1.0], [-5.0, -3.0]])
    np.testing.assert_allclose(intent_advantage(jnp.array([0.0, 1.0]), ahead, here, GAMMA), [-1 - 3.6 + 4, 2.0],
                               rtol=1e-6)


def test_the_weight_is_of_the_advantage_and_not_of_the_error():
    values, following = jnp.array([[-1.0, -1.0], [-3.0, -3.0]]), jnp.full((2, 2), -1.0)
    loss = icvf_loss(values, following, jnp.zeros(2), jnp.array([0.0, -1e-3]), GAMMA, 0.9)
    errors = (-1.9 - np.array(values)) ** 2  # of either sign, by member
    np.testing.assert_allclose(loss, errors * [0.9, 0.1], rtol=1e-5)
    slopes = jax.grad(lambda v, n, a: icvf_loss(v, n, jnp.zeros(2), a, GAMMA, 0.9).sum(), (0, 1, 2))(
        values, following, jnp.array([1.0, -1.0])
    )
    assert np.abs(slopes[0]).min() > 0 and not np.abs(slopes[1]).any() and not np.abs(slopes[2]).any()


def fixed_point(transitions):
    """V [s, s+, z] where the loss over all steps, outcomes and intents has no slope, by Newton's steps on the loss."""
    count, actions = transitions.shape
    s, a, g, z = (x.ravel() for x in np.meshgrid(*map(np.arange, (count, actions, count, count)), indexing="ij"))
    ahead = transitions[s, a]

    @jax.jit
    def step(table):
        advantages = intent_advantage((s == z) * 1.0, table[None, ahead, z, z], table[None, s, z, z], GAMMA)

        def loss(table):
            reached = (s == g) * 1.0
            target = jax.lax.stop_gradient(table)
            return icvf_loss(table[None, s, g, z], target[None, ahead, g, z], reached, advantages, GAMMA, TAU).sum()

        weights = jnp.zeros_like(table).at[s, g, z].add(jnp.where(advantages >= 0, TAU, 1 - TAU))
        return table - jax.grad(loss)(table) / (2 * weights)

    table = jnp.zeros((count,) * 3)
    for _ in range(150):
        table = step(table)
    return np.asarray(table)


def test_values_of_a_corridor_are_exact_and_follow_the_intent():
    values, exact = fixed_point(CORRIDOR), goal_values(CORRIDOR, GAMMA)
    distance = np.abs(np.arange(6)[:, None] - np.arange(6))
    np.testing.assert_allclose(exact, -(1 - GAMMA**distance) / (1 - GAMMA), atol=1e-9)
    wanted = values[np.arange(6)[:, None], np.arange(6), np.arange(6)]
    np.testing.assert_allclose(wanted, exact, rtol=0.05, atol=1e-6)
    assert values[1, 3, 5] == pytest.approx(-1.9, rel=0.05)  # on the way to 5
    assert values[1, 0, 5] < -8 < -1.1 < values[1, 0, 0]  # nobody who wants 5 turns back: no value of g alone


def test_values_of_all_goals_of_a_maze_are_exact():
    """A table over one-hot states, expectile 0.999, where walks are deterministic."""
    transitions = np.asarray(maze_mdp(ROWS)[0].transitions)
    goals = np.arange(len(transitions))
    found, exact = fixed_point(transitions)[goals[:, None], goals, goals], goal_values(transitions, GAMMA)
    np.testing.assert_allclose(found, exact, rtol=0.05, atol=1e-6)


def test_the_time_contrast_by_hand():
    anchor, near, far = (jnp.array([[x, 0.0], [x, 10.0]]) for x in (0.0, 1.0, 3.0))
    other = np.hypot(1, 10)
    share = np.exp(-1) / (np.exp(-1) + np.exp(-3) + np.exp(-other))
    np.testing.assert_allclose(time_contrastive_loss(anchor, near, far), [-np.log(share)] * 2, rtol=1e-5)
    same = jax.grad(lambda x: time_contrastive_loss(x, x, x).sum())(anchor)
    assert np.isfinite(same).all()
