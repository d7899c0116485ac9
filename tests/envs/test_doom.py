"""VizDoom's maze and the walks recorded in it; without the extra, what is missing."""

import importlib.util
import sys

import numpy as np
import pytest

from rl_jax.core.extras import MissingExtraError
from rl_jax.data.episodes import check_episodes
from rl_jax.envs import doom
from rl_jax.envs.gym_pool import EnvPool

INSTALLED = pytest.mark.skipif(importlib.util.find_spec("vizdoom") is None, reason="the extra vizdoom")


def test_what_is_missing_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "vizdoom", None)
    with pytest.raises(MissingExtraError, match=r"vizdoom is not installed: pip install 'rl_jax\[vizdoom\]'"):
        doom.recorded_walks(1, 0)


@INSTALLED
def test_walks_are_the_same_for_a_seed_and_players_differ(monkeypatch):
    monkeypatch.setattr(doom, "TIME_LIMIT", 12)
    one, other = (doom.recorded_walks(10, seed=3) for _ in range(2))
    np.testing.assert_array_equal(one.observations, other.observations)
    assert one.observations.shape == (len(one), 60 * 80) and 0.0 <= one.observations.min() < one.observations.max() <= 1
    stays = [np.mean(moves[1:] == moves[:-1]) for moves in np.split(one.actions.argmax(1), one.starts[1:])]
    assert stays[-1] > stays[0]


@INSTALLED
def test_the_maze_in_a_pool_gives_the_walk_again():
    walk = doom.recorded_walks(1, seed=4)
    check_episodes(walk, "walk")
    with EnvPool(doom.ENV_ID, 1) as pool:
        seen = pool.reset(np.array([np.random.default_rng(4).integers(2**31)]))
        for observation, action in zip(walk.observations[:20], walk.actions):
            np.testing.assert_array_equal(seen[0], observation)
            seen, *_ = pool.step(action[None], np.ones(1, bool))
