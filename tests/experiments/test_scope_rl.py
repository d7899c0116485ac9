"""SCOPE-RL's experiments, and the binary for a user's own logged data with all that can be wrong in a file."""

import re

import jax
import numpy as np
import pytest

from configs import scope_rl as configs
from experiments.scope_rl.experiment import experiment
from rl_jax.control.candidates import Candidate, Kernel
from rl_jax.control.off_policy import prepared
from rl_jax.control.off_policy_problems import problem_of, softmax_policy
from rl_jax.control.tabular_evaluation import COMPARED
from rl_jax.control.tabular_evaluation import problem_of as tabular_problem
from rl_jax.control.tabular_evaluation import with_models
from rl_jax.core import main
from rl_jax.core.outcomes import read_outcomes
from rl_jax.data.episodes import Episodes, check_episodes
from rl_jax.data.logged import LOG_PROB, pad_episodes
from rl_jax.data.writer import write_rlds
from rl_jax.envs.cartpole import cartpole
from rl_jax.envs.recording import following, limited, record
from rl_jax.evaluation.off_policy.estimators import ESTIMATORS, estimate, importance_weights, logged
from rl_jax.tabular.stochastic import sample
from tests.binaries import run_module

BINARY, LOG = "experiments.scope_rl.evaluate", "experiments.scope_rl.log"


# The tabular study


@pytest.fixture(scope="module")
def problem():
    return tabular_problem(configs.get_config("tiny"))


def test_a_study_gathers_the_errors_of_its_repetitions(problem, tmp_path):
    line = main.run(experiment, configs.get_config("tiny"), tmp_path)
    found = read_outcomes(tmp_path / "outcomes.npz").values
    assert line["value"] == pytest.approx(problem.value)
    for name in COMPARED:
        rmse, bias, std = (found[f"{kind}/{name}"][-1, :, 0] for kind in ("rmse", "bias", "std"))
        np.testing.assert_allclose(rmse**2, bias**2 + std**2, rtol=1e-3)
    assert (found["rmse/dr"] < found["rmse/tis"]).all() and (found["rmse/dm"] < 0.2).all()


def test_the_models_of_the_study_are_as_wrong_as_they_are_meant_to_be(problem):
    drawn = sample(problem.mdp, problem.behaviour, 4000, np.random.default_rng(0))
    for error in (0.0, 1.0):
        data = with_models(problem, drawn, error)
        assert estimate("dm", data, 0.95) == pytest.approx(problem.value + error, abs=0.05)
        assert estimate("sam_dr", data, 0.95) == pytest.approx(problem.value, abs=0.05)


# Control

BEHAVIOUR, CANDIDATE = (Candidate(softmax_policy(x, 2)) for x in ([0.0, 0.05, 1.0, 0.4], [0.0, 0.1, 1.0, 0.6]))
HORIZON, COUNT = 25, 2000


@pytest.fixture(scope="module")
def played():
    """Episodes of both policies, which are compiled once."""
    environment = limited(cartpole(), HORIZON)
    return [record(environment, following(one.policy), COUNT, jax.random.key(0)) for one in (BEHAVIOUR, CANDIDATE)]


def test_episodes_end_where_the_environment_does_or_time_is_up(played):
    found = played[0]
    check_episodes(found, "played")
    assert found.lengths.min() < HORIZON == found.lengths.max() and (found.rewards == 1).all()
    last = found.starts + found.lengths - 1
    after = found.next_observations[last]
    fallen = (np.abs(after[:, 0]) > 2.4) | (np.abs(after[:, 2]) > 12 * np.pi / 180)
    np.testing.assert_array_equal(fallen, found.terminated[last])
    assert (found.lengths[found.truncated[last]] == HORIZON).all()


def test_importance_weights_of_what_was_played_average_to_one_and_estimate_the_value(played):
    data, on_policy = played
    ratios = [one.log_prob(data.observations, data.actions, Kernel()) for one in (CANDIDATE, BEHAVIOUR)]
    data.extras[LOG_PROB] = ratios[1]
    padded = pad_episodes(data)
    log_ratios = np.zeros(padded.mask.shape)
    log_ratios[padded.mask > 0] = ratios[0] - ratios[1]
    found = logged(padded.rewards, log_ratios, mask=padded.mask)
    weights = importance_weights("trajectory", found)[:, -1]
    assert weights.mean() == pytest.approx(1.0, abs=4 * weights.std() / np.sqrt(COUNT))
    truth = float(on_policy.returns.mean())
    assert estimate("pdis", found, 1.0) == pytest.approx(truth, abs=0.5)
    assert abs(float(data.returns.mean()) - truth) > 0.15  # what is seen without weights is another number


