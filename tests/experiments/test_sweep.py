"""Sweeps through the binary: floats side by side, other fields one after another, one JSON line, and how it goes on."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from experiments.binary import run_sequence
from rl_jax.core.metrics import read_metrics
from rl_jax.core.sweep import in_sequence, labels
from rl_jax.evaluation.scores import normalized_score
from tests.core import toys

ROOT = Path(__file__).resolve().parents[2]
TINY = ("--config=configs/offline_rl.py:tiny-bc", "--config.num_steps=20", "--config.tensorboard=False")
SWEEP = "--config.sweep=agent.learning_rate=1e-4,0.01; batch_size=16,32"


def binary(*args: str) -> subprocess.CompletedProcess:
    environment = os.environ | {"XLA_FLAGS": "", "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-m", "experiments.offline_rl.train", *args]
    return subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=300)


def untimed(path: Path) -> list[dict]:
    return [
        {name: value for name, value in line.items() if not name.startswith(("time/", "system/"))}
        for line in read_metrics(path)
    ]


def test_a_sweep_runs_to_its_json_line_and_goes_on_with_what_is_missing(tmp_path):
    run = tmp_path / "run"
    args = (*TINY, SWEEP, f"--workdir={run}", f"--config.dataset.data_dir={tmp_path / 'data'}")
    done = binary(*args)
    assert done.returncode == 0, done.stderr
    (line,) = done.stdout.splitlines()
    result = json.loads(line)
    assert [entry["setting"] for entry in result["sweep"]] == [{"batch_size": 16}, {"batch_size": 32}]
    folders = [run / "batch_size=16", run / "batch_size=32"]
    assert sorted(run.iterdir()) == folders
    for entry, folder in zip(result["sweep"], folders, strict=True):
        summary, config = entry["summary"], json.loads((folder / "config.json").read_text())
        assert summary["step"] == 20 and summary["score"] is None and summary["workdir"] == str(folder)
        assert {"batch_size": config["batch_size"]} == entry["setting"]
        assert labels(config) == [
            {"seed": seed, "agent.learning_rate": rate} for rate in (1e-4, 0.01) for seed in (0, 1)
        ]
        raw = np.load(folder / "episodes.npz")["returns"]
        scores = normalized_score("Hopper-v4", raw[-1])
        assert scores.shape == (4, 2)
        for rows, rate, outcome in zip((slice(0, 2), slice(2, 4)), (1e-4, 0.01), summary["sweep"], strict=True):
            assert outcome["setting"] == {"agent.learning_rate": rate}
            assert outcome["score"] == pytest.approx(scores[rows].mean(), rel=1e-9)
            low, high = outcome["gain_interval"]
            assert low < outcome["score"] - summary["behaviour_score"] < high
        losses = np.asarray([line["actor/loss"] for line in untimed(folder / "metrics.jsonl") if "actor/loss" in line])
        assert losses.shape == (2, 4)
        assert (losses[1, 2:] < losses[1, :2]).all(), "the larger of the rates learns faster"
    # The second of the sequence is lost: only it is trained again, to the same numbers.
    finished, lost = (folders[0] / "metrics.jsonl").read_bytes(), untimed(folders[1] / "metrics.jsonl")
    shutil.rmtree(folders[1])
    again = binary(*args)
    assert again.returncode == 0, again.stderr
    assert again.stderr.count("nothing to train") == 1
    assert (folders[0] / "metrics.jsonl").read_bytes() == finished
    assert untimed(folders[1] / "metrics.jsonl") == lost
    for entry, other in zip(result["sweep"], json.loads(again.stdout)["sweep"], strict=True):
        assert entry["summary"]["sweep"] == other["summary"]["sweep"]


@pytest.mark.parametrize("sweep, message", [
    ("agent.learning_rat=0.1", "did you mean agent.learning_rate"),
    ("agent.learning_rate=fast", "must be a finite number, like 0.0003"),
    ("batch_size=16,", "a value is missing"),
    ("agent.name=bc,iql", "chooses an algorithm"),
])
def test_a_bad_sweep_is_one_clear_line_and_leaves_nothing(sweep, message, tmp_path):
    done = binary(*TINY, f"--config.sweep={sweep}", f"--workdir={tmp_path / 'run'}")
    assert done.returncode != 0
    assert message in done.stderr and "Traceback" not in done.stderr, done.stderr
    assert done.stdout == "" and not (tmp_path / "run").exists()


def test_a_sequence_is_called_in_order_each_with_its_config_and_folder(tmp_path):
    config = toys.config(sweep="dataset.name=a/b,c; seed=3,5")
    config.dataset = {"name": ""}
    config.paper = config.preset = "toy"
    calls = []

    def main(own, workdir):
        calls.append((own.dataset.name, own.seed, own.sweep, workdir.relative_to(tmp_path).parts))
        if own.seed == 5 and own.dataset.name == "c":
            raise SystemExit(75)
        return {"score": own.seed}

    # A run that is told to stop ends the whole sequence.
    with pytest.raises(SystemExit):
        run_sequence(main, config, tmp_path, in_sequence(config))
    assert calls == [
        ("a/b", 3, "", ("dataset.name=a-b,seed=3",)), ("a/b", 5, "", ("dataset.name=a-b,seed=5",)),
        ("c", 3, "", ("dataset.name=c,seed=3",)), ("c", 5, "", ("dataset.name=c,seed=5",)),
    ]
    config.sweep = "seed=1,2"
    assert run_sequence(main, config, tmp_path, in_sequence(config))["sweep"] == [
        {"setting": {"seed": 1}, "summary": {"score": 1}}, {"setting": {"seed": 2}, "summary": {"score": 2}},
    ]
    (tmp_path / "config.json").touch()
    with pytest.raises(ValueError, match="holds a run, and a sweep makes folders in it: use another --workdir"):
        run_sequence(main, config, tmp_path, in_sequence(config))
