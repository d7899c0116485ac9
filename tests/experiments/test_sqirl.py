"""SQIRL's binaries: what counts as solved, the search, the committed MDPs, and a run to its JSON line."""

import json
import math
import os
import subprocess
import sys
from pathlib import Path

import jax
import numpy as np
import pytest

from configs import sqirl as configs
from experiments.declaration import Evaluations, Scores
from experiments.reproduce import load_preset
from experiments.sqirl import complexity, reproduce, train
from experiments.sqirl.problem import load_problem
from rl_jax.envs.tabular import load_mdp
from rl_jax.evaluation.planning import analyze, policy_return

ROOT = Path(__file__).resolve().parents[2]


def test_every_preset_of_the_paper_names_configurations_that_exist():
    for name in reproduce.PAPER.presets:
        for run in load_preset(reproduce.PAPER, name).runs:
            fields = configs.get_config(run.config.partition(":")[2])
            fields.update_from_flattened_dict(dict(run.overrides))


BUILT = sorted(configs.BUILT.glob("*.npz"))
SMALL = ("empty_5x5", "breakout_8_fs30")


@pytest.mark.parametrize(
    "path", [pytest.param(path, id=path.stem, marks=[] if path.stem in SMALL else pytest.mark.slow) for path in BUILT]
)
def test_the_built_mdps_earn_more_than_at_random(path):
    assert len(BUILT) == 20
    found = analyze(load_mdp(path), max_k=1)
    assert found.best_return > found.random_return + 1e-3


@pytest.mark.parametrize("agent", ["sqirl", pytest.param("ppo", marks=pytest.mark.slow), "dqn"])
def test_the_program_counts_its_samples_and_judges_exactly(agent, tmp_path):
    config = configs.get_config(f"tiny-{agent}")
    config.update_from_flattened_dict({"mdp": "empty_5x5", "horizon": 6, "sticky": 0.25})
    experiment = train.make_program(config, tmp_path)
    init, step = experiment.program.init, experiment.program.step
    state = jax.vmap(init)(jax.random.split(jax.random.key(0), 2)).replace(step=np.int32(0))
    stepped = jax.jit(jax.vmap(step, in_axes=(_axes(state), None, 0), out_axes=(_axes(state), 0)))
    state, _ = stepped(state, experiment.program.source.data, jax.random.split(jax.random.key(1), 2))
    state = state.replace(step=state.step + 1)
    per_step = {"sqirl": 8 * 6, "ppo": 8 * 128, "dqn": 4}[agent]
    samples = experiment.samples(state)
    assert (samples == per_step).all() if agent != "sqirl" else (samples <= per_step).all() and (samples > 0).all()
    returns = experiment.returns(state, jax.random.key(2))
    assert returns.shape == (2,) and np.isfinite(returns).all()


def _axes(state):
    return jax.tree.map(lambda _: 0, state.replace(step=None)).replace(step=None)


def test_solved_is_99_percent_of_the_way_from_random_to_best():
    mdp = load_mdp(configs.BUILT / "empty_5x5.npz")
    found = analyze(mdp, sticky=0.25, max_k=1)
    assert complexity.threshold(found) == pytest.approx(0.01 * found.random_return + 0.99 * found.best_return)


def test_a_search_stops_at_the_first_number_of_episodes_that_solves(monkeypatch):
    asked = []

    def samples_to_solve(config, experiment, least):
        number = config.agent.num_episodes
        asked.append(number)
        needed = np.array([64, 16, 1])  # episodes, of each seed
        return np.where(number >= needed, 10.0 * number, np.inf), np.full(3, number)

    monkeypatch.setattr(complexity, "samples_to_solve", samples_to_solve)
    config = configs.get_config("tiny-sqirl")
    config.update_from_flattened_dict({"search.first": 1, "search.growth": 4, "num_seeds": 3})
    found = complexity.search(config, load_problem(config), 1.0)
    assert asked == [1, 4, 16, 64]
    np.testing.assert_array_equal(found, [640.0, 160.0, 10.0])
    # No more is tried where the first timestep alone takes all samples.
    asked.clear()
    config.samples = 16
    assert np.isinf(complexity.search(config, load_problem(config), 1.0)[0]) and asked == [1, 4, 16]