def test_a_fold_learns_from_the_steps_and_starts_of_the_others(played):
    config = configs.get_config("tiny-control")
    data = played[0].select(range(7))
    data.extras[LOG_PROB] = np.full(len(data), np.log(0.5), np.float32)
    padded = pad_episodes(data)
    log_prob = CANDIDATE.log_prob(padded.observations[:, :-1], padded.actions, Kernel())
    made = prepared(config, padded, [CANDIDATE, BEHAVIOUR], [log_prob, log_prob])
    steps = padded.mask.shape[1]
    for fold in range(2):
        rows = made["steps"][fold, : made["num_steps"][fold]]
        others = np.flatnonzero(made["folds"] != fold)
        assert (padded.mask.reshape(-1)[rows] == 1).all() and set(rows // steps) == set(others)
        assert len(set(rows)) == len(rows) == data.lengths[others].sum()
        assert set(made["starts"][fold, : made["num_starts"][fold]]) == set(others)
    there = padded.mask > 0
    np.testing.assert_allclose(made["ratios"][there, 0], 2.0 * np.exp(log_prob[there]), rtol=1e-5)
    assert made["policies"].logits.shape == (7, steps + 1, 2, 2)
    with config.unlocked():
        config.folds = 1
    assert (prepared(config, padded, [CANDIDATE], [log_prob])["num_steps"] == len(data)).all()


@pytest.mark.slow
@pytest.mark.parametrize("preset, candidates", [("tiny-control", 6), ("tiny-hopper", 6)])
def test_a_run_estimates_every_candidate_by_every_estimator(preset, candidates, tmp_path):
    line = main.run(experiment, configs.get_config(preset), tmp_path)
    found = read_outcomes(tmp_path / "outcomes.npz").values
    assert {name.removeprefix("estimate/") for name in found if name.startswith("estimate/")} == ESTIMATORS.keys()
    np.testing.assert_allclose(found["truth"][-1], [line["truth"]] * 2)
    for name in ("tis", "snpdis", "sndr"):
        low, value, high = (found[f"{kind}/{name}"][-1] for kind in ("low", "estimate", "high"))
        assert value.shape == (2, candidates)
        assert (low <= value + 1e-9).all() and (value <= high + 1e-9).all()  # equal where all returns are
    assert not np.array_equal(found["estimate/dr"][-1, 0], found["estimate/dr"][-1, 1])  # data of its own


@pytest.mark.parametrize("fields, message", [
    ({"environment": "pendulum"}, "unknown config.environment 'pendulum'"),
    ({"behaviour": (0.0, 1.0)}, r"config.candidates has \[0.0, 1.0\]: give directions of 4 numbers"),
    ({"learned": {"bc": ""}}, "config.learned.bc is empty: give the --workdir of a run of configs/scope_rl.py"),
    ({"learned": {"bc": "nowhere"}}, "nowhere: not the --workdir of a run"),
    ({"task": "bandit"}, "unknown config.task 'bandit'"),
    ({"environment": "hopper", "task": "candidate", "behaviour": ("sac_hopper_070k", 1.0), "candidates": ()},
     "config.environment: hopper has embedded candidates"),
])
def test_configurations_that_cannot_be(fields, message):
    config = configs.get_config("tiny-control")
    with pytest.raises((ValueError, FileNotFoundError), match=message):
        with config.unlocked():
            for name, given in fields.items():
                config[name] = given
        experiment(config)


# A user's own data: three episodes of two steps, one step, and two steps that a time-out cuts.

LOGGED = {
    "rewards": np.array([1.0, 2.0, 3.0, 0.0, 1.0]),
    "terminated": np.array([0, 1, 1, 0, 0], bool),
    "truncated": np.array([0, 0, 0, 0, 1], bool),
    "behaviour_log_prob": np.log([0.5, 0.25, 0.5, 0.5, 0.5]),
    "policy/new/log_prob": np.log([0.25, 0.5, 0.5, 1.0, 0.25]),
    "policy/same/log_prob": np.log([0.5, 0.25, 0.5, 0.5, 0.5]),
}


def written(tmp_path, **changes):
    """A file of LOGGED with fields changed, or without those that are None; two underscores stand for a slash."""
    fields = LOGGED | {name.replace("__", "/"): value for name, value in changes.items()}
    np.savez(tmp_path / "logged.npz", **{name: value for name, value in fields.items() if value is not None})
    return f"--data={tmp_path / 'logged.npz'}"


def test_estimates_of_a_file_by_hand(tmp_path):
    found = run_module(BINARY, written(tmp_path), "--discount=0.5", f"--figure={tmp_path / 'estimates.png'}")
    assert found.code == 0, found.stderr
    line = found.last_line
    new, same = (line["policies"][name] for name in ("new", "same"))
    # Ratios 1/2 and 2; 1; 2 and 1/2. Returns 2, 3 and 1/2.
    assert new["estimates"]["pdis"]["value"] == pytest.approx((0.5 + 1.0 + 3.0 + 0.0 + 0.5) / 3)
    assert new["estimates"]["tis"]["value"] == pytest.approx((2.0 + 3.0 + 0.5) / 3)
    assert new["effective_sample_size"] == pytest.approx(3.0)
    for one in same["estimates"].values():  # on-policy, all are the mean of the returns
        assert one["value"] == pytest.approx(line["behaviour"]) == pytest.approx(5.5 / 3)
        assert one["low"] <= one["value"] <= one["high"]
    assert new["estimates"].keys() == {"tis", "pdis", "sntis", "snpdis"} and line["selection"] == {}
    assert "| policy | TIS | PDIS |" in found.stderr and "3.0 of 3" in found.stderr
    assert (tmp_path / "estimates.png").stat().st_size > 1000


def test_distributions_of_a_file_by_hand(tmp_path):
    # Weights 1/2, 1 and 2 of the returns 2, 3 and 1/2; in all more than 3, so that TIS is cut off at 1.
    data = written(tmp_path, policy__new__log_prob=np.log([0.25, 0.25, 0.5, 1.0, 0.5]), policy__new__value=1.5)
    flags = ("--discount=0.5", "--tail=0.6", f"--cdf_figure={tmp_path / 'cdf.png'}")
    found = run_module(BINARY, data, *flags, "--threshold=2")
    assert found.code == 0, found.stderr
    said = found.last_line["distributions"]["new"]
    tis, sntis = ({kind: one["value"] for kind, one in said[name].items()} for name in ("cd_tis", "cd_sntis"))
    quartiles = {"lower_quartile": 0.5, "median": 0.5, "upper_quartile": 2.0}
    assert tis == pytest.approx(quartiles | {
        "mean": 7 / 6, "variance": (4 * (2 / 3) ** 2 + (5 / 6) ** 2 + (11 / 6) ** 2) / 6, "cvar": 0.5,
        "violations": 2 / 3,  # of the return 1/2 alone: 2 is safe
    })
    low, high = 4 / 7, 5 / 7  # F of 1/2 and of 2
    assert {kind: sntis[kind] for kind in ("mean", "cvar", "upper_quartile", "violations")} == pytest.approx({
        "mean": 10 / 7, "cvar": (0.5 * low + 2.0 * (0.6 - low)) / 0.6, "upper_quartile": 3.0, "violations": low,
    }) and high < 0.75
    assert all(one["low"] <= one["value"] <= one["high"] for one in said["cd_sntis"].values())
    assert "| policy | returns | mean | variance | cvar | lower quartile |" in found.stderr
    assert (tmp_path / "cdf.png").stat().st_size > 1000
    assert "violations" not in run_module(BINARY, data, *flags).last_line["distributions"]["new"]["cd_tis"]


@pytest.mark.parametrize("threshold, verdict", [(0.5, "safe"), (1.8, "undecided"), (3.1, "unsafe")])
def test_a_verdict_is_the_whole_interval_s(threshold, verdict, tmp_path):
    found = run_module(BINARY, written(tmp_path), "--discount=0.5", f"--threshold={threshold}")
    assert {one["verdict"] for one in found.last_line["policies"]["same"]["estimates"].values()} == {verdict}
    assert f"] {verdict} |" in found.stderr


def test_models_truth_and_time_outs(tmp_path):
    models = {}
    for name, constant in (("new", 1.0), ("same", 2.0)):
        models |= {f"policy__{name}__{field}": np.full(5, constant) for field in ("q", "v", "state_action_weights")}
        models[f"policy__{name}__value"] = np.float64(constant)
    flags = ("--discount=0.5", "--estimators=dm,dr,sam_dr", "--interval=student_t")
    found = run_module(BINARY, written(tmp_path, **models), *flags, "--threshold=1.5")
    assert found.code == 0, found.stderr
    assert found.last_line["selection"]["dm"] == {
        "rmse": 0.0, "rank_correlation": pytest.approx(1.0), "regret_at_1": 0.0,
        "sharpe_ratio_at_2": pytest.approx((2 - 5.5 / 3) / 0.5),
        "type_1_error": 0.0, "type_2_error": 0.0, "violations_at_2": 0.5,
    }
    assert "1 episodes were cut by time-outs and no next_v is given" in found.stderr
    after = {f"policy__{name}__next_v": np.array([1.0, 0.0, 0.0, 1.0, 8.0]) for name in ("new", "same")}
    more = run_module(BINARY, written(tmp_path, **models, **after), *flags)
    assert "cut by time-outs" not in more.stderr
    # The last step's weight 2 * 1/2, discounted twice: 8 / 4 over 3 trajectories.
    gain = [x.last_line["policies"]["new"]["estimates"]["dr"]["value"] for x in (more, found)]
    assert gain[0] - gain[1] == pytest.approx(8 * 0.25 / 3)


@pytest.mark.parametrize("changes, message", [
    (dict(behaviour_log_prob=None), "field 'behaviour_log_prob' is missing; it has policy/new"),
    (dict(policy__new__log_prob=None, policy__same__log_prob=None), "no field policy/NAME/log_prob"),
    (dict(policy__new__log_prob=None, policy__new__q=np.ones(5)), "field 'policy/new/log_prob' is missing"),
    (dict(rewards=np.ones((5, 1))), r"field 'rewards' has shape \(5, 1\)"),
    (dict(rewards=np.ones(0)), "field 'rewards' holds no steps"),
    (dict(policy__new__log_prob=np.zeros(4)), r"'policy/new/log_prob' has shape \(4,\), expected \(5\)"),
    (dict(policy__new__log_prob=np.array([0, 0, 0.5, 0, 0])), "step 2 is 0.5, expected at most 0.*--actions=cont"),
    (dict(behaviour_log_prob=np.array([0, -np.inf, 0, 0, 0])), "at step 1 is -inf.*its probability is not 0"),
    (dict(policy__new__log_prob=np.array([0, 0, np.nan, 0, 0])), "'policy/new/log_prob' at step 2 is nan"),
    (dict(rewards=np.array([0, 0, 0, np.nan, 0])), "field 'rewards' at step 3 is nan"),
    (dict(truncated=np.zeros(5, bool)), "'truncated' at step 4 is False: the last step ends an episode"),
    (dict(terminated=np.ones(5, bool)), "'truncated' at step 4 is True, expected False where the step is terminated"),
    (dict(policy__new__qs=np.ones(5)), "unknown field of a policy 'qs': did you mean"),
    (dict(policy__new__q=np.ones(5)), "policy 'new' has one of q and v"),
    (dict(policy__new__next_v=np.ones(5)), "policy 'new' has next_v without q and v"),
    (dict(policy__new__log_prob=np.array(["a"] * 5)), "has dtype <U1: give numbers"),
    (dict(rewards=np.array([None] * 5)), "rewards"),
])
def test_a_file_that_cannot_be(changes, message, tmp_path):
    error = run_module(BINARY, written(tmp_path, **changes)).error
    assert "logged.npz" in error
    assert re.search(message, error), error


@pytest.mark.parametrize("flags, message", [
    (["--estimators=snpdi"], "--estimators: unknown estimator 'snpdi': did you mean"),
    (["--estimators=dr"], "dr needs q and v"),
    (["--interval=hoeffding"], "--interval=hoeffding is a bound only with --value_range"),
    (["--interval=hoeffding", "--value_range=0.001"], "value_range is 0.001, and trajectories lie"),
    (["--max_weight=0"], "max_weight"),
    (["--tail=1.5"], "tail"),
    (["--workdir=here"], "--workdir is where models of --runs learn: give runs"),
    (["--runs=nowhere"], "field 'observations' is missing; the file has behaviour_log_prob"),
    (["there"], "unexpected argument 'there'"),
])
def test_flags_that_cannot_be(flags, message, tmp_path):
    ended = run_module(BINARY, written(tmp_path), *flags)
    assert ended.code == 1 and "Traceback" not in ended.stderr and message in ended.stderr


def test_there_is_no_such_task_to_log(tmp_path):
    assert "--task: unknown task 'cartpol'" in run_module(LOG, "--task=cartpol", f"--out={tmp_path / 'a.npz'}").error
    assert not (tmp_path / "a.npz").exists()


def test_there_is_no_such_file(tmp_path):
    assert "no such file" in run_module(BINARY, f"--data={tmp_path / 'none.npz'}").error


@pytest.mark.slow
def test_a_data_set_of_rlds_is_read_as_a_file_is(tmp_path):
    observations = np.arange(5, dtype=np.float32)[:, None]
    starts = np.array([0, 2, 3])
    after = np.where(LOGGED["terminated"][:, None] | LOGGED["truncated"][:, None], 9, observations + 1)
    episodes = Episodes(
        observations, np.zeros((5, 1), np.float32), LOGGED["rewards"].astype(np.float32), LOGGED["terminated"],
        LOGGED["truncated"], after.astype(np.float32), starts,
        {name: x for name, x in LOGGED.items() if name.endswith("log_prob")},
    )
    folder = write_rlds([episodes], tmp_path, "logged")
    lines = [run_module(BINARY, data, "--discount=0.5").last_line for data in (f"--data={folder}", written(tmp_path))]
    one, other = (line["policies"]["new"]["estimates"] for line in lines)
    assert one.keys() == other.keys() and all(one[name] == pytest.approx(other[name]) for name in one)


def test_vanishing_weights_have_an_effective_size(tmp_path):
    changes = {"policy__new__log_prob": np.array([-400.0, 0.0, -400.0, -400.0, 0.0])}
    size = run_module(BINARY, written(tmp_path, **changes)).last_line["policies"]["new"]["effective_sample_size"]
    assert 1.0 <= size <= 3.0


def test_densities_may_be_above_one(tmp_path):
    changes = {"policy__new__log_prob": np.ones(5), "behaviour_log_prob": np.full(5, 1.5)}
    assert run_module(BINARY, written(tmp_path, **changes), "--actions=continuous").code == 0


# Policies of runs


@pytest.fixture(scope="module")
def learnt(tmp_path_factory):
    """A folder with a run that learnt a candidate in CartPole, called cql, and logged data of another policy."""
    folder = tmp_path_factory.mktemp("learnt")
    main.run(experiment, configs.get_config("tiny-candidate"), folder / "cql")
    line = run_module(LOG, f"--out={folder / 'logged.npz'}", "--episodes=30").last_line
    assert line["episodes"] == 30
    return folder


@pytest.mark.slow
def test_a_learnt_candidate_plays_and_is_asked_in_the_study(learnt):
    config = configs.get_config("tiny-control")
    with config.unlocked():
        config.candidates, config.learned = (), {"cql": str(learnt / "cql")}
    problem = problem_of(config)
    (candidate,) = problem.candidates
    made = problem.episodes(candidate, 300, 0)
    log_prob = candidate.log_prob(made.observations, made.actions, Kernel())
    # It did what it says: the mean log-prob of its own actions is minus its entropy.
    entropy = np.asarray(candidate.at(made.observations).entropy())
    assert log_prob.mean() == pytest.approx(-entropy.mean(), abs=0.05) and made.lengths.max() <= config.horizon


@pytest.mark.slow
def test_policies_of_runs_are_asked_and_modelled(learnt, tmp_path):
    data, run = f"--data={learnt / 'logged.npz'}", f"--runs={learnt / 'cql'}"
    asked = run_module(BINARY, data, run, "--discount=0.9")
    assert asked.code == 0, asked.stderr
    estimates = asked.last_line["policies"]["cql"]["estimates"]
    assert estimates.keys() == {"tis", "pdis", "sntis", "snpdis"}
    line = run_module(BINARY, data, run, "--discount=0.9", f"--workdir={tmp_path / 'ope'}", "--steps=20").last_line
    modelled = line["policies"]["cql"]["estimates"]
    assert modelled.keys() == ESTIMATORS.keys()
    assert all(modelled[name] == pytest.approx(estimates[name]) for name in estimates)
    modes = run_module(BINARY, data, run, "--discount=0.9", "--modes").last_line["policies"]["cql"]
    assert modes["effective_sample_size"] < asked.last_line["policies"]["cql"]["effective_sample_size"]
    assert "models of values" in run_module(BINARY, data, run, f"--workdir={tmp_path / 'one'}").error
    twice = run_module(BINARY, data, f"--runs={learnt / 'cql'},{learnt / 'cql'}").error
    assert "two runs are called 'cql'" in twice
    with np.load(learnt / "logged.npz") as fields:
        np.savez(tmp_path / "wide.npz", **dict(fields) | {
            name: np.ones((len(fields["rewards"]), 5), np.float32) for name in ("observations", "next_observations")
        })
    wide = run_module(BINARY, f"--data={tmp_path / 'wide.npz'}", run).error
    assert "its policy has other observations or actions than the data, which have 5 and 2" in wide
