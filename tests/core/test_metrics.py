"""The metrics file: one line once, numbers that JSON holds, TensorBoard beside it."""

import importlib.util
import json
import sys
from types import SimpleNamespace

import numpy as np
import pytest
from tensorboardX.proto import event_pb2

from rl_jax.core import loop
from rl_jax.core.extras import MissingExtraError
from rl_jax.core.metrics import MetricWriter, plain, read_metrics
from tests.core import toys


def writer(workdir, step=0, lines=0, tensorboard=False, wandb_project=""):
    return MetricWriter(
        workdir, step=step, lines=lines, tensorboard=tensorboard, wandb_project=wandb_project, config={"seed": 1}
    )


def test_a_value_is_a_number_a_list_or_null():
    assert plain(np.float32(0.5)) == 0.5
    assert plain(np.asarray([2])) == 2.0
    assert plain(np.asarray([1.0, np.nan])) == [1.0, None]
    assert plain(float("inf")) is None


def test_a_resumed_writer_drops_what_came_after_the_checkpoint(tmp_path):
    first = writer(tmp_path)
    for step in (1, 2, 3):
        first.write(step, {"loss": step / 2, "bad": np.nan, "runs": np.asarray([1.0, 2.0])})
    first.close()
    with (tmp_path / "metrics.jsonl").open("a") as file:
        file.write('{"step": 4, "lo')  # a kill in the middle of a line
    assert [line["step"] for line in read_metrics(tmp_path / "metrics.jsonl")] == [1, 2, 3]
    second = writer(tmp_path, step=2, lines=2)
    second.write(3, {"loss": 7.0})
    second.close()
    lines = read_metrics(tmp_path / "metrics.jsonl")
    assert lines[0] == {"step": 1, "loss": 0.5, "bad": None, "runs": [1.0, 2.0]}
    assert [(line["step"], line["loss"]) for line in lines] == [(1, 0.5), (2, 1.0), (3, 7.0)]
    assert all(json.loads(text) for text in (tmp_path / "metrics.jsonl").read_text().splitlines())


def scalars(folder):
    """What is in the event files, by TensorFlow's record format: length, its checksum, data, its checksum."""
    for path in sorted(folder.iterdir()):
        raw, at = path.read_bytes(), 0
        while at < len(raw):
            length = int.from_bytes(raw[at : at + 8], "little")
            event = event_pb2.Event.FromString(raw[at + 12 : at + 12 + length])
            at += length + 16
            for value in event.summary.value:
                yield event.step, value.tag, value.simple_value


def test_tensorboard_has_the_mean_over_runs(tmp_path):
    board = writer(tmp_path, tensorboard=True)
    board.write(5, {"critic/loss": np.asarray([1.0, 2.0])})
    board.close()
    assert list(scalars(tmp_path / "tensorboard")) == [(5, "critic/loss", pytest.approx(1.5))]


# Weights & Biases


@pytest.fixture
def wandb(monkeypatch):
    """The calls that W&B gets, by a stand-in of its module: init, log and finish."""
    calls = []

    def init(**arguments):
        calls.append(("init", arguments))
        return SimpleNamespace(
            log=lambda values, step: calls.append(("log", step, values)), finish=lambda: calls.append(("finish",))
        )

    monkeypatch.setitem(sys.modules, "wandb", SimpleNamespace(init=init))
    return calls


def test_a_run_is_logged_to_wandb_and_goes_on_there(tmp_path, wandb):
    for num_steps in (10, 20):
        loop.run(toys.experiment(), toys.config(num_steps=num_steps, num_seeds=2, wandb_project="toys"), tmp_path)
    kinds = [call[0] for call in wandb]
    assert kinds == ["init", "log", "finish"] * 2
    first, second = (call[1] for call in wandb if call[0] == "init")
    assert (first["project"], first["name"], first["resume"]) == ("toys", tmp_path.name, "allow")
    assert first["id"] == second["id"] and second["config"]["num_steps"] == 20
    lines = [line for line in read_metrics(tmp_path / "metrics.jsonl") if "loss" in line]
    logged = [call for call in wandb if call[0] == "log"]
    assert [step for _, step, _ in logged] == [10, 20]
    for line, (_, _, values) in zip(lines, logged, strict=True):
        assert values.keys() == line.keys() - {"step"}
        assert values["loss"] == pytest.approx(np.mean(line["loss"]))


def test_wandb_is_finished_however_a_run_ends(tmp_path, wandb):
    def evaluate(*arguments):
        raise RuntimeError("the simulator broke")

    with pytest.raises(RuntimeError, match="simulator broke"):
        loop.run(toys.experiment(evaluate=evaluate), toys.config(num_steps=4, wandb_project="toys"), tmp_path)
    assert wandb[-1] == ("finish",)


def test_wandb_that_is_not_installed_is_named(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "wandb", None)
    with pytest.raises(MissingExtraError, match=r"wandb is not installed: pip install 'rl_jax\[wandb\]'"):
        writer(tmp_path, wandb_project="toys")


@pytest.mark.skipif(importlib.util.find_spec("wandb") is None, reason="wandb is not installed")
def test_the_real_wandb_in_offline_mode(tmp_path, monkeypatch):
    """Shown once the extra is there: what the stand-in above takes is what the module takes."""
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_SILENT", "true")
    offline = writer(tmp_path, wandb_project="toys")
    offline.write(5, {"critic/loss": np.asarray([1.0, 2.0])})
    offline.close()
    assert list(tmp_path.glob("wandb/offline-run-*/run-*.wandb"))
