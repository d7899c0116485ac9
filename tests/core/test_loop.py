"""The loop: what all runs share, when it evaluates and stops, which checkpoint is the best, the profile."""

import json
import warnings

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rl_jax.core import loop
from rl_jax.core.experiment import Metric
from rl_jax.core.mesh import gather
from rl_jax.core.metrics import read_metrics
from rl_jax.core.program import Evaluation
from tests.core import toys


def saved_steps(workdir):
    return sorted(int(path.name) for path in (workdir / "checkpoints").iterdir() if path.name.isdigit())


def training_lines(workdir):
    return [(line["step"], line["loss"]) for line in read_metrics(workdir / "metrics.jsonl") if "loss" in line]


# Resident


@pytest.fixture(scope="module")
def watched(tmp_path_factory):
    """A run on eight devices whose resident lies by rules; what init, step and evaluate saw, and its folder."""
    seen, workdir = {"init": [], "step": [], "evaluate": []}, tmp_path_factory.mktemp("resident")

    def noted(name, function, at=1):
        def called(*arguments):
            seen[name].append(arguments[at])
            return function(*arguments)

        return called

    def evaluate(state, resident, key):
        del state, key
        return Evaluation({"eval/rows": float(resident["x"].shape[0])})

    program = toys.program()
    experiment = toys.experiment(
        init=noted("init", program.init), step=noted("step", program.step), evaluate=noted("evaluate", evaluate)
    )
    config = toys.config(**{"resident_rules": (("^x$", ("data", None)),), "loop.eval_every": 10})
    with warnings.catch_warnings():
        warnings.filterwarnings("error", message=".*donated.*")
        result = loop.run(experiment, config, workdir)
    return result, seen, workdir


def test_the_resident_lies_as_its_rules_say(watched):
    result, _, _ = watched
    assert {shard.data.shape for shard in result.resident["x"].addressable_shards} == {(8, 4)}
    assert result.resident["y"].sharding.is_fully_replicated and len(result.resident["y"].devices()) == 8
    assert np.array_equal(gather(result.resident["x"]), toys.make_data()["x"])


def test_the_resident_is_an_argument_and_never_donated(watched):
    result, seen, _ = watched
    for name in ("init", "step"):
        assert seen[name] and all(isinstance(x["x"], jax.core.Tracer) for x in seen[name]), name
    first, second = seen["evaluate"]
    assert first["x"] is second["x"] is result.resident["x"], "it is uploaded once"
    assert not first["x"].is_deleted()


def test_the_resident_is_no_part_of_a_checkpoint(watched):
    _, _, workdir = watched
    metadata = json.loads((workdir / "checkpoints" / "20" / "state" / "_METADATA").read_text())
    assert "kernel" in str(metadata) and "'x'" not in str(metadata)
    stored = sum(path.stat().st_size for path in (workdir / "checkpoints" / "20" / "state").rglob("*"))
    assert stored < 100_000


def test_a_sharded_resident_gives_the_numbers_of_one_device(watched, tmp_path):
    result, _, workdir = watched
    alone = loop.run(toys.experiment(), toys.config(**{"mesh.data": 8}), tmp_path)
    np.testing.assert_allclose(
        gather(result.state.params["net"]["out"]), gather(alone.state.params["net"]["out"]), atol=1e-5
    )
    assert training_lines(workdir) == [(step, pytest.approx(loss, rel=1e-5)) for step, loss in training_lines(tmp_path)]


def test_a_resident_may_hold_what_a_step_needs_frozen(tmp_path):
    """A network, a random key and numbers, shared by runs side by side."""
    teacher = {"w": np.ones((4, 1), np.float32)}
    resident = toys.make_data() | {"teacher": teacher, "key": jax.random.key(3), "scale": 2.0}

    def step(state, resident, batch, key):
        own = {"x": resident["x"], "y": resident["scale"] * resident["x"] @ resident["teacher"]["w"]}
        new, metrics = toys.step(state, own, batch, key)
        return new, metrics | {"noise": jax.random.normal(resident["key"])}

    result = loop.run(toys.experiment(step=step, resident=resident), toys.config(num_seeds=2), tmp_path)
    noise = read_metrics(tmp_path / "metrics.jsonl")[0]["noise"]
    assert noise == pytest.approx([float(jax.random.normal(jax.random.key(3)))] * 2, rel=1e-5)
    assert float(result.resident["scale"]) == 2.0


# When it evaluates and when it stops


def counting(values):
    """An evaluation that gives the values one after another, and the steps at which it was asked."""
    asked = []

    def evaluate(state, resident, key):
        del resident, key
        asked.append(int(state.step))
        return Evaluation({"eval/loss": values(int(state.step))})

    return evaluate, asked


OFTEN = {"loop.eval_every": 4, "checkpoint.every": 8}