def test_a_run_ends_with_what_it_took(tmp_path):
    config = configs.get_config("tiny-ppo")
    config.update_from_flattened_dict({"mdp": "freeway_10_fs30", "loop.eval_every": 1, "samples": 3072})
    summary = json.loads(json.dumps(complexity.main(config, tmp_path)))
    assert summary["min_k"] == 1 and summary["best_return"] == 1.0
    assert summary["log10_bound"] == pytest.approx(
        2 + summary["stochastic_effective_horizon"] * math.log10(3)
    )
    steps, scores, solved, bound = complexity.read(tmp_path, summary)
    np.testing.assert_allclose(10 ** scores[0, :, 0], summary["samples"])
    np.testing.assert_array_equal(solved[0, :, 0] > 0, summary["solved"])
    assert set(summary["samples"]) <= {1024.0, 2048.0, 3072.0} and steps == [3072]
    assert bound == summary["log10_bound"]


def scores_of(samples, solved):
    """method -> [MDPs] of log10 samples and of solved; two seeds that agree."""
    runs, evaluations = [], {}
    for method, values in samples.items():
        for number, value in enumerate(values):
            run = reproduce.Run(method, f"mdp{number}", "", "")
            runs.append(run)
            array = np.full((1, 2, 1), float(value))
            evaluations[run.name] = Evaluations(
                np.array([1]), array, np.full((1, 2, 1), float(solved[method][number])), 2.0 + number
            )
    return Scores(runs, evaluations)


def test_ranks_are_compared_over_the_mdps_that_both_solve():
    ranks = [1.0, 2.0, 3.0, 4.0, 5.0, 6.0]
    scores = scores_of(
        {"sqirl_k1": [1, 2, 3, 4, 9, 9], "sqirl_k2": [9, 9, 9, 9, 5, 9], "ppo": ranks},
        {"sqirl_k1": [1, 1, 1, 1, 0, 0], "sqirl_k2": [0, 0, 0, 0, 1, 0], "ppo": [1] * 6},
    )
    best, solved = reproduce.best_of(scores, reproduce.SQIRL)
    np.testing.assert_array_equal(best[0], [1, 2, 3, 4, 5, 9])
    np.testing.assert_array_equal(solved[0], [True] * 5 + [False])
    claims = {claim.name: claim for claim in load_preset(reproduce.PAPER, "quick").claims}
    found = claims["sqirl_correlates_with_ppo"].check(scores)
    assert found.value == pytest.approx(1.0) and found.passed and found.detail == "5 MDPs"
    bound = claims["bound_correlates_with_ppo"].check(scores)
    assert bound.value == pytest.approx(1.0) and bound.detail == "6 MDPs"


def test_the_main_binary_runs_to_its_summary(tmp_path):
    summary = train.main(configs.get_config("tiny-sqirl"), tmp_path)
    assert len(summary["returns"]) == 2 and summary["step"] == 10
    mdp = load_problem(configs.get_config("tiny-sqirl")).data
    best = analyze(mdp, sticky=0.25, max_k=1).best_return
    assert all(0.0 <= value <= best + 1e-9 for value in summary["returns"])
    assert policy_return(mdp, np.full((mdp.num_states, 3), 1 / 3), 0.25) == pytest.approx(0.031809488932291664)


