"""Provenance: a run's folder describes itself and belongs to one configuration."""

import json

import pytest

from rl_jax.core.provenance import check_same_run, record
from tests.core import toys


def test_each_start_is_recorded(tmp_path):
    config = toys.config()
    record(tmp_path, config, 0, {"dataset": "a"})
    record(tmp_path, config, 10, {"dataset": "a"})
    starts = json.loads((tmp_path / "provenance.json").read_text())["starts"]
    assert [start["step"] for start in starts] == [0, 10]
    assert {"time", "command", "git", "python", "packages", "devices", "inputs"} <= starts[0].keys()
    assert "jax" in starts[0]["packages"]
    assert starts[0]["devices"]["count"] == 8
    assert json.loads((tmp_path / "config.json").read_text())["num_steps"] == config.num_steps
    assert sorted(path.name for path in tmp_path.iterdir()) == ["config.json", "provenance.json"]


def test_other_inputs_are_refused(tmp_path):
    record(tmp_path, toys.config(), 0, {"checksum": "abc"})
    before = (tmp_path / "provenance.json").read_text()
    with pytest.raises(ValueError, match="was trained on checksum = 'abc' and this start has 'xyz'"):
        record(tmp_path, toys.config(), 0, {"checksum": "xyz"})
    assert (tmp_path / "provenance.json").read_text() == before


def test_another_config_is_refused_and_named(tmp_path):
    check_same_run(tmp_path, toys.config())
    record(tmp_path, toys.config(), 0, {})
    with pytest.raises(ValueError, match="seed: 0 there, 1 here.*another --workdir"):
        check_same_run(tmp_path, toys.config(seed=1))


def test_a_field_that_an_older_release_did_not_know_has_no_effect_while_it_is_empty(tmp_path):
    record(tmp_path, toys.config(), 0, {})
    config = toys.config()
    config.later = {"name": "", "pair": ()}
    check_same_run(tmp_path, config)
    config.later.pair = (0.0, 1.0)
    with pytest.raises(ValueError, match=r"later.pair: 'absent' there, \[0.0, 1.0\] here"):
        check_same_run(tmp_path, config)


@pytest.mark.parametrize("field, value", [
    ("num_steps", 99), ("loop.chunk", 7), ("loop.on_nan", "skip"), ("checkpoint.keep", 4), ("mesh.data", 1),
    ("tensorboard", True), ("distributed.num_processes", 2), ("profile", 5), ("resident_rules", ((".*", "fsdp"),)),
])
def test_how_long_and_where_may_change(field, value, tmp_path):
    record(tmp_path, toys.config(), 0, {})
    check_same_run(tmp_path, toys.config(**{field: value}))


START = {"time": "2026-01-02T03:04:05.000+00:00", "inputs": {}}


@pytest.mark.parametrize("name, content, message", [
    ("config.json", "[1]", "config.json is damaged, it is not a JSON object: restore it from a copy"),
    ("provenance.json", "1", "provenance.json is damaged, it is not a JSON object"),
    ("provenance.json", '{"starts": [1]}', "provenance.json is damaged, it lists no starts"),
    ("provenance.json", json.dumps({"starts": [{"time": START["time"]}]}), "the inputs of a start is None"),
    ("provenance.json", json.dumps({"starts": [START | {"end": "x"}]}), "the end of a start is 'x'"),
    ("provenance.json", json.dumps({"starts": [START | {"time": 3}]}), "the time of a start is 3"),
    ("provenance.json", json.dumps({"starts": [START | {"time": "soon"}]}), "the time of a start is 'soon': restore"),
])
def test_a_damaged_record_is_named_and_left_as_it_is(tmp_path, name, content, message):
    record(tmp_path, toys.config(), 0, {})
    (tmp_path / name).write_text(content)
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    with pytest.raises(ValueError, match=message):
        check_same_run(tmp_path, toys.config())
        record(tmp_path, toys.config(), 10, {})
    assert before == {path.name: path.read_bytes() for path in tmp_path.iterdir()}