@pytest.mark.parametrize("at_start, steps", [(False, [4, 8, 12, 16, 20]), (True, [0, 4, 8, 12, 16, 20])])
def test_evaluation_at_the_start(at_start, steps, tmp_path):
    evaluate, asked = counting(float)
    experiment, config = toys.experiment(evaluate=evaluate), toys.config(**OFTEN, **{"loop.eval_at_start": at_start})
    result = loop.run(experiment, config, tmp_path)
    assert asked == steps == [evaluation["step"] for evaluation in result.evaluations]
    assert loop.run(experiment, config, tmp_path).evaluations == result.evaluations
    assert asked == steps, "a finished run evaluates nothing"


def test_no_step_evaluates_the_start(tmp_path):
    evaluate, asked = counting(float)
    result = loop.run(toys.experiment(evaluate=evaluate), toys.config(num_steps=0), tmp_path)
    assert (asked, result.step, result.updates_per_s) == ([0], 0, 0.0)


def test_done_stops_early_and_is_finished(tmp_path):
    evaluate, asked = counting(float)
    told = []

    def done(evaluations):
        told.append([evaluation["step"] for evaluation in evaluations])
        return evaluations[-1]["eval/loss"] >= 12

    experiment, config = toys.experiment(evaluate=evaluate, done=done), toys.config(**OFTEN, num_steps=1000)
    result = loop.run(experiment, config, tmp_path)
    assert (result.step, asked) == (12, [4, 8, 12])
    assert told[-1] == [4, 8, 12]
    assert saved_steps(tmp_path)[-1] == 12, "the state at the end is saved though no save was due"
    assert read_metrics(tmp_path / "metrics.jsonl")[-1]["step"] == 12 and training_lines(tmp_path)[-1][0] == 12
    again = loop.run(experiment, config, tmp_path)
    assert (again.step, again.trained_steps, asked) == (12, 0, [4, 8, 12])
    assert again.evaluations == result.evaluations
    ends = [start["end"] for start in json.loads((tmp_path / "provenance.json").read_text())["starts"]]
    assert [(end["state"], end["step"]) for end in ends] == [("finished", 12)] * 2


def test_done_that_asks_for_more_lets_a_finished_run_go_on(tmp_path):
    evaluate, _ = counting(float)

    def until(level):
        return toys.experiment(evaluate=evaluate, done=lambda evaluations: evaluations[-1]["eval/loss"] >= level)

    config = toys.config(**OFTEN, num_steps=40)
    assert loop.run(until(8), config, tmp_path).step == 8
    longer = loop.run(until(16), config, tmp_path)
    assert (longer.step, longer.trained_steps) == (16, 8)
    assert [evaluation["step"] for evaluation in longer.evaluations] == [4, 8, 12, 16]


# The best checkpoint


@pytest.mark.parametrize("better, best", [("lower", 8), ("higher", 4)])
def test_the_headlines_direction_chooses_the_checkpoint_that_is_kept(better, best, tmp_path):
    evaluate, _ = counting({4: 9.0, 8: 1.0, 12: 5.0, 16: 3.0, 20: 2.0}.get)
    config = toys.config(**{"loop.eval_every": 4, "checkpoint.every": 4, "checkpoint.keep": 2})
    experiment = toys.experiment(Metric("eval/loss", "loss", better), evaluate=evaluate)
    loop.run(experiment, config, tmp_path)
    assert saved_steps(tmp_path) == [best, 16, 20]


def test_a_headline_that_is_not_finite_is_never_the_best(tmp_path):
    evaluate, _ = counting({4: 9.0, 8: -jnp.inf, 12: jnp.nan, 16: 3.0, 20: 2.0}.get)
    config = toys.config(**{"loop.eval_every": 4, "checkpoint.every": 4, "checkpoint.keep": 1})
    result = loop.run(toys.experiment(evaluate=evaluate), config, tmp_path)
    assert saved_steps(tmp_path) == [20]
    assert [evaluation["eval/loss"] for evaluation in result.evaluations] == [9.0, None, None, 3.0, 2.0]


# The profile


def test_the_first_steps_of_a_start_are_traced(tmp_path):
    result = loop.run(toys.experiment(), toys.config(profile=3), tmp_path)
    assert list(tmp_path.glob("profile/plugins/profile/*/*.xplane.pb"))
    plain = loop.run(toys.experiment(), toys.config(), tmp_path / "plain")
    assert jax.tree.all(jax.tree.map(np.array_equal, result.state, plain.state))
    assert not (tmp_path / "plain" / "profile").exists()


def test_a_trace_ends_with_a_run_that_is_shorter(tmp_path):
    loop.run(toys.experiment(), toys.config(profile=500), tmp_path)
    assert list(tmp_path.glob("profile/plugins/profile/*/*.xplane.pb"))
    with jax.profiler.trace(str(tmp_path / "another")):  # nothing holds the profiler
        pass
