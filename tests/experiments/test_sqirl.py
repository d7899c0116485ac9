"""SQIRL's experiment: tiny runs until they are solved, the committed MDPs, the analysis, and what cannot be meant."""

import json
import math
import os
import shutil
import subprocess
import sys
from pathlib import Path

import jax
import numpy as np
import pytest
from absl import flags
from absl.testing import flagsaver

from configs import sqirl as configs
from experiments.sqirl import analyze as analysis
from experiments.sqirl.claims import PAPER
from experiments.sqirl.experiment import experiment
from rl_jax.core import main
from rl_jax.core.outcomes import read_outcomes
from rl_jax.tabular.effective_horizon import analyze
from rl_jax.tabular.files import load_mdp

ROOT = Path(__file__).resolve().parents[2]
BUILT = sorted(configs.BUILT.glob("*.npz"))


def configured(preset, **fields):
    config = configs.get_config(preset)
    config.update_from_flattened_dict({name.replace("__", "."): value for name, value in fields.items()})
    return config


def finished(workdir, preset, **fields):
    """(the last line of a run, its outcomes)."""
    return main.run(experiment, configured(preset, **fields), workdir), read_outcomes(workdir / "outcomes.npz")


def test_every_run_of_the_paper_has_a_configuration():
    for preset in PAPER.presets.values():
        for declared in preset().runs:
            configs.get_config(declared.config.partition(":")[2]).update_from_flattened_dict(dict(declared.overrides))


@pytest.mark.parametrize(
    "path",
    [pytest.param(path, id=path.stem, marks=[] if path.stem == "empty_5x5" else pytest.mark.slow) for path in BUILT],
)
def test_the_built_mdps_earn_more_than_at_random(path):
    assert len(BUILT) == 20
    found = analyze(load_mdp(path), max_k=1)
    assert found.best_return > found.random_return + 1e-3


@pytest.mark.slow
def test_ppo_takes_the_samples_of_its_first_evaluation_that_is_good_enough(tmp_path):
    fields = {"mdp": "freeway_10_fs30", "horizon": 0, "samples": 5000, "agent__num_steps": 32}  # 256 samples a step
    line, outcomes = finished(tmp_path, "tiny-ppo", **fields)
    returns, samples = outcomes.values["return"][..., 0], outcomes.values["samples"][..., 0]
    np.testing.assert_array_equal(samples, np.minimum(256 * outcomes.steps, 5000)[:, None].repeat(2, 1))
    good = returns >= 0.01 * line["random_return"] + 0.99 * line["best_return"]
    good &= 256 * outcomes.steps[:, None] <= 5000
    np.testing.assert_array_equal(outcomes.values["solved"][..., 0] > 0, good)
    for seed in range(2):
        assert line["solved"][seed] == good[:, seed].any()
        assert line["samples"][seed] == (samples[good[:, seed], seed].min() if good[:, seed].any() else 5000)
    assert line["step"] == 20 or good.any(0).all() and not good[:-1].any(0).all()
    assert line["min_k"] == 1 and line["best_return"] == 1.0 and line["random_return"] == pytest.approx(0.0318094889)
    assert line["log10_bound"] == pytest.approx(2 + line["stochastic_effective_horizon"] * math.log10(3))


def test_sqirl_makes_attempts_with_more_episodes_until_its_samples_are_spent_and_resumes_exactly(tmp_path):
    # k = 1 never takes the better way. Attempts of 2 timesteps with 512, 2048, 8192 ... episodes of 2 steps each.
    fields = {
        "mdp": "trap", "horizon": 0, "agent__num_episodes": 512, "agent__growth": 4, "agent__regressor": "table",
        "agent__num_envs": 512, "checkpoint__every": 3, "checkpoint__keep": 5,
    }
    line, outcomes = finished(tmp_path, "tiny-sqirl", **fields)
    samples = outcomes.values["samples"][:, 0, 0]
    assert samples.tolist() == [1024, 2048, 4096, 8192, 16384, 20000, 20000] and line["step"] == 7
    assert line["solved"] == [False, False] and line["samples"] == [20000.0] * 2 and line["min_k"] == 2
    # Again from the middle of the second attempt on, without what came after it.
    for step in (6, 7):
        shutil.rmtree(tmp_path / "checkpoints" / str(step))
    _, again = finished(tmp_path, "tiny-sqirl", **fields)
    for name, values in outcomes.values.items():
        np.testing.assert_array_equal(again.values[name], values)


