"""Records of a run that were changed behind its back are told: nothing is lost or read wrong without a word."""

import json
import shutil

import numpy as np
import pytest
from absl import logging

from rl_jax.core import loop
from rl_jax.core.experiment import Metric
from rl_jax.core.files import hold
from rl_jax.core.program import Evaluation
from tests.core import toys

LONGER = {"num_steps": 30}


def evaluate(state, resident, key):
    return Evaluation(outcomes={"loss": np.zeros((1, 2)) + int(state.step)})


def train(workdir, **fields):
    return loop.run(toys.experiment(evaluate=evaluate), toys.config(**{"loop.eval_every": 10} | fields), workdir)


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    workdir = tmp_path_factory.mktemp("finished")
    train(workdir)
    return workdir


@pytest.fixture
def workdir(finished, tmp_path):
    return shutil.copytree(finished, tmp_path / "run")


@pytest.fixture
def warnings(monkeypatch):
    said = []
    monkeypatch.setattr(logging, "warning", lambda text, *values: said.append(text % values))
    return said


def cut(path):
    path.write_bytes(path.read_bytes()[:-30])


def change(path):
    path.write_bytes(path.read_bytes().replace(b'"step": 10', b'"step": 11', 1))


@pytest.mark.parametrize("name, damage, message", [
    ("metrics.jsonl", lambda path: path.unlink(), "metrics.jsonl has 0 of the 4 lines"),
    ("metrics.jsonl", cut, "metrics.jsonl has 3 of the 4 lines"),
    ("metrics.jsonl", change, "metrics.jsonl is not what the run had written"),
    ("outcomes.npz", lambda path: path.unlink(), "outcomes.npz lacks evaluations"),
])
def test_a_resume_goes_on_and_says_what_its_records_lack(workdir, warnings, name, damage, message):
    damage(workdir / name)
    assert train(workdir, **LONGER).step == 30
    assert len([text for text in warnings if message in text]) == 1


def test_a_whole_record_is_no_warning(workdir, warnings):
    train(workdir, **LONGER)
    assert warnings == []


@pytest.mark.parametrize("name, content", [
    ("config.json", '{"seed": '), ("provenance.json", '{"starts": '), ("provenance.json", "[]"),
    ("provenance.json", '{"starts": []}'),
])
def test_a_damaged_record_is_one_error_that_names_it(workdir, name, content):
    (workdir / name).write_text(content)
    with pytest.raises(ValueError, match=f"{name} is damaged.*restore it"):
        train(workdir, **LONGER)


def test_changed_records_of_a_checkpoint_set_it_aside(workdir, warnings):
    path = workdir / "checkpoints" / "20" / "records" / "metadata"
    records = json.loads(path.read_text())
    path.write_text(json.dumps(records | {"lines": 3}))
    assert train(workdir, **LONGER).step == 30
    assert any("checkpoint of step 20 cannot be read (its records are not what was saved)" in text for text in warnings)


def test_a_folder_in_use_is_refused_and_untouched(workdir):
    before = {path: path.stat().st_mtime_ns for path in workdir.rglob("*") if path.is_file() and path.name != ".lock"}
    with hold(workdir / ".lock", ""), pytest.raises(ValueError, match="is in use by process .*: wait for it, stop it"):
        train(workdir, **LONGER)
    assert before == {path: path.stat().st_mtime_ns for path in before}


def test_a_headline_that_is_no_metric_is_told(tmp_path, warnings):
    loop.run(toys.experiment(Metric("eval/absent", ""), evaluate=evaluate), toys.config(), tmp_path)
    assert warnings == ["the headline eval/absent is not among the metrics: eval/loss"]
