"""Sweeps: what is read from `config.sweep`, which run is which, and runs that differ by their settings."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from ml_collections import ConfigDict
from tensorboardX import SummaryWriter

from rl_jax.core.experiment import Experiment, Metric
from rl_jax.core.loop import run
from rl_jax.core.mesh import gather
from rl_jax.core.metrics import MetricWriter, read_metrics
from rl_jax.core.outcomes import read_outcomes
from rl_jax.core.program import Evaluation, Program, TrainState
from rl_jax.core.provenance import plain_config
from rl_jax.core.sweep import (
    at,
    check_one_folder,
    groups,
    in_sequence,
    labels,
    num_runs,
    settings,
    side_by_side,
    swept,
    title,
    with_settings,
)
from tests.core import toys


def config(sweep="", **fields):
    made = toys.config(**fields)
    made.sweep = sweep
    made.batch_size = 256
    made.agent = {"name": "toy", "rate": 0.9, "scale": 3.0, "delay": 2, "hidden_dims": (256, 256), "norm": False}
    made.dataset = {"name": "hopper", "path": "", "share": 1.0}
    made.side_by_side = ("agent.*", "agent.delay")
    return made


def toy_program(made: ConfigDict) -> Program:
    """The toy regression, whose parameters follow the optimiser's at `rate`, from the step `delay` on."""
    agent = made.agent

    def step(state, data, batch, key):
        new, info = toys.step(state, data, batch, key)
        rate = jnp.where(state.step >= agent.delay, agent.rate, 1.0)
        params = jax.tree.map(lambda n, o: rate * n + (1.0 - rate) * o, new.params, state.params)
        return new.replace(params=params), info | {"scaled": agent.scale * info["loss"] / agent.rate}

    def evaluate(state: TrainState, resident, key):
        del resident, key
        assert isinstance(agent.rate, float)
        scores = -np.asarray(jnp.mean(jnp.square(gather(state.params["net"]["out"])), (1, 2)))
        assert scores.shape == (made.num_seeds,)
        outcomes = np.full((made.num_seeds, 3), agent.rate) + np.arange(made.num_seeds)[:, None]
        return Evaluation({"eval/score": scores, "eval/rate": agent.rate}, {"return": outcomes})

    return Program(toys.init, step, evaluate, toys.make_data())


EXPERIMENT = Experiment(toy_program, {}, Metric("eval/score", "score"))


def train(workdir, sweep="", **fields):
    result = run(EXPERIMENT, config(sweep, **fields), workdir)
    return result, read_metrics(workdir / "metrics.jsonl")


def own(state: TrainState, index: int) -> list[bytes]:
    """The bits of one run."""
    leaves = jax.tree.leaves((state.params, state.opt_state))
    return [np.asarray(gather(leaf))[index].tobytes() for leaf in leaves]


# What is read


def test_values_have_their_fields_types_and_keep_their_order():
    assert swept(config("agent.rate=0.5,1 ; agent.delay= 4,2;dataset.name=a/b,c;agent.norm=true,False")) == {
        "agent.rate": (0.5, 1.0), "agent.delay": (4, 2), "dataset.name": ("a/b", "c"), "agent.norm": (True, False),
    }
    assert swept(config("agent.hidden_dims=(64,64),(8,)")) == {"agent.hidden_dims": ((64, 64), (8,))}
    assert swept(config()) == {}


def test_what_the_config_lists_runs_side_by_side_and_all_else_in_sequence():
    made = config("dataset.share=0.5,1; agent.rate=0.5,1; batch_size=8,16; agent.scale=2,1; agent.delay=1")
    made.side_by_side = ("agent.*",)
    assert side_by_side(made) == [
        {"agent.rate": 0.5, "agent.scale": 2.0}, {"agent.rate": 0.5, "agent.scale": 1.0},
        {"agent.rate": 1.0, "agent.scale": 2.0}, {"agent.rate": 1.0, "agent.scale": 1.0},
    ]
    # A pattern means numbers with a decimal point: `delay` may be a length.
    assert in_sequence(made) == [
        {"dataset.share": share, "batch_size": size, "agent.delay": 1} for share in (0.5, 1.0) for size in (8, 16)
    ]
    made.side_by_side = ("agent.*", "!agent.rate")
    assert side_by_side(made) == [{"agent.scale": 2.0}, {"agent.scale": 1.0}]
    assert "agent.rate" in in_sequence(made)[0] and "agent.rate" not in settings(made)
    made.side_by_side = ("agent.delay", "dataset.share")
    assert side_by_side(made) == [{"dataset.share": share, "agent.delay": 1} for share in (0.5, 1.0)]
    assert in_sequence(made)[0].keys() == {"agent.rate", "batch_size", "agent.scale"}
    assert side_by_side(config()) == in_sequence(config()) == [{}]


