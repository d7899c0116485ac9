"""Meta-World's tasks and the segments made in them; without the extra, what is missing."""

import sys

import numpy as np
import pytest

from rl_jax.core.extras import MissingExtraError
from rl_jax.data.episodes import check_episodes
from rl_jax.data.segments import regret_scores
from rl_jax.envs import meta_world_data as made

NAME = "metaworld-drawer-open"


def test_what_is_missing_and_what_is_unknown_is_named(tmp_path, monkeypatch):
    with pytest.raises(ValueError, match="unknown data set in config.dataset.name 'metaworld-draw-open': did you"):
        made.load_segments("metaworld-draw-open", 640, 64, 0, tmp_path)
    monkeypatch.setitem(sys.modules, "metaworld", None)
    with pytest.raises(MissingExtraError, match=r"metaworld is not installed: pip install 'rl_jax\[metaworld\]'"):
        made.load_segments(NAME, 640, 64, 0, tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_segments_by_hand():
    """Two of two steps: what is seen behind a step, and where values stand."""
    observations = np.arange(6, dtype=np.float32).reshape(2, 3, 1)
    actions, rewards = np.zeros((2, 2, 1), np.float32), np.arange(4, dtype=np.float32).reshape(2, 2)
    episodes = made._episodes(observations, actions, rewards, np.array([[1.0, 2.0], [3.0, 4.0]], np.float32))
    check_episodes(episodes, "two segments")
    assert episodes.next_observations[:, 0].tolist() == [1, 2, 4, 5]
    assert episodes.extras["value"].tolist() == [1, 0, 3, 0] and episodes.extras["next_value"].tolist() == [0, 2, 0, 4]


def test_a_state_comes_back_and_the_expert_succeeds():
    import gymnasium

    env = gymnasium.make(f"rl_jax.envs.meta_world:{made.success_id(NAME)}", disable_env_checker=True)
    first, _ = env.reset(seed=3)
    own, rewards, ended = env.unwrapped, [], False
    for _ in range(10):
        env.step(own.expert_action())
    state = own.save_state()
    once = [env.step(own.expert_action())[0] for _ in range(5)]
    own.restore_state(state)
    np.testing.assert_allclose([env.step(own.expert_action())[0] for _ in range(5)], once, atol=1e-9)
    while not ended:
        _, reward, ended, late, _ = env.step(own.expert_action())
        rewards.append(reward)
        assert not late
    assert rewards == [0.0] * (len(rewards) - 1) + [1.0]
    np.testing.assert_array_equal(env.reset(seed=3)[0], first)
    assert np.any(own.expert_action(misjudged=-0.1) != own.expert_action())
    assert first.shape == (35,) and np.any(env.reset(seed=4)[0] != first)


def test_the_goal_is_seen_and_another_at_every_start():
    """Where plates have to go nothing else tells: a step must not cut the goal off."""
    from rl_jax.envs.meta_world import MetaWorld

    env, goals = MetaWorld("plate-slide"), []
    for seed in range(2):
        first, _ = env.reset(seed=seed)
        np.testing.assert_array_equal(env.step(np.zeros(4))[0][-3:], first[-3:])
        np.testing.assert_array_equal(first[-3:], env._sim._target_pos)
        goals.append(first[-3:])
    assert np.any(goals[0] != goals[1])


def test_segments_are_made_once(tmp_path, monkeypatch):
    monkeypatch.setattr(made, "LOOK_AHEAD", 2)
    episodes, info = made.load_segments(NAME, 40, 8, 0, tmp_path)
    assert episodes.num_episodes == 5 and set(episodes.lengths) == {8} and 0 <= info["behaviour_success"] <= 1
    value, behind = episodes.extras["value"], episodes.extras["next_value"]
    assert np.array_equal(np.flatnonzero(value), episodes.starts)
    np.testing.assert_array_equal(behind[7], value[8])  # segments of one episode follow one another
    monkeypatch.setattr(made, "collect", None)
    again, _ = made.load_segments(NAME, 40, 8, 0, tmp_path)
    np.testing.assert_array_equal(again.actions, episodes.actions)


def test_the_experts_own_segments_score_alike_and_better_than_others(monkeypatch):
    """Where the drawer is on its way as much as where it is open: V and not the state makes the score."""
    monkeypatch.setattr(made, "NOISE", 0.0)
    scores = {}
    for name, behaviour in (("expert", made.Behaviour(0.0)), ("errs", made.Behaviour(0.0, -0.3))):
        monkeypatch.setitem(made.BEHAVIOURS, "drawer-open", behaviour)
        segments, _ = made.collect("drawer-open", 3, 64, 0)
        starts = segments.starts
        values = segments.extras["value"][starts], segments.extras["next_value"][starts + 63]
        scores[name] = regret_scores(segments, starts, segments.lengths, *values)
    assert np.ptp(scores["expert"]) < 0.5
    assert scores["errs"][0] < scores["expert"].min() - 10
