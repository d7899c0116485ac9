"""The `pointmaze` sets: the controller and D4RL's random policy by their returns, and what the data promise."""

import numpy as np
import pytest

from rl_jax.data.episodes import Episodes, check_episodes, concatenate_episodes
from rl_jax.data.load import Dataset, load_dataset
from rl_jax.data.pointmaze.collect import Controller, cell_of, collect, shortest_path
from rl_jax.data.pointmaze.maze import MAZES, Ball, rewards
from rl_jax.data.pointmaze.sets import SETS
from rl_jax.data.readers.d4rl_hdf5 import _task
from tests.data.sets import assert_same, make_episodes


def collected(name: str, num_steps: int, seed: int = 0) -> Episodes:
    return concatenate_episodes(collect(SETS[name], num_steps, seed))


def mean_return(name: str, steered: bool, episodes: int = 100) -> tuple[float, float]:
    """Mean and its standard error of the sparse return, of the controller without noise or of uniform actions."""
    maze = MAZES[name]
    ball, returns = Ball(maze), []
    for seed in range(episodes):
        rng = np.random.default_rng(seed)
        state, positions = ball.reset(rng), []
        controller = Controller(maze, maze.goal, state[:2], rng)
        for _ in range(maze.limit):
            state = ball.step(controller.act(state)[0] if steered else rng.uniform(-1, 1, 2))
            positions.append(state[:2])
        returns.append(rewards(np.array(positions), maze.goal, False).sum())
    return float(np.mean(returns)), float(np.std(returns) / np.sqrt(episodes))


@pytest.mark.parametrize("name, steered, random", [  # measured in a separate copy of D4RL's environment, +- 5 to 11
    ("umaze", 229.1, 22.6),
    pytest.param("medium", 420.8, 25.9, marks=pytest.mark.slow),
    pytest.param("large", 542.7, 14.1, marks=pytest.mark.slow),
])
def test_returns_of_the_controller_and_of_random_actions(name, steered, random):
    for expected, by_controller in ((steered, True), (random, False)):
        mean, error = mean_return(name, by_controller)
        assert abs(mean - expected) < 4 * error, f"{mean} +- {error} and not {expected}"


def test_paths_are_shortest_and_free():
    umaze, large = MAZES["umaze"], MAZES["large"]
    assert shortest_path(umaze, (3, 1), (1, 1)) == [(3, 2), (3, 3), (2, 3), (1, 3), (1, 2), (1, 1)]
    assert shortest_path(umaze, (1, 1), (1, 1)) == [(1, 1)]
    path = [(7, 1), *shortest_path(large, (7, 1), (7, 9))]
    assert set(path) <= set(large.free) and len(path) == len(set(path)) == 19
    assert all(abs(a[0] - b[0]) + abs(a[1] - b[1]) == 1 for a, b in zip(path, path[1:]))
    # The ball's range in a cell is -0.6 to 0.2 around its integers.
    assert cell_of(np.array([2.45, 0.45])) == (3, 1) and cell_of(np.array([3.15, 1.15])) == (3, 1)


def test_a_set_is_one_trajectory_that_repeats_no_state():
    episodes = collected("umaze", 3000)
    check_episodes(episodes, "umaze", action_bound=1.0)
    assert len(episodes) == 3000 and not episodes.terminated.any()
    np.testing.assert_array_equal(episodes.next_observations[:-1], episodes.observations[1:])
    assert (episodes.observations != episodes.next_observations).any(1).all()
    ends = episodes.observations[episodes.starts[1:] - 1, :2]  # every way but the last, which the size cuts
    assert np.linalg.norm(ends - ends.round(), axis=1).max() < 0.1
    assert {tuple(end) for end in ends.round()} == set(MAZES["umaze"].free)
    # It is the simulator's: the stored actions lead to the stored states.
    ball = Ball(MAZES["umaze"])
    states = [ball.reset(np.random.default_rng(0))] + [ball.step(action) for action in episodes.actions[:500]]
    np.testing.assert_array_equal(np.array(states, np.float32)[:-1], episodes.observations[:500])


