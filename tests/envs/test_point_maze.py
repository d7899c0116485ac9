"""maze2d against hand numbers of D4RL's code: first states, the clipped velocity, rewards, where cells lie, saving."""

import math

import gymnasium
import numpy as np
import pytest

from rl_jax.data.pointmaze.maze import MAZES, Ball
from rl_jax.data.pointmaze.sets import SETS
from rl_jax.data.scores import normalized_score
from rl_jax.envs.gym_pool import EnvPool, find_spec

MASS = 1000 * 4 / 3 * math.pi * 0.1**3  # kg


def make(env_id: str):
    return gymnasium.make(find_spec(env_id), disable_env_checker=True)


@pytest.mark.parametrize("name, limit, goal, cells, random, expert", [  # of d4rl/pointmaze/__init__.py, version 1
    ("umaze", 300, (1, 1), 7, 23.85, 161.86),
    ("medium", 600, (6, 6), 26, 13.13, 277.39),
    ("large", 800, (7, 9), 46, 6.7, 273.99),
    ("umaze-dense", 300, (1, 1), 7, 68.537689, 193.66285642381482),
    ("medium-dense", 600, (6, 6), 26, 44.264742, 297.4552547777125),
    ("large-dense", 800, (7, 9), 46, 30.569041, 303.4857382709002),
])
def test_the_tasks_are_d4rls(name, limit, goal, cells, random, expert):
    spec = find_spec(SETS[name].env_id)
    assert spec.id == f"maze2d-{name}-v1" and spec.max_episode_steps == limit
    maze = MAZES[SETS[name].maze]
    assert maze.goal == goal and len(maze.free) == cells
    np.testing.assert_allclose(normalized_score(spec.id, [random, expert]), [0, 100], atol=1e-12)


def test_an_episode_starts_near_any_free_cell():
    env = make("maze2d-umaze-v1")
    first = np.array([env.reset(seed=seed)[0] for seed in range(1400)])
    cells = first[:, :2].round()
    assert np.abs(first[:, :2] - cells).max() <= 0.1 and np.abs(first[:, :2] - cells).max() > 0.099
    found, counts = np.unique(cells, axis=0, return_counts=True)
    assert {tuple(cell) for cell in found} == {(1, 1), (1, 2), (1, 3), (2, 3), (3, 1), (3, 2), (3, 3)}
    assert np.abs(counts - 200).max() < 4 * math.sqrt(200)
    np.testing.assert_allclose(first[:, 2:].std(0), 0.1, rtol=0.08)
    np.testing.assert_allclose(first[:, 2:].mean(0), 0.0, atol=0.01)
    np.testing.assert_array_equal(env.reset(seed=5)[0], first[5])


def test_velocity_is_clipped_before_a_step_and_not_after_it():
    ball = Ball(MAZES["umaze"])

    def after(velocity, action):
        ball.reset(np.random.default_rng(0))
        ball.data.qpos[:], ball.data.qvel[:] = (1.0, 2.0), velocity
        return ball.step(np.array(action))

    # By hand, with the damping taken at the new velocity: v' = (v + h F / m) / (1 + h d / m), x' = x + h v'.
    speed = (5 + 0.01 * 100 / MASS) / (1 + 0.01 / MASS)
    np.testing.assert_allclose(after((0.0, 5.0), (0.0, 1.0)), [1.0, 2.0 + 0.01 * speed, 0.0, speed], rtol=1e-9)
    assert speed > 5.2
    np.testing.assert_array_equal(after((0.0, 9.0), (0.0, 1.0)), after((0.0, 5.0), (0.0, 1.0)))
    np.testing.assert_array_equal(after((0.0, -9.0), (0.0, 7.0)), after((0.0, -5.0), (0.0, 1.0)))


def test_a_step_is_rewarded_for_where_it_ends():
    sparse, dense = make("maze2d-umaze-v1"), make("maze2d-umaze-dense-v1")
    for start, velocity, reward in [(1.504, -1.0, 1.0), (1.496, 1.0, 0.0), (1.2, 0.0, 1.0), (2.5, 0.0, 0.0)]:
        for env in (sparse, dense):
            env.reset(seed=0)
            env.unwrapped.data.qpos[:], env.unwrapped.data.qvel[:] = (1.0, start), (0.0, velocity)
        observation, got, terminated, truncated, _ = sparse.step(np.zeros(2, np.float32))
        assert (got, terminated, truncated) == (reward, False, False)
        # The goal is at (1, 1), and the damping takes 0.2% of the velocity.
        expected = math.exp(-(start + 0.01 * velocity / (1 + 0.01 / MASS) - 1.0))
        assert dense.step(np.zeros(2, np.float32))[1] == pytest.approx(expected, rel=1e-9)


def test_an_episode_ends_by_its_time_limit_alone():
    env = make("maze2d-umaze-v1")
    env.reset(seed=0)
    ends = [env.step(np.zeros(2, np.float32))[2:4] for _ in range(300)]
    assert ends == [(False, False)] * 299 + [(False, True)]


def test_cells_lie_off_their_centres():
    """Pushed into the corners of a dead end: the ball's position is between -0.6 and 0.2 of the cell's integers."""
    ball = Ball(MAZES["umaze"])
    ball.reset(np.random.default_rng(0))
    ball.data.qpos[:] = (3.0, 1.0)
    corners = []
    for action in [(1.0, -1.0), (-1.0, -1.0)]:
        for _ in range(300):
            state = ball.step(np.array(action))
        corners.append(state[:2])
    np.testing.assert_allclose(corners, [[3.2, 0.4], [2.4, 0.4]], atol=0.01)


def test_a_saved_pool_goes_on_bitwise_in_another():
    limit = {"max_episode_steps": 90}
    actions = np.random.default_rng(1).uniform(-1, 1, (80, 2, 2)).astype(np.float32).repeat(5, 0)[:80]
    with EnvPool("maze2d-umaze-v1", 2, num_workers=1, savable=True, env_kwargs=limit) as pool:
        pool.reset(np.array([3, 5]))
        for action in actions[:40]:
            pool.step(action, np.ones(2, bool))
        saved = pool.save()
        expected = [pool.step(action, np.ones(2, bool)) for action in actions[40:]]
    with EnvPool("maze2d-umaze-v1", 2, num_workers=2, savable=True, env_kwargs=limit) as other:
        np.testing.assert_array_equal(other.restore(saved), saved["observations"])
        for action, want in zip(actions[40:], expected):
            for x, y in zip(want, other.step(action, np.ones(2, bool)), strict=True):
                np.testing.assert_array_equal(x, y)
