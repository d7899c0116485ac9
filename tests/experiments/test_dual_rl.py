"""Dual RL: what an imitator is shown, what is refused, and which runs have diverged."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from ml_collections import ConfigDict

from configs import dual_rl
from experiments.dual_rl.experiment import experiment
from rl_jax.control.imitation import imitation_data
from rl_jax.control.offline import agent_data
from rl_jax.control.stability import finite, magnitude, stability_experiment
from rl_jax.core.fused import init_runs, run_keys
from rl_jax.core.main import run
from rl_jax.core.outcomes import read_outcomes
from rl_jax.data.episodes import Episodes, check_episodes
from rl_jax.data.load import Dataset


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
    shown = imitation_data(OFFLINE, EXPERT, config())
    check_episodes(shown, "shown")
    marked = shown.observations[shown.extras["expert"], 0]
    np.testing.assert_array_equal(marked, 10_000 + np.arange(5))  # the first episode
    rest = shown.observations[~shown.extras["expert"], 0]
    np.testing.assert_array_equal(rest, np.concatenate([OFFLINE.observations, EXPERT.observations[5:18]])[:, 0])


@pytest.mark.parametrize("part, steps", [("both", 27), ("all", 27), ("demonstrations", 5)])
def test_no_reward_and_no_mark_of_the_sets_gets_through(part, steps):
    shown = imitation_data(OFFLINE, EXPERT, config(learn_from=part))
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
        imitation_data(OFFLINE, EXPERT, config(**fields))


def test_an_agent_gets_the_kind_of_data_that_it_learns_from():
    shown = imitation_data(OFFLINE, EXPERT, config())
    data = agent_data(dual_rl.get_config("tiny-smodice"), shown).resident
    assert len(data.expert) == 5 and len(data.offline) == 27
    # Standardised over everything that is shown.
    standardised = (shown.observations - shown.observations.mean()) / shown.observations.std()
    assert (data.expert.observations > 0).all()
    np.testing.assert_allclose(data.expert.observations, standardised[shown.extras["expert"]], rtol=1e-4)
    np.testing.assert_allclose(data.offline.observations, standardised, rtol=1e-4)  # the demonstrations too
    with pytest.raises(ValueError, match="recoil learns from demonstrations and offline data"):
        agent_data(dual_rl.get_config("tiny-recoil"), OFFLINE)
    with pytest.raises(ValueError, match="bc learns from one set"):
        agent_data(dual_rl.get_config("tiny-bc_all"), shown)


def stability_config(**fields) -> ConfigDict:
    made = dual_rl.get_config("tiny-stability/fdvl_tv")
    # All episodes of this set return what their lengths say.
    made.update_from_flattened_dict({"dataset.normalize_rewards": False, "batch_size": 8, "judged_rows": 64} | fields)
    return made


@pytest.mark.slow
def test_a_run_has_diverged_where_a_number_is_not_finite_or_no_policy_is_worth_it():
    made = stability_config(num_seeds=4)
    program = stability_experiment(made, Dataset(OFFLINE, "steps", "", "", "")).program(made)
    state = init_runs(lambda settings: program, run_keys("init", 0, 4), {}, program.resident, "vmap")
    # Q may reach 2 * 7 / (1 - 0.99) = 1400. The second run has missed an update, the third has a NaN in V.
    updates = jnp.array([5, 4, 5, 5])
    value = jax.tree.map(lambda x: x.at[2].set(jnp.nan), state.params["value"])
    state = state.replace(
        step=jnp.asarray(5), params=state.params | {"value": value}, extra=state.extra | {"updates": updates}
    )
    outcomes = program.evaluate(state, program.resident, None).outcomes
    np.testing.assert_array_equal(outcomes["stable"], [[100], [0], [0], [100]])
    assert outcomes["value_loss"][2] == 1e12 and np.abs(outcomes["value_loss"][[0, 1, 3]]).max() < 100
    assert {x.shape for x in outcomes.values()} == {(4, 1)} and outcomes["log10_mean_q"].max() < 2
    large = jax.tree.map(lambda x: x.at[3].mul(1e4), state.params["critic"])
    outcomes = program.evaluate(state.replace(params=state.params | {"critic": large}), program.resident, None).outcomes
    np.testing.assert_array_equal(outcomes["stable"], [[100], [0], [0], [0]])
    assert outcomes["log10_mean_q"][3] > np.log10(1400)


@pytest.mark.slow
def test_an_update_that_is_not_finite_ends_no_run_and_counts(tmp_path):
    """At a learning rate of 1e30 the first update makes the networks so large that the second is not finite."""
    made = stability_config(num_steps=4, num_seeds=1)
    made.agent.learning_rate = 1e30
    made.update_from_flattened_dict({"loop.eval_every": 2, "checkpoint.every": 4, "tensorboard": False})
    data = Dataset(OFFLINE, "steps", "", "", "")
    result = run(lambda config: stability_experiment(config, data), made, tmp_path)
    assert result["score"] == 0.0 and result["step"] == 4
    steps, _, values = read_outcomes(tmp_path / "outcomes.npz")
    assert steps.tolist() == [2, 4] and all(np.isfinite(x).all() for x in values.values())


def test_what_is_reported_is_finite():
    values = np.array([0.0, 1e-9, -10.0, np.inf, np.nan, 1e30])
    np.testing.assert_allclose(magnitude(values), [-6, -6, 1, 12, 12, 12])
    np.testing.assert_allclose(finite(-values), [0, -1e-9, 10, -1e12, 1e12, -1e12])


@pytest.mark.slow
@pytest.mark.parametrize("preset", ["tiny-recoil", "tiny-bc_expert", "tiny-fdvl_chi2_coded", "tiny-stability/xql_raw"])
def test_tiny_presets_run_to_their_last_line(preset, tmp_path):
    made = dual_rl.get_config(preset)
    made.tensorboard = False
    result = run(experiment, made, tmp_path)
    assert result["step"] == 40 and np.isfinite(result["score"])
