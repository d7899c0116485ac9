"""Weights of an earlier stage: which leaves are taken, for how many runs, and what a source must be."""

import json
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rl_jax.core import init_from, loop
from rl_jax.core.checkpoint import CheckpointMismatchError
from rl_jax.core.runtime import Preempted
from tests.core import toys
from tests.core.test_feed import lengths_in_turn, stopping


def leaves(state):
    return jax.tree.map(np.asarray, {"params": state.params, "opt_state": state.opt_state, "extra": state.extra})


@pytest.fixture(scope="module")
def stages(tmp_path_factory):
    """A finished run of one seed and one of two: (folder, its leaves) by number of runs."""
    found = {}
    for runs in (1, 2):
        folder = tmp_path_factory.mktemp(f"stage_{runs}")
        found[runs] = folder, leaves(loop.run(toys.experiment(), toys.config(num_seeds=runs, seed=5), folder).state)
    return found


def start_from(source, workdir, names=".*", experiment=None, **fields):
    """The state before the first step: nothing is trained."""
    config = toys.config(**{"init_from.run": str(source), "init_from.names": names, "num_steps": 0} | fields)
    return loop.run(experiment or toys.experiment(), config, workdir)


def test_all_leaves_but_the_step_are_taken(stages, tmp_path):
    source, wanted = stages[1]
    result = start_from(source, tmp_path)
    assert result.step == 0 and int(result.state.step) == 0
    assert jax.tree.all(jax.tree.map(np.array_equal, leaves(result.state), wanted))
    inputs = json.loads((tmp_path / "provenance.json").read_text())["starts"][0]["inputs"]["init_from"]
    assert inputs == {"run": str(source), "step": 20, "names": ".*", "leaves": 7}


def test_names_choose_the_leaves(stages, tmp_path):
    source, wanted = stages[1]
    result = start_from(source, tmp_path / "some", names="params/net/kernel|opt_state/.*mu/net/out")
    scratch = leaves(loop.run(toys.experiment(), toys.config(num_steps=0), tmp_path / "none").state)
    got = leaves(result.state)
    for name, own in [("kernel", wanted), ("out", scratch)]:
        assert np.array_equal(got["params"]["net"][name], own["params"]["net"][name]), name
    moments = [tree["opt_state"][0] for tree in (got, wanted, scratch)]
    assert np.array_equal(moments[0].mu["net"]["out"], moments[1].mu["net"]["out"])
    assert np.array_equal(moments[0].nu["net"]["out"], moments[2].nu["net"]["out"])
    assert int(moments[0].count[0]) == 0


@pytest.mark.parametrize("there, here, row", [(1, 3, lambda run: 0), (2, 2, lambda run: run)])
def test_one_run_serves_all_and_as_many_serve_each(there, here, row, stages, tmp_path):
    source, wanted = stages[there]
    got = leaves(start_from(source, tmp_path, num_seeds=here).state)
    for one, other in zip(jax.tree.leaves(got), jax.tree.leaves(wanted), strict=True):
        assert all(np.array_equal(one[run], other[row(run)]) for run in range(here))


def test_leaves_lie_as_the_new_runs_rules_say(stages, tmp_path):
    source, wanted = stages[1]
    rules = {"sharding_rules": (("kernel", (None, "data")), (".*", "replicate")), "num_seeds": 2, "mesh.seed": 2}
    state = start_from(source, tmp_path, **rules).state
    kernel = state.params["net"]["kernel"]
    assert {shard.data.shape for shard in kernel.addressable_shards} == {(1, 4, 4)}
    assert np.array_equal(np.asarray(kernel)[1], wanted["params"]["net"]["kernel"][0])


def test_training_goes_on_from_them(stages, tmp_path):
    source, _ = stages[1]
    losses = []
    for name, fields in [("from", {"init_from.run": str(source)}), ("scratch", {})]:
        loop.run(toys.experiment(), toys.config(num_steps=10, **fields), tmp_path / name)
        lines = (tmp_path / name / "metrics.jsonl").read_text().splitlines()
        losses.append(json.loads(lines[0])["loss"])
    assert losses[0] < 0.95 * losses[1]