def test_an_analysis_ends_with_all_figures_in_one_line():
    command = [sys.executable, "-m", "experiments.sqirl.analyze", f"--mdp={configs.BUILT / 'empty_5x5.npz'}"]
    done = subprocess.run([*command, "--sticky=0.25"], cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    (row,) = json.loads(done.stdout.splitlines()[-1])["mdps"]
    found = analyze(load_mdp(configs.BUILT / "empty_5x5.npz"), sticky=0.25)
    assert row["min_k"] == found.min_k and row["random_return"] == found.random_return
    done = subprocess.run([*command[:-1], "--mdp=nowhere.npz"], cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert done.returncode == 1 and "nowhere.npz: no such file" in done.stderr and "Traceback" not in done.stderr


@pytest.mark.slow
@pytest.mark.parametrize("agent", ["sqirl", "ppo", "dqn"])
def test_a_game_is_learned_in_on_the_host(agent, tmp_path):
    pytest.importorskip("ale_py")
    command = [sys.executable, "-m", "experiments.sqirl.train", f"--config=configs/sqirl.py:tiny-atari-{agent}"]
    done = subprocess.run(
        [*command, f"--workdir={tmp_path}"], cwd=ROOT, env=os.environ | {"XLA_FLAGS": "", "PYTHONPATH": str(ROOT)},
        capture_output=True, text=True, timeout=300,
    )
    assert done.returncode == 0, done.stderr
    summary = json.loads(done.stdout)
    assert len(summary["returns"]) == 1 and summary["samples"][0] > 0


def test_networks_see_screens(tmp_path):
    config = configs.get_config("sqirl-screens/lava_gap_5")
    config.agent.num_episodes = 2
    problem = load_problem(config)
    settled = train.settle(config, problem)
    assert settled.agent.encoder == "minigrid_cnn" and problem.encoder == "minigrid_cnn"
    experiment = train.make_experiment(settled, problem)
    state = jax.eval_shape(experiment.program.init, jax.random.key(0))
    assert state.extra["buffer"].observations.shape[1:] == (5, 5, 3)
    assert state.extra["buffer"].observations.dtype == np.uint8
    # The network's first layer is a convolution over the 3 codes of a cell.
    assert (3, 3, 3, 32) in {x.shape for x in jax.tree.leaves(state.params)}


def test_candidates_of_a_sweep_share_a_program(tmp_path):
    config = configs.get_config("tiny-sqirl")
    config.update_from_flattened_dict(
        {"mdp": "trap", "num_seeds": 2, "agent.regressor": "table", "sweep": "agent.k=1,2; agent.num_episodes=50,300"}
    )
    summary = train.main(config, tmp_path)
    found = {name: outcome["returns"] for name, outcome in summary["sweep"].items()}
    # The start's values after no sticky action: k = 1 takes the way that is worth 1, k = 2 the other, worth 1.125.
    assert found["agent.k=1,agent.num_episodes=300"] == pytest.approx([1.0, 1.0])
    assert found["agent.k=2,agent.num_episodes=300"] == pytest.approx([1.125, 1.125])
    samples = [outcome["samples"] for outcome in summary["sweep"].values()]
    assert samples == [[200.0] * 2, [1200.0] * 2] * 2


@pytest.mark.parametrize(
    "fields, message",
    [
        ({"observations": "pixels"}, "config.observations is 'pixels': choose state or screen"),
        ({"observations": "screen", "mdp": "trap"}, "no array 'screens'"),
        ({"atari.rom": "freeway"}, "an Atari game gives screens alone"),
        ({"atari.rom": "freeway", "observations": "screen"}, "hangs on 8 CPU devices at once: start with one"),
        ({"agent.k": 0}, "config.agent.k is 0: give at least 1"),
        ({"agent.name": "sqril"}, "unknown agent 'sqril': did you mean sqirl"),
    ],
)
def test_what_a_configuration_cannot_mean_is_named(fields, message, tmp_path):
    config = configs.get_config("tiny-sqirl")
    config.update_from_flattened_dict(fields)
    with pytest.raises(ValueError, match=message):
        train.make_program(config, tmp_path)


def test_gorp_is_searched_in_deterministic_mdps_alone(tmp_path):
    config = configs.get_config("gorp/freeway_10_fs30")
    config.update_from_flattened_dict({"num_seeds": 5, "search.first": 16, "search.growth": 8})
    summary = complexity.main(config, tmp_path / "found")
    # k = 1 takes T^2 A m steps: 300 for each episode of a sequence; the authors' bound is m = 37.
    assert all(summary["solved"]) and all(steps % 300 == 0 for steps in summary["samples"])
    assert 10 ** summary["log10_bound"] == pytest.approx(11_100)
    config.sticky = 0.25
    with pytest.raises(ValueError, match="config.sticky is 0.25: GORP fixes actions ahead, give 0"):
        complexity.main(config, tmp_path / "sticky")
