"""Padded episodes, by hand."""

import numpy as np

from rl_jax.data.episodes import Episodes
from rl_jax.data.logged import LOG_PROB, pad_episodes


def test_the_last_observation_is_what_the_last_step_led_to():
    observations = np.arange(5, dtype=np.float32)[:, None]
    ends = np.array([0, 1, 0, 0, 1], bool)
    episodes = Episodes(
        observations, 10 * observations, observations[:, 0],
        ends & (observations[:, 0] < 3), ends & (observations[:, 0] > 3),
        np.where(ends[:, None], -1.0, observations + 1).astype(np.float32), np.array([0, 2]),
        {LOG_PROB: -observations[:, 0]},
    )
    found = pad_episodes(episodes)
    np.testing.assert_array_equal(found.observations[..., 0], [[0, 1, -1, 0], [2, 3, 4, -1]])
    np.testing.assert_array_equal(found.actions[..., 0], [[0, 10, 0], [20, 30, 40]])
    np.testing.assert_array_equal(found.mask, [[1, 1, 0], [1, 1, 1]])
    np.testing.assert_array_equal(found.alive, [[1, 0, 0], [1, 1, 1]])  # a time-out is no terminal
    np.testing.assert_array_equal(found.behaviour_log_prob, [[0, -1, 0], [-2, -3, -4]])
    longer = pad_episodes(episodes, 5)
    assert longer.observations.shape == (2, 6, 1) and longer.mask.sum() == 5
