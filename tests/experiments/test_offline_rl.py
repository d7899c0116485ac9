"""The offline RL experiment as a person meets it: its last line, its files, your own data, and its errors."""

import json
import os
import subprocess
import sys
from pathlib import Path

import h5py
import numpy as np
import pytest

from configs import offline_rl
from experiments.offline_rl import film
from experiments.offline_rl.experiment import experiment
from rl_jax.core.main import run
from rl_jax.core.outcomes import read_outcomes
from tests.experiments.offline_files import write_d4rl

ROOT = Path(__file__).resolve().parents[2]
SHORT = {"num_steps": 20, "loop.eval_every": 10, "checkpoint.every": 20, "tensorboard": False}


@pytest.fixture(scope="module")
def dataset(tmp_path_factory) -> dict:
    return write_d4rl(tmp_path_factory.mktemp("d4rl"))


def configured(preset: str, *fields: dict):
    config = offline_rl.get_config(preset)
    for own in (SHORT, *fields):
        config.update_from_flattened_dict(own)
    return config


def test_a_d4rl_file_runs_to_its_last_line_and_a_second_start_trains_nothing(dataset, tmp_path):
    config = configured("tiny-bc", dataset)
    result = run(experiment, config, tmp_path)
    assert (result["paper"], result["preset"], result["step"], result["seeds"]) == ("offline_rl", "tiny-bc", 20, 2)
    # By hand: the mean return of the three episodes on D4RL's scale for Hopper.
    with h5py.File(dataset["dataset.path"]) as file:
        returns = [part.sum() for part in np.split(file["rewards"][:].astype(np.float64), (120, 260))]
    expected = 100 * (np.mean(returns) + 20.272305) / (3234.3 + 20.272305)
    assert result["behaviour_score"] == pytest.approx(expected, rel=1e-4)
    files = {"metrics.jsonl", "outcomes.npz", "learning_curve.png", "config.json", "provenance.json", "result.json"}
    assert files <= {path.name for path in tmp_path.iterdir()}
    steps, _, values = read_outcomes(tmp_path / "outcomes.npz")
    assert steps.tolist() == [10, 20] and {name: x.shape for name, x in values.items()} == dict.fromkeys(
        ("return", "length", "normalized_score"), (2, 2, 2)
    )
    scores = 100 * (values["return"][-1] + 20.272305) / (3234.3 + 20.272305)
    assert result["score"] == pytest.approx(scores.mean(), rel=1e-9), "the score comes from the saved episodes"
    low, high = result["gain_interval"]
    assert low < result["score"] - result["behaviour_score"] < high
    inputs = json.loads((tmp_path / "provenance.json").read_text())["starts"][0]["inputs"]
    assert inputs["dataset"] == "mine" and len(inputs["checksum"]) == 64 and inputs["env_id"] == "Hopper-v4"

    assert run(experiment, config, tmp_path) == result
    config.agent.learning_rate = 0.5
    with pytest.raises(ValueError, match="agent.learning_rate: 0.0003 there, 0.5 here"):
        run(experiment, config, tmp_path)


