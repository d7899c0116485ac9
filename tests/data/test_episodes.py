"""Episodes: boundaries, returns, cutting, the checks; and the preprocessing of offline RL."""

import dataclasses

import numpy as np
import pytest

from rl_jax.data.episodes import check_episodes, concatenate_episodes, starts_from_ends
from rl_jax.data.preprocess import (
    normalize_observations,
    observation_statistics,
    prepare_episodes,
    return_range,
    scale_rewards_by_return_range,
)
from tests.data.sets import assert_same, make_episode, make_episodes


def test_lengths_and_returns():
    episodes = make_episodes()
    assert episodes.num_episodes == 4 and len(episodes) == 14
    np.testing.assert_array_equal(episodes.lengths, [4, 1, 6, 3])
    np.testing.assert_array_equal(episodes.starts, [0, 4, 5, 11])
    by_hand = [sum(float(r) for r in part) for part in np.split(episodes.rewards, [4, 5, 11])]
    np.testing.assert_allclose(episodes.returns, by_hand, rtol=1e-12)
    check_episodes(episodes, "set", action_bound=1.0)


def test_a_time_out_is_no_terminal():
    transitions = make_episodes().to_transitions()
    np.testing.assert_array_equal(np.flatnonzero(transitions.masks == 0), [3, 4, 13])
    assert transitions.masks.dtype == np.float32


def test_first_steps_cuts_an_episode_as_truncated():
    episodes = make_episodes(extras=True)
    cut = episodes.first_steps(7)
    check_episodes(cut, "cut")
    np.testing.assert_array_equal(cut.lengths, [4, 1, 2])
    np.testing.assert_array_equal(np.flatnonzero(cut.truncated), [6])
    np.testing.assert_array_equal(cut.extras["step_cost"], episodes.extras["step_cost"][:7])
    assert not episodes.truncated[6]  # the original is untouched
    whole = episodes.first_steps(5)
    assert not whole.truncated.any() and whole.num_episodes == 2
    assert episodes.first_steps(100) is episodes
    with pytest.raises(ValueError, match="num_steps is 0"):
        episodes.first_steps(0)


def test_returns_to_go_by_hand():
    episodes = make_episodes()
    got = episodes.returns_to_go(0.9)
    for start, length in zip(episodes.starts, episodes.lengths):
        for step in range(start, start + length):
            rewards = episodes.rewards[step : start + length].astype(np.float64)
            assert got[step] == pytest.approx(rewards @ 0.9 ** np.arange(len(rewards)), rel=1e-6)
    np.testing.assert_allclose(episodes.returns_to_go()[episodes.starts], episodes.returns, rtol=1e-6)


def test_next_actions_are_of_the_same_episode():
    episodes = make_episodes()
    transitions = episodes.to_transitions(("next_actions", "mc_returns"), discount=0.5)
    kept = np.delete(np.arange(14), 10)  # step 10 ends by time: what came next is unknown
    np.testing.assert_array_equal(transitions.rewards, episodes.rewards[kept])
    np.testing.assert_array_equal(transitions.mc_returns, episodes.returns_to_go(0.5)[kept])
    ends = (3, 4, 13)
    for row, step in enumerate(kept):
        following = step if step in ends else step + 1
        np.testing.assert_array_equal(transitions.next_actions[row], episodes.actions[following])
    assert episodes.to_transitions().next_actions is None
    with pytest.raises(ValueError, match="did you mean next_actions"):
        episodes.to_transitions(("next_action",))


def test_best_steps_keeps_whole_episodes_of_highest_return():
    rewards = [1.0, 0.0, 3.0, 2.0]  # a step, in episodes of 4, 1, 6 and 3 steps: returns 4, 0, 18, 6
    episodes = make_episodes(extras=True)
    steps = np.repeat(np.array(rewards, np.float32), episodes.lengths)
    episodes = dataclasses.replace(episodes, rewards=steps)
    best = episodes.best_steps(9 / 14)
    check_episodes(best, "best")
    np.testing.assert_array_equal(best.returns, [18, 6])
    np.testing.assert_array_equal(best.observations, episodes.observations[5:14])
    np.testing.assert_array_equal(best.extras["step_cost"], episodes.extras["step_cost"][5:14])
    np.testing.assert_array_equal(episodes.best_steps(13 / 14).returns, [4, 18, 6])
    np.testing.assert_array_equal(episodes.best_steps(0.01).returns, [18])
    assert_same(episodes.best_steps(1.0), episodes)
    for fraction in (0.0, 1.1):
        with pytest.raises(ValueError, match="fraction is"):
            episodes.best_steps(fraction)


def test_concatenation_inverts_splitting():
    parts = [make_episode(3, True, 0, True), make_episode(2, False, 1, True)]
    joined = concatenate_episodes(parts)
    np.testing.assert_array_equal(joined.starts, [0, 3])
    assert_same(joined.first_steps(3), parts[0])
    assert_same(concatenate_episodes([concatenate_episodes(parts), parts[0]]), concatenate_episodes([*parts, parts[0]]))


