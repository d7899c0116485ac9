"""The metrics file: one line once, numbers that JSON holds, TensorBoard beside it."""

import json

import numpy as np
import pytest
from tensorboardX.proto import event_pb2

from rl_jax.core.metrics import MetricWriter, plain, read_metrics


def writer(workdir, step=0, lines=0, tensorboard=False):
    return MetricWriter(workdir, step=step, lines=lines, tensorboard=tensorboard, wandb_project="", config={})


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
