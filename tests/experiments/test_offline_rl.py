"""The offline RL binary as a person meets it: its last line, its files, your own data, and its errors."""

import json
import os
import subprocess
import sys
from pathlib import Path

import h5py
import numpy as np
import pytest

ROOT = Path(__file__).resolve().parents[2]
TINY = "--config=configs/offline_rl.py:tiny"


def binary(*args: str, cwd: Path = ROOT) -> subprocess.CompletedProcess:
    environment = os.environ | {"XLA_FLAGS": "", "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-m", "experiments.offline_rl.train", *args]
    return subprocess.run(command, cwd=cwd, env=environment, capture_output=True, text=True, timeout=300)


@pytest.fixture(scope="module")
def d4rl_file(tmp_path_factory) -> Path:
    """A file of random actions on made-up Hopper transitions in D4RL's layout: 3 episodes, one ended by time."""
    rng = np.random.default_rng(0)
    size, ends = 400, (119, 259, 399)
    fields = {
        "observations": rng.normal(size=(size, 11)), "actions": rng.uniform(-0.9, 0.9, size=(size, 3)),
        "rewards": rng.uniform(0, 3, size=size), "next_observations": rng.normal(size=(size, 11)),
    }
    fields["next_observations"][:-1] = fields["observations"][1:]
    path = tmp_path_factory.mktemp("d4rl") / "hopper.hdf5"
    with h5py.File(path, "w") as file:
        for name, values in fields.items():
            file[name] = values.astype(np.float32)
        file["terminals"] = np.isin(np.arange(size), ends[:2])
        file["timeouts"] = np.arange(size) == ends[2]
    return path


def test_a_d4rl_file_runs_to_its_json_line_and_a_second_start_trains_nothing(d4rl_file, tmp_path):
    args = (
        TINY, f"--workdir={tmp_path / 'run'}",
        f"--config.dataset.path={d4rl_file}", "--config.dataset.env_id=Hopper-v4",
        f"--config.dataset.data_dir={tmp_path / 'data'}", "--config.dataset.name=mine", "--config.dataset.num_steps=0",
    )
    done = binary(*args)
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert len(lines) == 1, "standard output is one JSON object"
    result = json.loads(lines[0])
    assert result["paper"] == "offline_rl" and result["preset"] == "tiny"
    assert result["step"] == 40 and result["seeds"] == 2 and result["updates_per_s"] > 0
    # By hand: the mean return of the three episodes on D4RL's scale for Hopper.
    with h5py.File(d4rl_file) as file:
        returns = [part.sum() for part in np.split(file["rewards"][:].astype(np.float64), (120, 260))]
    expected = 100 * (np.mean(returns) + 20.272305) / (3234.3 + 20.272305)
    assert result["behaviour_score"] == pytest.approx(expected, rel=1e-4)
    run = tmp_path / "run"
    files = {"metrics.jsonl", "episodes.npz", "learning_curve.png", "config.json", "provenance.json", "checkpoints"}
    assert files <= {path.name for path in run.iterdir()}
    raw = np.load(run / "episodes.npz")
    assert raw["steps"].tolist() == [20, 40] and raw["returns"].shape == (2, 2, 2)
    scores = 100 * (raw["returns"][-1] + 20.272305) / (3234.3 + 20.272305)
    assert result["score"] == pytest.approx(scores.mean(), rel=1e-9), "the score comes from the saved episodes"
    provenance = json.loads((run / "provenance.json").read_text())["starts"][0]
    assert provenance["inputs"]["dataset"] == "mine" and len(provenance["inputs"]["checksum"]) == 64

    again = binary(*args)
    assert again.returncode == 0 and "nothing to train" in again.stderr
    assert json.loads(again.stdout.splitlines()[-1]) == result

    other = binary(*args, "--config.agent.expectile=0.9")
    assert other.returncode == 1 and "agent.expectile: 0.7 there, 0.9 here" in other.stderr


@pytest.mark.parametrize(
    "args, message",
    [
        (("--config=configs/offline_rl.py:quik",), "did you mean quick"),
        (("--config=configs/offline_rl.py:iql/hoper-medium",), "iql/hopper-medium"),
        ((TINY, "--config.agent.expectil=0.9"), "expectile"),
        ((TINY, "--config.dataset.path=/no/such/file.hdf5"), "/no/such/file.hdf5"),
        ((TINY, "--config.mesh.data=3"), "config.mesh"),
        ((TINY, "--config.dataset.env_id=Walker2d-v4"), "Walker2d-v4 has observations (17,)"),
    ],
)
def test_bad_input_is_one_clear_line_and_leaves_nothing(args, message, tmp_path):
    done = binary(*args, f"--workdir={tmp_path / 'run'}")
    assert done.returncode != 0
    assert message in done.stderr and "Traceback" not in done.stderr, done.stderr
    assert done.stdout == "" and not (tmp_path / "run").exists()


def test_help_shows_what_a_person_needs():
    done = binary("--help")
    for word in ("--config", "--workdir", "quick", "--config.num_seeds", "--config.dataset.path"):
        assert word in done.stdout
