"""Exact resume: a run that was stopped and started again is bitwise the run that was not."""

import json
import os
from types import SimpleNamespace

import pytest

from rl_jax.core import loop
from rl_jax.core.metrics import read_metrics
from rl_jax.core.runtime import PREEMPTED_EXIT_CODE, Preempted
from tests.promises.cases import CASES, STEPS
from tests.promises.runner import assert_same, execute, finish, signal_at, start, untimed


def stop_at(step, case, workdir, overrides=None):
    """Trains until a SIGTERM at `step`."""
    with signal_at(step), pytest.raises(Preempted) as stopped:
        execute(case, workdir, overrides)
    assert stopped.value.code == PREEMPTED_EXIT_CODE
    assert stopped.value.step == step


@pytest.fixture(scope="module")
def second_halves(request, tmp_path_factory):
    """Every case that is asked for, stopped here and finished in a process that never trained it: {name: (report,
    lines)}."""
    tests = [item for item in request.session.items if item.function is test_a_fresh_process_continues_bitwise]
    cases = [item.callspec.params["case"] for item in tests]
    folders = {case.name: tmp_path_factory.mktemp(f"halves_{case.name}") for case in cases}
    for case in cases:
        stop_at(STEPS // 2 - 2, case, folders[case.name])
    ended = finish(start(list(folders.items())), timeout=240 + 60 * len(folders))
    assert ended.code == 0, ended.stderr
    lines = {name: untimed(read_metrics(folder / "metrics.jsonl")) for name, folder in folders.items()}
    return {name: (report, lines[name]) for name, report in zip(folders, ended.reports, strict=True)}


def test_a_fresh_process_continues_bitwise(case, unbroken, second_halves):
    report, lines = second_halves[case.name]
    assert report["trained_steps"] == STEPS // 2 + 2
    assert report["hashes"] == unbroken(case).hashes
    assert report["evaluations"] == unbroken(case).result.evaluations
    assert lines == unbroken(case).lines


def test_stops_at_every_edge_change_nothing(case, unbroken, tmp_path):
    stop_at(0, case, tmp_path)
    stop_at(1, case, tmp_path, {"loop.chunk": 1})
    stop_at(4, case, tmp_path, {"loop.chunk": 1})  # inside a log interval
    stop_at(8, case, tmp_path)  # where a save is due
    stop_at(12, case, tmp_path)  # where a line and an evaluation are due
    stop_at(STEPS, case, tmp_path)  # trained, but neither evaluated nor finished
    last = execute(case, tmp_path)
    assert last.result.trained_steps == 0
    assert_same(last, unbroken(case))


def test_a_finished_run_trains_nothing_and_says_so(case, unbroken, tmp_path, monkeypatch):
    execute(case, tmp_path)
    written = [tmp_path / "metrics.jsonl", *tmp_path.glob("checkpoints/*/records/*")]
    files = {path: path.read_bytes() for path in written}
    said = []
    listening = SimpleNamespace(info=lambda message, *values: said.append(message % values), warning=said.append)
    monkeypatch.setattr(loop, "logging", listening)
    again = execute(case, tmp_path)
    assert again.result.trained_steps == 0
    assert any("finished" in line and "nothing to train" in line for line in said)
    assert_same(again, unbroken(case))
    assert {path: path.read_bytes() for path in files} == files
    assert len(json.loads((tmp_path / "provenance.json").read_text())["starts"]) == 2


def test_a_finished_run_can_be_extended(case, unbroken, tmp_path):
    half = {"num_steps": STEPS // 2}
    execute(case, tmp_path, half)
    longer = execute(case, tmp_path)
    assert longer.result.trained_steps == STEPS // 2
    assert_same(longer, unbroken(case))


def test_the_last_evaluation_survives_a_stop_before_it(tmp_path):
    """The checkpoint of the stop has no evaluation yet; the next start adds it, and a third finds the same."""
    case = CASES[0]
    stop_at(STEPS, case, tmp_path)
    records = json.loads((tmp_path / "checkpoints" / str(STEPS) / "records" / "metadata").read_text())
    assert records["evaluated"] == STEPS // 2
    evaluations = execute(case, tmp_path).result.evaluations
    assert [evaluation["step"] for evaluation in evaluations] == [STEPS // 2, STEPS]
    assert execute(case, tmp_path).result.evaluations == evaluations
    assert len(read_metrics(tmp_path / "metrics.jsonl")) == 6
    assert os.listdir(tmp_path / "checkpoints")