def test_one_of_a_sequence_keeps_the_rest_of_the_sweep_and_what_follows_from_its_fields():
    made = config("num_steps=4,8; agent.rate=0.5,1; agent.hidden_dims=(8,),(4, 4)")
    made.agent.decay_steps = made.get_oneway_ref("num_steps")
    before = plain_config(made)
    one = at(made, in_sequence(made)[3])
    assert (one.num_steps, one.agent.decay_steps, one.agent.hidden_dims) == (8, 8, (4, 4))
    assert swept(one) == {"agent.rate": (0.5, 1.0)}
    assert plain_config(made) == before
    assert title(in_sequence(made)[3]) == "num_steps=8,agent.hidden_dims=(4,4)"


def test_every_combination_has_the_same_seeds_and_its_runs_lie_together():
    made = config("agent.rate=0.5,1", num_seeds=2, seed=7)
    assert labels(made) == [
        {"seed": 7, "agent.rate": 0.5}, {"seed": 8, "agent.rate": 0.5},
        {"seed": 7, "agent.rate": 1.0}, {"seed": 8, "agent.rate": 1.0},
    ]
    assert num_runs(made) == 4
    assert groups(made) == {"agent.rate=0.5": slice(0, 2), "agent.rate=1.0": slice(2, 4)}
    np.testing.assert_array_equal(settings(made)["agent.rate"], np.float32([0.5, 0.5, 1.0, 1.0]))
    assert labels(config(num_seeds=2)) == [{"seed": 0}, {"seed": 1}]
    assert groups(config(num_seeds=2)) == {"": slice(0, 2)}


def test_the_labels_of_a_folder_come_from_its_config_json():
    made = config("agent.rate=0.5,1; agent.scale=0.1", num_seeds=2)
    assert labels(json.loads(json.dumps(plain_config(made)))) == labels(made)
    old = plain_config(config(num_seeds=2))
    del old["sweep"]  # an older release
    assert labels(old) == [{"seed": 0}, {"seed": 1}]


