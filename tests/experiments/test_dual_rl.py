"""Dual RL's binaries: what an imitator is shown, what is refused, and the count of divergences."""

import numpy as np
import pytest
from ml_collections import ConfigDict

from configs import dual_rl
from experiments.dual_rl import stability, train
from experiments.dual_rl.reproduce import PAPER
from experiments.offline_rl.learner import make_learner
from experiments.reproduce import load_preset
from rl_jax.data.episodes import Episodes, check_episodes


def episodes(lengths, offset):
    """Whole episodes; the observation tells set, episode and step, rewards are everywhere 7."""
    total = sum(lengths)
    starts = np.cumsum([0, *lengths[:-1]])
    number, step = np.repeat(np.arange(len(lengths)), lengths), np.concatenate([np.arange(n) for n in lengths])
    observations = (offset + 100 * number + step).astype(np.float32)[:, None]
    ends = np.isin(np.arange(total), [*starts[1:] - 1, total - 1])
    return Episodes(
        observations, np.full((total, 1), 0.5, np.float32), np.full(total, 7.0, np.float32), ends,
        np.zeros(total, bool), observations + 1, starts.astype(np.int64), {"policy": np.zeros(total, np.int32)},
    )


OFFLINE, EXPERT = episodes([3, 2, 4], 0), episodes([5, 6, 7, 8], 10_000)


def config(**fields):
    return ConfigDict({"num_steps": 26, "demonstrations": 1, "hidden": 2, "learn_from": "both"} | fields)


def test_demonstrations_and_hidden_episodes_are_others():
    shown = train.imitation_data(OFFLINE, EXPERT, config())
    check_episodes(shown, "shown")
    marked = shown.observations[shown.extras["expert"], 0]
    np.testing.assert_array_equal(marked, 10_000 + np.arange(5))  # the first episode
    rest = shown.observations[~shown.extras["expert"], 0]
    np.testing.assert_array_equal(rest, np.concatenate([OFFLINE.observations, EXPERT.observations[5:18]])[:, 0])


@pytest.mark.parametrize("part, steps", [("both", 27), ("all", 27), ("demonstrations", 5)])
def test_no_reward_and_no_mark_of_the_sets_gets_through(part, steps):
    shown = train.imitation_data(OFFLINE, EXPERT, config(learn_from=part))
    assert len(shown) == steps and not shown.rewards.any()
    assert set(shown.extras) == ({"expert"} if part == "both" else set())


@pytest.mark.parametrize(
    "fields, message",
    [
        ({"learn_from": "bot"}, "unknown part of the data in config.expert.learn_from 'bot': did you mean both"),
        ({"demonstrations": 0}, "demonstrations must be at least 1"),
        ({"hidden": 3}, "config.expert asks for 4 episodes, and 26 steps hold 3: raise config.expert.num_steps"),
    ],
)
def test_what_cannot_be_shown_is_refused(fields, message):
    with pytest.raises(ValueError, match=message):
        train.imitation_data(OFFLINE, EXPERT, config(**fields))


def test_an_agent_gets_the_kind_of_data_that_it_learns_from():
    shown = train.imitation_data(OFFLINE, EXPERT, config())
    learner = make_learner(dual_rl.get_config("tiny-recoil"), shown)
    assert len(learner.data.expert) == 5 and len(learner.data.offline) == 22
    # Standardised over everything that is shown.
    standardised = (shown.observations - shown.observations.mean()) / shown.observations.std()
    assert (learner.data.expert.observations > 0).all()
    np.testing.assert_allclose(learner.data.expert.observations, standardised[shown.extras["expert"]], rtol=1e-4)
    np.testing.assert_allclose(learner.data.offline.observations, standardised[~shown.extras["expert"]], rtol=1e-4)
    with pytest.raises(ValueError, match="recoil learns from demonstrations and offline data"):
        make_learner(dual_rl.get_config("tiny-recoil"), OFFLINE)
    with pytest.raises(ValueError, match="bc learns from one set"):
        make_learner(dual_rl.get_config("tiny-bc_all"), shown)


def test_every_preset_of_the_paper_names_configurations_that_exist():
    for name in PAPER.presets:
        for run in load_preset(PAPER, name).runs:
            fields = dual_rl.get_config(run.config.partition(":")[2])
            fields.update_from_flattened_dict(dict(run.overrides))


def test_a_run_has_diverged_where_a_number_is_not_finite_or_no_policy_is_worth_it():
    loss, q = np.zeros((3, 1, 4)), np.zeros((3, 1, 4))
    loss[1, 0, 1], q[2, 0, 2], q[0, 0, 3] = np.nan, -101.0, 100.0
    bad = stability.diverged(stability.Trace(loss, q), 100.0)
    np.testing.assert_array_equal(bad[:, 0].T, [[False] * 3, [False, True, True], [False, False, True], [False] * 3])
    q[0, 0, 0] = np.inf
    assert stability.diverged(stability.Trace(loss, q), 100.0)[:, 0, 0].all()


def test_a_score_is_the_percentage_of_temperatures_that_are_stable(tmp_path):
    bad = np.zeros((2, 3, 5), bool)
    bad[1, 0, 4] = bad[1, 1, 4] = True
    np.savez(tmp_path / "stability.npz", steps=[10, 20], loss=bad, q=np.full(bad.shape, -100.0), diverged=bad)
    steps, scores, returns, _ = PAPER.read(tmp_path, {})
    np.testing.assert_array_equal(steps, [10, 20])
    np.testing.assert_allclose(scores.mean(2), [[100] * 5, [100] * 4 + [100 / 3]])
    assert scores.shape == returns.shape == (2, 5, 3) and (returns == 2).all()


def test_a_trace_holds_every_interval_temperature_and_seed():
    fields = dual_rl.get_config("tiny-fdvl_tv")
    fields.dataset.normalize_rewards = False  # all episodes of this set return what their lengths say
    fields.sweep = "agent.lam=0.6,0.8,0.95"
    trace = stability.train(fields, make_learner(fields, OFFLINE))
    assert trace.loss.shape == trace.q.shape == (stability.INTERVALS, 3, 2)
    assert not stability.diverged(trace, 2.0 * 7.0 / (1.0 - fields.agent.discount))[-1].any()
    assert stability.diverged(trace, 0.0)[-1].all()
    assert len(np.unique(trace.q[-1])) == 6  # every temperature and seed is a run of its own


def test_what_is_drawn_is_finite():
    values = np.array([0.0, 1e-9, -10.0, np.inf, np.nan, 1e30])
    np.testing.assert_allclose(stability.magnitude(values), [-6, -6, 1, 12, 12, 12])
