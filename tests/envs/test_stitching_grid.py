"""The stitching gridworld and its data: shortest ways, what is seen, and that no episode shows the way asked for."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rl_jax.data.episodes import check_episodes
from rl_jax.envs import stitching_grid as grid
from rl_jax.envs.recording import record, remembering

KEY = jax.random.key(0)
DATA = {"noise": 0.1, "wrong_share": 0.25, "horizon": 30, "seed": 1}


@pytest.fixture(scope="module")
def episodes():
    return grid.recorded(60, "partial", **DATA)


def test_no_episode_leads_from_start_a_to_a_goal(episodes):
    check_episodes(episodes, "grid")
    a, b = episodes.select(range(30)), episodes.select(range(30, 60))
    assert a.returns.max() == 0 and a.truncated.sum() == 30 and np.all(a.lengths == 30) and not a.terminated.any()
    assert 0.5 < b.returns.mean() < 1.0 and b.terminated.sum() + b.truncated.sum() == 30
    crossings = (episodes.observations[:, :9] == grid.walls_around()[grid.CROSSING]).all(1)
    for start, length in zip(episodes.starts, episodes.lengths):
        assert crossings[start : start + length].any(), "all pass the crossing"


def test_the_landmark_is_shown_once_and_tokens_make_every_history_another_one(episodes):
    first = np.isin(np.arange(len(episodes)), episodes.starts)
    landmark, tokens = episodes.observations[:, 25:], episodes.observations[:, 9:25]
    np.testing.assert_array_equal(landmark.sum(1), 2.0 * first)
    np.testing.assert_array_equal(landmark[first][:, :2].argmax(1), np.arange(60) >= 30)
    np.testing.assert_array_equal(tokens.sum(1), 1.0)
    whole = [tuple(tokens[start : start + 8].argmax(1)) for start in episodes.starts]
    assert len(set(whole)) == len(whole)


def test_moves_and_the_right_goal_are_those_of_the_other_view(episodes):
    behaviour, key = grid.behaviour_b(DATA["noise"], DATA["wrong_share"]), jax.random.split(jax.random.key(1), 2)[1]
    state, partial = record(grid.stitching_grid("B", "state"), behaviour, 30, key), episodes.select(range(30, 60))
    np.testing.assert_array_equal(state.observations[state.starts, 81:], partial.observations[partial.starts, 27:])
    np.testing.assert_array_equal(state.actions, partial.actions)
    position = state.observations[:, :81].argmax(1)
    np.testing.assert_array_equal(grid.walls_around()[position], partial.observations[:, :9])
    after = grid.successors()[position, state.actions.argmax(1)]
    np.testing.assert_array_equal(state.next_observations[:, :81].argmax(1), after)


def test_the_shortest_way_succeeds_and_the_other_goal_pays_nothing():
    """From the far corner of room A it takes 16 moves, by hand; walls and edges leave one where one is."""
    environment, places = grid.stitching_grid("A", "state"), jnp.array(grid.GOALS)
    step, either = jax.jit(environment.step), jax.jit(grid.stitching_grid("A", "state", either_goal=True).step)
    for goal in (0, 1):
        for wanted, reward in ((goal, 1.0), (1 - goal, 0.0)):
            state = grid.GridState(*jnp.array([0, 0, goal, 0], jnp.int32))
            moves = grid.nearer_to(grid.GOALS[wanted])
            for count in range(1, 31):
                before, move = state, jnp.int32(moves[int(state.position)].argmax())
                state, given = step(before, move, KEY)
                if given.terminated:
                    break
            assert float(either(before, move, KEY)[1].reward) == 1.0
            assert count == 16 and state.position == places[wanted] and float(given.reward) == reward
    blocked = step(grid.GridState(*jnp.array([0, 0, 0, 29], jnp.int32)), jnp.int32(0), KEY)
    assert int(blocked[0].position) == 0 and bool(blocked[1].truncated) and not bool(blocked[1].terminated)


def test_a_policy_is_shown_what_the_data_hold():
    """The history of a scripted episode, padded before it, is its steps; the action of now is zero."""
    environment = remembering(grid.stitching_grid("A", horizon=5))
    state, shown = environment.reset(KEY)
    assert shown.mask.tolist() == [0, 0, 0, 0, 0, 1] and shown.timesteps.tolist() == [0] * 6
    seen, step = [shown.observations[-1]], jax.jit(environment.step)
    for time, action in enumerate((1, 3, 1)):
        state, given = step(state, jnp.int32(action), jax.random.key(time))
        seen.append(given.observation.observations[-1])
    shown = given.observation
    np.testing.assert_array_equal(shown.observations[2:], np.array(seen))
    np.testing.assert_array_equal(shown.actions.argmax(1)[2:5], [1, 3, 1])
    np.testing.assert_array_equal(shown.actions[-1], 0.0)
    assert shown.timesteps.tolist() == [0, 0, 0, 1, 2, 3] and shown.mask.tolist() == [0, 0, 1, 1, 1, 1]


@pytest.mark.parametrize(
    "call, message",
    [
        (lambda: grid.stitching_grid("C"), "unknown start 'C': known are A, B"),
        (lambda: grid.stitching_grid("A", "full"), "unknown view 'full'"),
        (lambda: grid.recorded(7, "state", **DATA), "config.data.episodes=7: give an even number"),
    ],
)
def test_what_cannot_be_made_is_named(call, message):
    with pytest.raises(ValueError, match=message):
        call()