@pytest.mark.parametrize("sweep, message", [
    ("agent.rat=0.5", "unknown field 'agent.rat': did you mean agent.rate"),
    ("agent=0.5", "unknown field 'agent'"),
    ("sweep=a", "unknown field 'sweep'"),
    ("agent.rate=high", "agent.rate=high: must be a finite number, like 0.9"),
    ("agent.rate=nan", "agent.rate=nan: must be a finite number"),
    ("batch_size=8.5", "batch_size=8.5: must be a whole number, like 256"),
    ("agent.norm=1", "agent.norm=1: must be true or false, like False"),
    ("agent.hidden_dims=64,64", r"agent.hidden_dims=64: must be a tuple, like \(256, 256\)"),
    ("agent.hidden_dims=(0.5,)", r"agent.hidden_dims=\(0.5,\): must be a tuple"),
    ("agent.rate=", "a name or a value is missing"),
    ("agent.rate=0.5,,1", "a name or a value is missing"),
    ("agent.rate=0.5,", "a name or a value is missing"),
    ("agent.rate", "a name or a value is missing"),
    ("agent.name=iql,bc", "agent.name='toy' chooses an algorithm"),
    ("agent.rate=0.5,1; agent.rate=2", "agent.rate stands there twice"),
    ("agent.rate=0.5,0.50", "agent.rate has a value twice"),
])
def test_what_cannot_be_swept_is_named(sweep, message, tmp_path):
    with pytest.raises(ValueError, match=f"config.sweep: .*{message}"):
        swept(config(sweep))
    with pytest.raises(ValueError, match="config.sweep"):
        run(EXPERIMENT, config(sweep), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_every_listed_field_is_a_setting_swept_or_not():
    """Else a run alone would be computed with Python's constants, and in a sweep with float32 arguments."""
    found = settings(config("agent.rate=0.5,1", num_seeds=2))
    assert {name: (x.dtype, x.tolist()) for name, x in found.items()} == {
        "agent.rate": (np.float32, [0.5, 0.5, 1.0, 1.0]),
        "agent.scale": (np.float32, [3.0] * 4),
        "agent.delay": (np.int32, [2] * 4),
    }


def test_a_run_sees_its_own_values():
    made = config("agent.rate=0.5,1")
    made.agent.decay_steps = made.get_oneway_ref("num_steps")
    agent = with_settings(made, {"agent.rate": jnp.float32(0.5), "agent.delay": jnp.int32(7)}).agent
    assert (agent.rate, agent.delay) == (0.5, 7)
    assert (agent.rate.dtype, agent.delay.dtype) == (jnp.float32, jnp.int32)
    assert (agent.scale, agent.hidden_dims, agent.norm, agent.name) == (3.0, (256, 256), False, "toy")
    assert agent.decay_steps == 20, "what follows from a field of the whole configuration is kept"
    assert made.agent.rate == 0.9 and isinstance(made.agent.rate, float)


# Runs that differ by their settings


def test_each_run_of_a_sweep_is_bitwise_the_run_alone(tmp_path):
    together, lines = train(tmp_path / "sweep", "agent.rate=0.9,0.3; agent.scale=0.7,3; agent.delay=2,5", num_seeds=2)
    assert lines[0]["loss"] and len(lines[0]["loss"]) == 16
    for index, (rate, scale, delay, seed) in [(5, (0.9, 3.0, 2, 1)), (10, (0.3, 0.7, 5, 0))]:
        made = config(seed=seed)
        made.agent.update(rate=rate, scale=scale, delay=delay)
        alone = run(EXPERIMENT, made, tmp_path / str(index))
        assert own(together.state, index) == own(alone.state, 0)
        for line, other in zip(lines, read_metrics(tmp_path / str(index) / "metrics.jsonl"), strict=True):
            mine = {name: x[index] for name, x in line.items() if isinstance(x, list) and name != "eval/return"}
            assert mine and mine == {name: other[name] for name in mine}
    assert len({tuple(own(together.state, index)) for index in (0, 1, 2, 8, 9)}) == 5


def test_a_combination_is_judged_with_its_own_configuration(tmp_path):
    """`evaluate` above checks that it sees plain numbers and its own runs alone."""
    result, _ = train(tmp_path, "agent.rate=0.9,0.3", num_seeds=2)
    (evaluation,) = result.evaluations
    assert evaluation["eval/rate"] == [0.9, 0.9, 0.3, 0.3]
    assert evaluation["eval/return"] == pytest.approx([0.9, 1.9, 0.3, 1.3])
    np.testing.assert_allclose(read_outcomes(tmp_path / "outcomes.npz").values["return"][0, :, 2], [0.9, 1.9, 0.3, 1.3])


def test_it_says_which_column_is_which(tmp_path):
    made = config("agent.rate=0.9,0.3", num_seeds=2)
    result, lines = train(tmp_path, "agent.rate=0.9,0.3", num_seeds=2)
    assert len(lines[0]["loss"]) == 4
    for start in json.loads((tmp_path / "provenance.json").read_text())["starts"]:
        assert start["runs"] == labels(made)
    assert labels(json.loads((tmp_path / "config.json").read_text())) == labels(made)
    assert result.updates_per_s > 0


def test_side_by_side_over_devices_is_close_to_one_after_another(tmp_path):
    sweep = "agent.rate=0.9,0.3"
    spread, _ = train(tmp_path / "spread", sweep, **{"mesh.seed": 2, "mesh.data": -1})
    assert len(spread.state.params["net"]["out"].sharding.device_set) == 8
    together, _ = train(tmp_path / "together", sweep)
    difference = jax.tree.map(lambda a, b: float(np.max(np.abs(a - b))), *(
        jax.device_get(gather(result.state.params)) for result in (spread, together)
    ))
    assert max(jax.tree.leaves(difference)) < 5e-5


def test_a_stopped_sweep_goes_on_bitwise_and_another_sweep_is_refused(tmp_path):
    sweep = "agent.rate=0.9,0.3"
    whole, lines = train(tmp_path / "whole", sweep)
    train(tmp_path / "parts", sweep, num_steps=10)
    resumed, its_lines = train(tmp_path / "parts", sweep)
    assert resumed.trained_steps == 10
    assert all(own(whole.state, index) == own(resumed.state, index) for index in range(2))
    losses = [[line["loss"] for line in its if "loss" in line] for its in (lines, its_lines)]
    assert len(losses[0]) == 2 and losses[0] == losses[1]
    with pytest.raises(ValueError, match="sweep: 'agent.rate=0.9,0.3' there, 'agent.rate=0.9,0.5' here"):
        train(tmp_path / "parts", "agent.rate=0.9,0.5")


def test_a_sweep_of_several_folders_needs_a_binary(tmp_path):
    with pytest.raises(ValueError, match="batch_size runs in sequence, a folder a value: only a binary can start that"):
        check_one_folder(config("batch_size=8,16"))
    with pytest.raises(ValueError, match="config.num_seeds=1 times 2 settings does not divide over config.mesh.seed=4"):
        train(tmp_path / "run", "agent.rate=0.5,1", **{"mesh.seed": 4})
    assert not (tmp_path / "run").exists()


def test_tracked_means_are_of_a_combination_not_of_all(tmp_path, monkeypatch):
    shown = {}
    monkeypatch.setattr(SummaryWriter, "add_scalar", lambda self, name, value, step: shown.update({name: value}))
    writer = MetricWriter(
        tmp_path, step=0, lines=0, tensorboard=True, wandb_project="", config={},
        groups=groups(config("agent.rate=0.5,1", num_seeds=2)),
    )
    writer.write(1, {"loss": np.asarray([1.0, 2.0, 5.0, 7.0]), "rate": 3.0})
    writer.close()
    assert shown == {"loss/agent.rate=0.5": 1.5, "loss/agent.rate=1.0": 6.0, "rate": 3.0}
