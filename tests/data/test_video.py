"""Which frames learners of video draw: never one of another clip's time, and each kind as often as it should be."""

import jax
import jax.numpy as jnp
import numpy as np

from rl_jax.data.episodes import Episodes
from rl_jax.data.video import GoalShares, Video, sample_goals, sample_later, sample_outcomes_and_intents

LENGTHS = np.array([3, 1, 40, 6])
ENDS = jnp.asarray(np.repeat(np.cumsum(LENGTHS) - 1, LENGTHS), jnp.int32)
ROWS = jnp.asarray(np.tile(np.arange(50), 400), jnp.int32)
KEY = jax.random.key(0)


def test_later_frames_stay_in_their_clip():
    later = np.asarray(sample_later(KEY, ROWS, ENDS))
    assert (later >= ROWS).all() and (later <= np.asarray(ENDS)[ROWS]).all()
    assert set(later[np.asarray(ROWS) == 4]) == set(range(4, 44))  # all of the clip from there, the last frame too


def test_goals_are_drawn_as_often_as_they_should_be():
    shares = GoalShares()
    for share, kind in ((1.0, {"random": 0.0, "trajectory": 1.0, "current": 0.0}), (0.0, {"random": 1.0})):
        shares_of = GoalShares(**({"trajectory": 0.0, "current": 0.0} | kind))
        goals = np.asarray(sample_goals(KEY, ROWS, ENDS, shares_of))
        inside = np.asarray(ENDS)[goals] == np.asarray(ENDS)[ROWS]
        assert inside.all() if share else inside.mean() < 0.8
    goals = np.asarray(sample_goals(KEY, ROWS, ENDS, shares))
    first = np.asarray(ROWS) == 4  # the first of 40 frames
    expected = {"current": 0.2 + 0.5 / 78 + 0.3 / 50, "elsewhere": 0.3 * 10 / 50}
    assert abs((goals[first] == 4).mean() - expected["current"]) < 0.07
    assert abs(((goals[first] < 4) | (goals[first] > 43)).mean() - expected["elsewhere"]) < 0.05
    outcomes, intents = sample_outcomes_and_intents(KEY, ROWS, ENDS, shares)
    assert abs(np.mean(outcomes == intents) - 0.5) < 0.12
    every, intents = sample_outcomes_and_intents(KEY, ROWS, ENDS, GoalShares(same=1.0))
    np.testing.assert_array_equal(every, intents)


def test_a_video_of_episodes_has_neither_actions_nor_terminals():
    frames = np.arange(5, dtype=np.float32)[:, None]
    terminated = np.array([0, 1, 0, 0, 0], bool)
    video = Video.of(Episodes(frames, np.zeros((5, 1), np.float32), np.zeros(5, np.float32), terminated,
                              np.arange(5) == 4, frames + 1, np.array([0, 2])))
    assert video.ends.tolist() == [1, 1, 4, 4, 4] and len(jax.tree.leaves(video)) == 3
