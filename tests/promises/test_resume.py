"""Exact resume: a run that was stopped and started again is bitwise the run that was not."""

import json
from types import SimpleNamespace

import jax
import numpy as np
import pytest

from rl_jax.core import loop
from rl_jax.core.fused import STREAMS
from rl_jax.core.metrics import read_metrics
from rl_jax.core.runtime import PREEMPTED_EXIT_CODE, Preempted
from tests.papers import one_a_family
from tests.promises.cases import STEPS, TOY
from tests.promises.runner import assert_same, execute, finish, signal_at, start, untimed


def stop_at(step, case, workdir, overrides=None, **more):
    """Trains until a SIGTERM at `step`."""
    with signal_at(step), pytest.raises(Preempted) as stopped:
        execute(case, workdir, overrides, **more)
    assert stopped.value.code == PREEMPTED_EXIT_CODE
    assert stopped.value.step == step


def test_a_stopped_run_goes_on_bitwise(case, unbroken, tmp_path):
    """Stopped inside a log interval, between two saves."""
    stop_at(STEPS // 2 - 2, case, tmp_path)
    rest = execute(case, tmp_path)
    assert rest.result.trained_steps == STEPS // 2 + 2
    assert_same(rest, unbroken(case))


@pytest.mark.parametrize("case", one_a_family())
def test_a_fresh_process_continues_bitwise(case, unbroken, tmp_path):
    """Another process is also a repetition of the day."""
    stop_at(STEPS // 2 - 2, case, tmp_path)
    ended = finish(start(case, tmp_path))
    assert ended.code == 0, ended.stderr
    (report,) = ended.reports
    assert report["trained_steps"] == STEPS // 2 + 2
    assert report["hashes"] == unbroken(case).hashes
    assert report["evaluations"] == unbroken(case).result.evaluations
    assert untimed(read_metrics(tmp_path / "metrics.jsonl")) == unbroken(case).lines


def test_stops_at_every_edge_change_nothing(unbroken, tmp_path):
    stop_at(0, TOY, tmp_path)
    stop_at(1, TOY, tmp_path, {"loop.chunk": 1})
    stop_at(4, TOY, tmp_path, {"loop.chunk": 1})  # inside a log interval
    stop_at(8, TOY, tmp_path)  # where a save is due
    stop_at(12, TOY, tmp_path)  # where a line and an evaluation are due
    stop_at(STEPS, TOY, tmp_path)  # trained, but neither evaluated nor finished
    records = json.loads((tmp_path / "checkpoints" / str(STEPS) / "records" / "metadata").read_text())
    assert records["evaluated"] == STEPS // 2
    last = execute(TOY, tmp_path)
    assert last.result.trained_steps == 0
    assert_same(last, unbroken(TOY))
    assert_same(execute(TOY, tmp_path), unbroken(TOY))


def test_a_finished_run_trains_nothing_and_says_so(unbroken, tmp_path, monkeypatch):
    execute(TOY, tmp_path)
    written = [tmp_path / "metrics.jsonl", tmp_path / "outcomes.npz", *tmp_path.glob("checkpoints/*/records/*")]
    files = {path: path.read_bytes() for path in written}
    said = []
    listening = SimpleNamespace(info=lambda message, *values: said.append(message % values), warning=said.append)
    monkeypatch.setattr(loop, "logging", listening)
    again = execute(TOY, tmp_path)
    assert again.result.trained_steps == 0
    assert any("finished" in line and "nothing to train" in line for line in said)
    assert_same(again, unbroken(TOY))
    assert {path: path.read_bytes() for path in files} == files
    assert len(json.loads((tmp_path / "provenance.json").read_text())["starts"]) == 2


def test_a_finished_run_can_be_extended(unbroken, tmp_path):
    execute(TOY, tmp_path, {"num_steps": STEPS // 2})
    longer = execute(TOY, tmp_path)
    assert longer.result.trained_steps == STEPS // 2
    assert_same(longer, unbroken(TOY))


# The keys: the batch of a step is a pure function of (seed, step), whatever was stopped on the way.

SEED = 7


def small_number(words):
    """Of 18 bits: float32 sums a window of them exactly."""
    return words[0] >> 14


def reporting_its_key(program):
    """The program with the key of every step as a metric."""

    def step(state, resident, batch, key):
        new, metrics = program.step(state, resident, batch, key)
        return new, metrics | {"key": small_number(jax.random.key_data(key)).astype("float32")}

    return program._replace(step=step)


def test_keys_are_a_function_of_seed_and_step(tmp_path):
    def key_of(step):
        return jax.random.fold_in(jax.random.fold_in(jax.random.key(STREAMS["train"]), SEED), step)

    stop_at(10, TOY, tmp_path, {"seed": SEED}, change=reporting_its_key)
    lines = execute(TOY, tmp_path, {"seed": SEED}, change=reporting_its_key).lines
    seen = {line["step"]: line["key"] for line in lines if "key" in line}
    numbers = [int(small_number(jax.random.key_data(key_of(step)))) for step in range(STEPS)]
    expected = {end: np.float32(sum(numbers[end - 6 : end])) / 6 for end in range(6, STEPS + 1, 6)}
    assert seen == pytest.approx(expected, rel=1e-7)