def test_starts_from_ends():
    np.testing.assert_array_equal(starts_from_ends(np.array([0, 1, 1, 0, 0], bool)), [0, 2, 3])
    np.testing.assert_array_equal(starts_from_ends(np.array([0, 0, 1], bool)), [0])


@pytest.mark.parametrize(
    "field, index, value, message",
    [
        ("observations", (5, 2), np.nan, r"'observations' at step 5, component 2 is nan"),
        ("rewards", 9, np.inf, r"'rewards' at step 9 is inf"),
        ("actions", (0, 1), -1.5, r"'actions' at step 0, component 1 is -1.5, expected a value in \[-1, 1\]"),
        ("terminated", 1, True, r"'terminated' at step 1 is True, expected False: the step is inside an episode"),
        ("truncated", 7, True, r"'truncated' at step 7 is True, expected False: the step is inside an episode"),
        ("truncated", 10, False, r"'truncated' at step 10 is False, expected exactly one of terminated and truncated"),
        ("truncated", 3, True, r"'truncated' at step 3 is True, expected exactly one of terminated and truncated"),
        ("next_observations", (6, 0), 9.0, r"'next_observations' at step 6 is 9.0, expected the observation of the"),
        ("starts", 0, 1, r"'starts' does not begin at step 0"),
        ("starts", 2, 3, r"'starts' at episode 1 is 4: starts must rise"),
        ("starts", 3, 14, r"'starts' at episode 3 is 14"),
    ],
)
def test_a_corruption_is_named(field, index, value, message):
    episodes = make_episodes()
    getattr(episodes, field)[index] = value
    with pytest.raises(ValueError, match="my set: field " + message):
        check_episodes(episodes, "my set", action_bound=1.0)


@pytest.mark.parametrize(
    "field, change, message",
    [
        ("terminated", lambda a: a[:-2], r"'terminated' has shape \(12,\), expected \(14\)"),
        ("actions", lambda a: a[:, 0], r"'actions' has shape \(14,\), expected \(14, any\)"),
        ("rewards", lambda a: a.astype(np.float64), r"'rewards' has dtype float64, expected float32"),
        ("starts", lambda a: a.astype(np.int32), r"'starts' has dtype int32, expected int64"),
        ("extras", lambda _: {"cost": np.zeros(3)}, r"'extras/cost' has shape \(3,\), expected \(14\)"),
        ("extras", lambda _: {"cost": np.full(14, np.nan)}, r"'extras/cost' at step 0 is nan"),
    ],
)
def test_a_bad_shape_or_dtype_is_named(field, change, message):
    episodes = make_episodes()
    with pytest.raises(ValueError, match=message):
        check_episodes(dataclasses.replace(episodes, **{field: change(getattr(episodes, field))}), "set")


def test_observation_statistics_by_hand():
    mean, std = observation_statistics(np.array([[0.0, 1.0], [2.0, 1.0]], np.float32))
    np.testing.assert_allclose(mean, [1.0, 1.0])
    np.testing.assert_allclose(std, [1.001, 0.001], rtol=1e-6)
    np.testing.assert_allclose(normalize_observations(np.array([2.001, 1.0]), mean, std), [1.0, 0.0], rtol=1e-6)


def test_reward_scaling_by_hand():
    assert return_range(make_episodes()) == (make_episodes().returns.min(), make_episodes().returns.max())
    # Returns between 100 and 350: rewards times 1000 / 250.
    np.testing.assert_allclose(scale_rewards_by_return_range(np.array([0.5, -1.0]), 100.0, 350.0), [2.0, -4.0])
    with pytest.raises(ValueError, match="all episodes return 3"):
        scale_rewards_by_return_range(np.ones(2), 3.0, 3.0)


def test_preparation_filters_first_then_standardises_and_scales():
    episodes = make_episodes()
    fraction = float(np.sort(episodes.lengths)[-2:].sum()) / len(episodes)
    best = episodes.best_steps(fraction)
    prepared, mean, std = prepare_episodes(
        episodes, top_fraction=fraction, normalize_observations=True, scale_rewards=True
    )
    np.testing.assert_allclose(mean, best.observations.mean(0), rtol=1e-5)
    np.testing.assert_allclose(prepared.observations, (best.observations - mean) / std, rtol=1e-6)
    np.testing.assert_allclose(prepared.next_observations, (best.next_observations - mean) / std, rtol=1e-6)
    np.testing.assert_allclose(prepared.rewards, best.rewards * 1000 / np.ptp(best.returns), rtol=1e-5)
    same, mean, std = prepare_episodes(episodes, top_fraction=1.0, normalize_observations=False, scale_rewards=False)
    assert same is episodes and not mean.any() and (std == 1).all()