def test_a_set_is_a_function_of_seed_and_size():
    episodes = collected("umaze", 800)
    assert_same(collected("umaze", 800), episodes)
    assert_same(collected("umaze", 500), episodes.first_steps(500))
    assert (collected("umaze", 1, seed=1).observations != episodes.observations[0]).all()
    with pytest.raises(ValueError, match="umaze: num_steps is 0, expected at least 1"):
        collected("umaze", 0)


def test_a_way_that_takes_too_long_is_given_up(monkeypatch):
    monkeypatch.setitem(MAZES, "umaze", MAZES["umaze"]._replace(limit=30))
    episodes = collected("umaze", 900)
    assert episodes.lengths.max() == 30 and (episodes.lengths == 30).sum() > 5


def test_rewards_are_of_the_state_that_is_left():
    positions = np.array([[1.0, 1.0], [1.0, 1.5], [1.0, 1.501], [4.0, 5.0]])
    np.testing.assert_array_equal(rewards(positions, (1, 1), False), [1, 1, 0, 0])
    np.testing.assert_allclose(rewards(positions, (1, 1), True), np.exp([0, -0.5, -0.501, -5]), rtol=1e-12)
    sparse, dense = collected("umaze", 2000), collected("umaze-dense", 2000)
    np.testing.assert_array_equal(sparse.actions, dense.actions)
    distances = np.hypot(sparse.observations[:, 0] - 1, sparse.observations[:, 1] - 1)
    np.testing.assert_array_equal(sparse.rewards, distances <= 0.5)
    np.testing.assert_allclose(dense.rewards, np.exp(-distances), rtol=1e-6)
    after = np.hypot(sparse.next_observations[:, 0] - 1, sparse.next_observations[:, 1] - 1) <= 0.5
    assert (after != sparse.rewards).any(), "no step crosses the border: the test shows nothing"


def test_it_loads_by_name_and_by_path_with_returns_of_whole_stretches(tmp_path):
    dataset = load_dataset("pointmaze/umaze", num_steps=1000, data_dir=str(tmp_path))
    assert_same(dataset.episodes, collected("umaze", 1000))
    assert dataset.env_id == "maze2d-umaze-v1" and "1,000 steps of maze2d-umaze-v1, seed 0" in dataset.source
    folder = tmp_path / "pointmaze" / "umaze-steps1000-seed0" / "1.0.0"
    by_path = load_dataset("", path=str(folder), data_dir=str(tmp_path))
    assert by_path.checksum == dataset.checksum
    expected = [dataset.episodes.rewards[start : start + 300].sum() for start in (0, 300, 600)]
    for same in (dataset, by_path):
        np.testing.assert_array_equal(same.behaviour_returns, expected)
    other = load_dataset("pointmaze/umaze-dense", num_steps=200, seed=1, data_dir=str(tmp_path))
    assert other.env_id == "maze2d-umaze-dense-v1"
    np.testing.assert_array_equal(other.behaviour_returns, [other.episodes.rewards.astype(np.float64).sum()])
    with pytest.raises(ValueError, match="unknown data set 'pointmaze/umase': did you mean pointmaze/umaze"):
        load_dataset("pointmaze/umase")


def test_other_tasks_count_the_episodes_that_they_ended():
    episodes = make_episodes()
    dataset = Dataset(episodes, "mine", "Hopper-v4", "", "")
    np.testing.assert_array_equal(dataset.behaviour_returns, episodes.complete_returns)


@pytest.mark.parametrize("stem, env_id", [
    ("maze2d_umaze_sparse_v1", "maze2d-umaze-v1"), ("maze2d_large_dense_v1", "maze2d-large-dense-v1"),
    ("maze2d_eval_umaze_sparse_v1", ""), ("maze2d_umaze_sparse", ""), ("hopper_medium_v2", "Hopper-v4"),
])
def test_d4rls_own_files_tell_their_maze(stem, env_id):
    assert _task(stem.split("_")) == env_id