def test_numbers_of_episodes_run_side_by_side(tmp_path):
    fields = {"mdp": "trap", "horizon": 0, "agent__regressor": "table", "agent__k": 2, "agent__growth": 1}
    line, outcomes = finished(tmp_path, "tiny-sqirl", **fields, sweep="agent.num_episodes=1,300")
    # The start's values after no sticky action: the better way is worth 1.125 with what sticks.
    assert line["returns"][2:] == pytest.approx([1.125, 1.125]) and line["solved"][2:] == [True, True]
    assert outcomes.values["samples"][0, :, 0].tolist() == [2.0, 2.0, 600.0, 600.0]


def test_gorp_doubles_its_episodes_in_a_deterministic_mdp(tmp_path):
    line, _ = finished(tmp_path, "gorp/freeway_10_fs30", num_seeds=3, agent__num_episodes=16)
    # k = 1 takes T^2 A m samples: 300 for each episode of a sequence; the authors' bound is m = 37.
    assert all(line["solved"]) and all(samples % 4800 == 0 for samples in line["samples"])
    assert 10 ** line["log10_bound"] == pytest.approx(11_100)


@pytest.mark.slow
def test_dqn_collects_and_counts(tmp_path):
    line, outcomes = finished(tmp_path, "tiny-dqn", mdp="empty_5x5", horizon=6, samples=40, loop__eval_every=5)
    assert line["step"] == 10 and line["samples"] == [40.0, 40.0] and np.isfinite(line["returns"]).all()
    assert outcomes.values["samples"][:, 0, 0].tolist() == [20.0, 40.0]


def test_networks_see_screens():
    config = configured("sqirl-screens/lava_gap_5", samples=500)
    program = experiment(config).program(config)
    state = jax.eval_shape(program.init, jax.random.key(0), program.resident)
    buffer = state.extra["buffer"].observations
    assert buffer.shape == (500, 5, 5, 3) and buffer.dtype == np.uint8
    # The network's first layer is a convolution over the 3 codes of a cell.
    assert (3, 3, 3, 32) in {x.shape for x in jax.tree.leaves(state.params)}


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
    assert np.isfinite(json.loads(done.stdout)["score"])
    assert read_outcomes(tmp_path / "outcomes.npz").values["samples"][-1, 0, 0] > 0


@pytest.mark.parametrize(
    "fields, message",
    [
        ({"observations": "pixels"}, "config.observations is 'pixels': choose state or screen"),
        ({"observations": "screen", "mdp": "trap", "horizon": 0}, "no array 'screens'"),
        ({"atari__rom": "freeway"}, "an Atari game gives screens alone"),
        ({"atari__rom": "freeway", "observations": "screen"}, "hangs on 8 CPU devices at once: start with one"),
        ({"mdp": "nowhere.npz"}, "nowhere.npz: no such file"),
        ({"agent__k": 0}, "config.agent.k is 0: give at least 1"),
        ({"agent__name": "sqril"}, "unknown agent 'sqril': did you mean sqirl"),
        ({"agent__name": "gorp"}, "config.sticky is 0.25: GORP fixes actions ahead, give 0"),
    ],
)
def test_what_a_configuration_cannot_mean_is_named(fields, message):
    config = configured("tiny-sqirl", **fields)
    with pytest.raises((ValueError, FileNotFoundError), match=message):
        experiment(config).program(config)


def test_an_analysis_ends_with_all_figures_in_one_line(capsys):
    path = configs.BUILT / "empty_5x5.npz"
    flags.FLAGS(["analyze", f"--mdp={path}"])
    with flagsaver.flagsaver(mdp=str(path), sticky=0.25):
        analysis.main(["analyze"])
    (row,) = json.loads(capsys.readouterr().out.splitlines()[-1])["mdps"]
    found = analyze(load_mdp(path), sticky=0.25)
    assert row["min_k"] == found.min_k and row["random_return"] == found.random_return
    with flagsaver.flagsaver(mdp="nowhere.npz"), pytest.raises(FileNotFoundError, match="nowhere.npz: no such file"):
        analysis.main(["analyze"])