def test_a_resumed_run_takes_its_own(stages, tmp_path):
    """The source may even be gone by then."""
    source, _ = stages[1]
    own = tmp_path / "source"
    shutil.copytree(source, own)
    config = toys.config(**{"init_from.run": str(own)})
    feed = stopping(lengths_in_turn(), 6)
    with pytest.raises(Preempted):
        loop.run(toys.experiment(feed=feed), config, tmp_path / "run")
    shutil.rmtree(own)
    resumed = loop.run(toys.experiment(feed=lengths_in_turn()), config, tmp_path / "run")
    assert resumed.trained_steps == 14
    whole = toys.config(**{"init_from.run": str(source)})
    alone = loop.run(toys.experiment(feed=lengths_in_turn()), whole, tmp_path / "whole")
    assert jax.tree.all(jax.tree.map(np.array_equal, leaves(resumed.state), leaves(alone.state)))


@pytest.fixture
def unfinished(tmp_path):
    folder = tmp_path / "unfinished"
    with pytest.raises(Preempted):
        loop.run(toys.experiment(feed=stopping(lengths_in_turn(), 6)), toys.config(), folder)
    return folder


def test_an_unfinished_source_is_told(unfinished, tmp_path):
    with pytest.raises(ValueError, match="unfinished is preempted: give its command again, then this one"):
        start_from(unfinished, tmp_path / "run")
    record = json.loads((unfinished / "provenance.json").read_text())
    del record["starts"][-1]["end"]
    (unfinished / "provenance.json").write_text(json.dumps(record))
    with pytest.raises(ValueError, match="unfinished is not finished: give its command again"):
        start_from(unfinished, tmp_path / "run")


def wider(key, resident):
    del resident
    params = {"net": {"kernel": jax.random.normal(key, (4, 32)), "out": jnp.zeros((32, 1))}}
    return toys.TrainState.create(params, toys.OPTIMIZER.init(params))


@pytest.mark.parametrize("fields, parts, message", [
    ({"init_from.run": "/nowhere/run"}, {}, "init_from.run=/nowhere/run is not the --workdir of a finished run"),
    ({"init_from.names": "params/("}, {}, r"init_from.names=params/\( is not a regular expression"),
    ({"init_from.names": "critic"}, {}, "init_from.names=critic finds no leaf of this run's state"),
    ({"num_seeds": 3}, {}, "has 2 runs, and this one 3: give 1 or as many"),
    ({}, {"init": wider}, r"params/net/kernel: \(4, 16\), and this run \(4, 32\): choose the leaves that both"),
    ({}, {"init": lambda key, resident: toys.init(key, None).replace(extra={"mean": jnp.zeros(3)})},
     r"extra/mean: None, and this run \(3,\)"),
])
def test_a_source_that_does_not_fit_is_told(fields, parts, message, stages, tmp_path):
    with pytest.raises((ValueError, FileNotFoundError, CheckpointMismatchError), match=message):
        start_from(stages[2][0], tmp_path, experiment=toys.experiment(**parts), **{"num_seeds": 2} | fields)
    assert not (tmp_path / "metrics.jsonl").exists()


def test_a_source_that_read_something_else_is_warned_of(stages, tmp_path, monkeypatch):
    said = []
    monkeypatch.setattr(init_from.logging, "warning", lambda text, *values: said.append(text % values))
    record = json.loads((stages[1][0] / "provenance.json").read_text())
    source = shutil.copytree(stages[1][0], tmp_path / "source")
    record["starts"][0]["inputs"] = {"checksum": "abc", "dataset": "hopper"}
    (source / "provenance.json").write_text(json.dumps(record))
    start_from(source, tmp_path / "run", experiment=toys.experiment()._replace(inputs={"checksum": "xyz"}))
    assert said == [f"--config.init_from.run={source} has read checksum = 'abc', and this run 'xyz'"]


def test_a_source_that_never_saved_is_told(tmp_path):
    loop.run(toys.experiment(), toys.config(num_steps=0), tmp_path / "source")
    with pytest.raises(FileNotFoundError, match="holds no checkpoint: the run has not saved yet"):
        start_from(tmp_path / "source", tmp_path / "run")