def test_a_run_is_held_against_a_rival_on_the_same_data_and_filmed(dataset, tmp_path):
    rival, other = configured("tiny-bc", dataset), dataset | {"dataset.num_steps": 260}
    run(experiment, rival, tmp_path / "BC")
    config = configured("tiny-td3_bc", dataset, {"rival": str(tmp_path / "BC")})
    result = run(experiment, config, tmp_path / "run")
    theirs = read_outcomes(tmp_path / "BC" / "outcomes.npz").values["normalized_score"][-1]
    assert result["rival_score"] == pytest.approx(theirs.mean())
    low, high = result["gain_over_rival_interval"]
    assert low <= result["score"] - result["rival_score"] <= high
    assert result["best_episode_score"] > result["behaviour_score"]
    for name, fields, message in (
        ("other", other, "BC has the checksum .*, and this run .*: name a run on the same data"),
        ("absent", dataset | {"rival": str(tmp_path / "no")}, "config.rival: .*no is not the folder of a finished run"),
    ):
        with pytest.raises((ValueError, FileNotFoundError), match=message):
            run(experiment, configured("tiny-td3_bc", {"rival": str(tmp_path / "BC")}, fields), tmp_path / name)
        assert not (tmp_path / name).exists()
    (tmp_path / "BC" / "result.json").unlink()
    with pytest.raises(FileNotFoundError, match="config.rival: .*BC is not the folder of a finished run"):
        run(experiment, configured("tiny-td3_bc", dataset, {"rival": str(tmp_path / "BC")}), tmp_path / "late")

    rollouts = film.rollouts_of(tmp_path / "run")
    (title,) = rollouts  # the data are a file: no behaviour policy is known
    assert title.startswith("td3_bc: normalised score") and len(rollouts[title].rewards) > 5


@pytest.mark.parametrize(
    "fields, error, message",
    [
        ({"dataset.path": "/no/such/file.hdf5"}, FileNotFoundError, "/no/such/file.hdf5"),
        ({"dataset.env_id": "Walker2d-v4"}, ValueError, r"Walker2d-v4 has observations \(17,\)"),
        ({"dataset.env_id": "Hoper-v4"}, ValueError, "there is no Gymnasium environment 'Hoper-v4'"),
        ({"agent.name": "iqll"}, ValueError, "unknown agent 'iqll': did you mean iql"),
        ({"dataset.columns": ("mc_return",)}, ValueError, "unknown column 'mc_return': did you mean mc_returns"),
        ({"mesh.data": 3}, ValueError, "config.mesh"),
    ],
)
def test_bad_input_is_one_clear_error_and_leaves_nothing(fields, error, message, dataset, tmp_path):
    with pytest.raises(error, match=message):
        run(experiment, configured("tiny", dataset, fields), tmp_path / "run")
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    "preset, near", [("quik", "quick"), ("iql/hoper-medium", "iql/hopper-medium"), ("tiny-sacn", "tiny-sac_n")]
)
def test_an_unknown_preset_is_told_its_neighbours(preset, near):
    with pytest.raises(ValueError, match=f"unknown preset .*{near}"):
        offline_rl.get_config(preset)


@pytest.mark.slow
def test_the_binary_ends_with_one_json_line(dataset, tmp_path):
    fields = [f"--config.{name}={value}" for name, value in (SHORT | dataset).items()]

    def binary(*args: str) -> subprocess.CompletedProcess:
        environment = os.environ | {"XLA_FLAGS": "", "PYTHONPATH": str(ROOT)}
        command = [sys.executable, "-m", "experiments.offline_rl.train", *args]
        return subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=300)

    done = binary("--config=configs/offline_rl.py:tiny-bc", f"--workdir={tmp_path / 'run'}", *fields)
    assert done.returncode == 0, done.stderr
    (line,) = done.stdout.splitlines()
    assert json.loads(line) == json.loads((tmp_path / "run" / "result.json").read_text())
    done = binary("--config=configs/offline_rl.py:tiny", f"--workdir={tmp_path / 'bad'}", "--config.agent.expectil=0.9")
    assert done.returncode != 0 and "expectile" in done.stderr and "Traceback" not in done.stderr
    assert done.stdout == "" and not (tmp_path / "bad").exists()
    film = [sys.executable, "-m", "experiments.offline_rl.film", f"--run={tmp_path / 'run'}"]
    done = subprocess.run(film, cwd=ROOT, capture_output=True, text=True, timeout=300)
    assert "film.png: bc: normalised score" in done.stdout and (tmp_path / "run" / "film.png").exists(), done.stderr
    done = binary("--help")
    for word in ("--config", "--workdir", "quick", "--config.num_seeds", "--config.dataset.path"):
        assert word in done.stdout
