"""Sweeps: what is read from `config.sweep`, which run is which, and runs that differ by their settings."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from ml_collections import ConfigDict
from tensorboardX import SummaryWriter

from rl_jax.core.loop import run
from rl_jax.core.mesh import gather
from rl_jax.core.metrics import MetricWriter, read_metrics
from rl_jax.core.program import Program, Resident, TrainState
from rl_jax.core.provenance import plain_config
from rl_jax.core.sweep import (
    at,
    check_settings,
    groups,
    in_sequence,
    labels,
    num_runs,
    side_by_side,
    swept,
    swept_settings,
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
    return made


def toy_program(made: ConfigDict) -> Program:
    """The toy regression, whose parameters follow the optimiser's at `rate`."""

    def init(key, settings={}):
        return toys.init(key).replace(extra={"settings": settings})

    def step(state, data, key):
        agent = with_settings(made, state.extra["settings"]).agent
        new, info = toys.step(state, data, key)
        params = jax.tree.map(lambda n, o: agent.rate * n + (1.0 - agent.rate) * o, new.params, state.params)
        return new.replace(params=params), info | {"scaled": agent.scale * info["loss"] / agent.rate}

    def evaluate(state: TrainState, key):
        del key
        return {"eval/score": -np.asarray(jnp.mean(jnp.square(gather(state.params["net"]["out"])), (1, 2)))}

    return Program(init, step, Resident(toys.make_data()), evaluate, swept_settings(made))


def train(workdir, sweep="", **fields):
    made = config(sweep, **fields)
    result = run(toy_program(made), made, workdir, headline="eval/score")
    return result, read_metrics(workdir / "metrics.jsonl")


def own(state: TrainState, index: int) -> list[bytes]:
    """The bits of one run, without its settings."""
    leaves = jax.tree.leaves((state.params, state.opt_state))
    return [np.asarray(gather(leaf))[index].tobytes() for leaf in leaves]


# What is read


def test_values_have_their_fields_types_and_keep_their_order():
    assert swept(config("agent.rate=0.5,1 ; agent.delay= 4,2;dataset.name=a/b,c;agent.norm=true,False")) == {
        "agent.rate": (0.5, 1.0), "agent.delay": (4, 2), "dataset.name": ("a/b", "c"), "agent.norm": (True, False),
    }
    assert swept(config("agent.hidden_dims=(64,64),(8,)")) == {"agent.hidden_dims": ((64, 64), (8,))}
    assert swept(config()) == {}


def test_floats_of_the_agent_run_side_by_side_and_all_else_in_sequence():
    made = config("dataset.share=0.5,1; agent.rate=0.5,1; batch_size=8,16; agent.scale=2,1; agent.delay=1")
    assert side_by_side(made) == [
        {"agent.rate": 0.5, "agent.scale": 2.0}, {"agent.rate": 0.5, "agent.scale": 1.0},
        {"agent.rate": 1.0, "agent.scale": 2.0}, {"agent.rate": 1.0, "agent.scale": 1.0},
    ]
    assert in_sequence(made) == [
        {"dataset.share": share, "batch_size": size, "agent.delay": 1} for share in (0.5, 1.0) for size in (8, 16)
    ]
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
    np.testing.assert_array_equal(swept_settings(made)["agent.rate"], np.float32([0.5, 0.5, 1.0, 1.0]))
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
        run(toy_program(config()), config(sweep), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_a_run_sees_its_own_values_and_float32_scalars():
    made = config("agent.rate=0.5,1")
    agent = with_settings(made, {"agent.rate": jnp.float32(0.5)}).agent
    assert (agent.rate, agent.scale) == (0.5, 3.0)
    assert (agent.rate.dtype, agent.rate.shape) == (agent.scale.dtype, agent.scale.shape) == (jnp.float32, ())
    assert (agent.delay, agent.hidden_dims, agent.norm, agent.name) == (2, (256, 256), False, "toy")
    assert made.agent.rate == 0.9 and isinstance(made.agent.rate, float)


# Runs that differ by their settings


def test_each_run_of_a_sweep_is_bitwise_the_run_alone(tmp_path):
    together, lines = train(tmp_path / "sweep", "agent.rate=0.9,0.3; agent.scale=0.7,3", num_seeds=2)
    assert together.state.extra["settings"]["agent.rate"].shape == (8,)
    for index, label in [(3, (0.9, 3.0, 1)), (4, (0.3, 0.7, 0))]:
        made = config(seed=label[2])
        made.agent.rate, made.agent.scale = label[:2]
        alone = run(toy_program(made), made, tmp_path / str(index), headline="eval/score")
        assert own(together.state, index) == own(alone.state, 0)
        for line, other in zip(lines, read_metrics(tmp_path / str(index) / "metrics.jsonl"), strict=True):
            mine = {name: value[index] for name, value in line.items() if isinstance(value, list)}
            assert mine and mine == {name: other[name] for name in mine}
    assert len({tuple(own(together.state, index)) for index in (0, 1, 4, 5)}) == 4


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


def test_a_program_that_cannot_be_swept_says_so(tmp_path):
    made = config("agent.rate=0.5,1")
    with pytest.raises(ValueError, match="takes no values side by side"):
        run(toys.program(), made, tmp_path / "run")
    with pytest.raises(ValueError, match="batch_size runs in sequence"):
        check_settings(config("batch_size=8,16"), ())
    with pytest.raises(ValueError, match=r"Program.settings has shape \(3,\): its first axis is 2 runs"):
        check_settings(made, {"agent.rate": np.zeros(3, np.float32)})
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
