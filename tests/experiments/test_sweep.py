"""A sweep of a paper's experiment: floats side by side, other fields in sequence, one JSON line, and how it goes on."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from configs import offline_rl
from experiments.offline_rl.experiment import experiment
from rl_jax.core.main import run_sequence
from rl_jax.core.metrics import read_metrics
from rl_jax.core.outcomes import read_outcomes
from rl_jax.core.sweep import in_sequence, labels
from tests.experiments.offline_files import write_d4rl


def untimed(path: Path) -> list[dict]:
    return [
        {name: value for name, value in line.items() if not name.startswith(("time/", "system/"))}
        for line in read_metrics(path)
    ]


@pytest.mark.slow
def test_a_sweep_runs_to_its_json_line_and_goes_on_with_what_is_missing(tmp_path):
    config = offline_rl.get_config("tiny-bc")
    config.update_from_flattened_dict(write_d4rl(tmp_path) | {"num_steps": 20, "tensorboard": False})
    config.sweep = "agent.learning_rate=1e-4,0.01; batch_size=16,32"
    workdir = tmp_path / "run"
    result = run_sequence(experiment, config, workdir, in_sequence(config))
    assert [entry["setting"] for entry in result["sweep"]] == [{"batch_size": 16}, {"batch_size": 32}]
    folders = [workdir / "batch_size=16", workdir / "batch_size=32"]
    assert sorted(workdir.iterdir()) == folders
    for entry, folder in zip(result["sweep"], folders, strict=True):
        summary, own = entry["summary"], json.loads((folder / "config.json").read_text())
        assert summary["step"] == 20 and summary["score"] is None and summary["workdir"] == str(folder)
        assert {"batch_size": own["batch_size"]} == entry["setting"]
        assert labels(own) == [{"seed": seed, "agent.learning_rate": rate} for rate in (1e-4, 0.01) for seed in (0, 1)]
        scores = read_outcomes(folder / "outcomes.npz").values["normalized_score"][-1]
        assert scores.shape == (4, 2)
        both = (slice(0, 2), slice(2, 4)), (1e-4, 0.01), summary["sweep"], summary["gain_interval"]
        for rows, rate, outcome, (low, high) in zip(*both, strict=True):
            assert outcome["setting"] == {"agent.learning_rate": rate}
            assert outcome["score"] == pytest.approx(scores[rows].mean(), rel=1e-9)
            assert low < outcome["score"] - summary["behaviour_score"] < high
        losses = np.asarray([line["actor/loss"] for line in untimed(folder / "metrics.jsonl") if "actor/loss" in line])
        assert losses.shape == (2, 4)
        assert (losses[1, 2:] < losses[1, :2]).all(), "the larger of the rates learns faster"
    # The second of the sequence is lost: only it is trained again, to the same numbers.
    finished, lost = (folders[0] / "metrics.jsonl").read_bytes(), untimed(folders[1] / "metrics.jsonl")
    shutil.rmtree(folders[1])
    again = run_sequence(experiment, config, workdir, in_sequence(config))
    assert (folders[0] / "metrics.jsonl").read_bytes() == finished
    assert untimed(folders[1] / "metrics.jsonl") == lost
    for entry, other in zip(result["sweep"], again["sweep"], strict=True):
        assert entry["summary"]["sweep"] == other["summary"]["sweep"]


@pytest.mark.parametrize("sweep, message", [
    ("agent.learning_rat=0.1", "did you mean agent.learning_rate"),
    ("agent.learning_rate=fast", "must be a finite number, like 0.0003"),
    ("batch_size=16,", "a value is missing"),
    ("agent.name=bc,iql", "chooses an algorithm"),
])
def test_a_bad_sweep_is_one_clear_error(sweep, message):
    config = offline_rl.get_config("tiny-bc")
    config.sweep = sweep
    with pytest.raises(ValueError, match=message):
        in_sequence(config)


def test_returns_in_the_data_are_of_one_discount_so_it_is_swept_in_sequence():
    config = offline_rl.get_config("tiny-cal_ql")
    config.sweep = "agent.discount=0.9,0.99; agent.conservatism=1.0,5.0"
    assert in_sequence(config) == [{"agent.discount": 0.9}, {"agent.discount": 0.99}]
