"""The online binary: from an offline run to its fine-tuning, its exact resume, its last line, and its errors."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import h5py
import jax
import numpy as np
import pytest

from configs import offline_rl, offline_to_online
from experiments.offline_rl import finetune, train
from experiments.offline_rl.learner import load
from experiments.offline_rl.online import fine_tuned, from_scratch
from rl_jax.core.checkpoint import load_state
from rl_jax.core.fused import init_runs, run_keys
from rl_jax.core.metrics import read_metrics
from rl_jax.core.program import TrainState
from rl_jax.data.transitions import Transitions
from rl_jax.envs.gym_pool import EnvPool

ROOT = Path(__file__).resolve().parents[2]
SMALL = {"num_steps": 20, "loop.eval_every": 10, "checkpoint.every": 10, "tensorboard": False}


@pytest.fixture(scope="module")
def dataset(tmp_path_factory) -> dict:
    """The dataset fields of a file of made-up Hopper transitions, observations far from standardised."""
    rng = np.random.default_rng(0)
    size, ends = 400, (119, 259, 399)
    observations = rng.normal(3.0, 5.0, size=(size + 1, 11)).astype(np.float32)
    folder = tmp_path_factory.mktemp("finetune")
    with h5py.File(folder / "hopper.hdf5", "w") as file:
        file["observations"], file["next_observations"] = observations[:-1], observations[1:]
        file["actions"] = rng.uniform(-0.9, 0.9, size=(size, 3)).astype(np.float32)
        file["rewards"] = rng.uniform(0, 3, size=size).astype(np.float32)
        file["terminals"] = np.isin(np.arange(size), ends[:2])
        file["timeouts"] = np.arange(size) == ends[2]
    return {
        "dataset.path": str(folder / "hopper.hdf5"), "dataset.env_id": "Hopper-v4", "dataset.name": "mine",
        "dataset.data_dir": str(folder / "data"), "dataset.num_steps": 0,
    }


@pytest.fixture(scope="module")
def offline(dataset, tmp_path_factory):
    """(agent, seeds) -> the folder of its finished offline run; each is trained once."""
    folders = {}

    def trained(agent: str, num_seeds: int = 2) -> Path:
        if (agent, num_seeds) not in folders:
            folders[agent, num_seeds] = folder = tmp_path_factory.mktemp(f"{agent}_{num_seeds}")
            train.main(configured(offline_rl, f"tiny-{agent}", dataset, num_seeds=num_seeds), folder)
        return folders[agent, num_seeds]

    return trained


def configured(module, preset: str, *overrides: dict, **fields):
    config = module.get_config(preset)
    for fields in ({**SMALL}, *overrides, fields):
        config.update_from_flattened_dict(fields)
    return config


def online_config(agent: str, dataset: dict, pretrained: Path | str, *overrides: dict, **fields):
    return configured(
        offline_to_online, f"tiny-{agent}", dataset, {"pretrained": str(pretrained)}, *overrides, **fields
    )


def leaves_by_path(state: TrainState) -> dict[str, np.ndarray]:
    return {jax.tree_util.keystr(path): np.asarray(x) for path, x in jax.tree_util.tree_leaves_with_path(state)}


@pytest.mark.slow
@pytest.mark.parametrize("num_seeds", [1, 2])
def test_the_fine_tuning_starts_where_the_offline_run_ended(num_seeds, dataset, offline, tmp_path):
    """From as many seeds as there are, or all from the one; parameters, targets, optimisers and statistics."""
    folder = offline("cal_ql", num_seeds)
    program, inputs = finetune.make_program(online_config("cal_ql", dataset, folder), tmp_path)[:2]
    start = leaves_by_path(init_runs(program, run_keys("init", 0, 2), "map"))
    offline_program = train.make_program(configured(offline_rl, "tiny-cal_ql", dataset, num_seeds=num_seeds), tmp_path)
    ended = load_state(folder, offline_program.program, num_seeds)
    assert int(ended.step) == 20 and start.pop(".step") == 0
    wanted = leaves_by_path(ended.replace(step=None))
    assert start.keys() == wanted.keys()
    moved = 0
    for path, leaf in wanted.items():
        np.testing.assert_array_equal(start[path], np.broadcast_to(leaf, start[path].shape), err_msg=path)
        moved += ".opt_state" in path and np.abs(leaf.astype(np.float64)).max() > 0
    assert moved > 4, "the optimisers' states are those of a new run"
    assert inputs["pretrained"] == str(folder) and inputs["pretrained_step"] == 20


@pytest.mark.slow
def test_the_buffer_speaks_the_offline_run_s_units(dataset, offline, tmp_path):
    """Observations standardised as the data set's, rewards scaled as the data set's, the data set beside them."""
    scaled = {"dataset.normalize_rewards": True, "dataset.top_fraction": 0.7}
    config = online_config("cal_ql", dataset, "", scaled)
    data = load(config.dataset)
    learner = fine_tuned(config, data, started=True)
    kept = data.episodes.best_steps(0.7)
    np.testing.assert_allclose(learner.prior.rewards, kept.rewards * learner.reward_scale, rtol=1e-6)
    np.testing.assert_allclose(learner.prepare(kept.observations), learner.prior.observations, rtol=1e-4, atol=1e-5)
    assert np.abs(learner.prior.observations.mean(0)).max() < 1e-4 and learner.reward_scale > 1

    program = finetune.make_program(online_config("cal_ql", dataset, offline("cal_ql"), num_steps=3), tmp_path).program
    state = init_runs(program, run_keys("init", 0, 2), "map")
    batch = None
    for step in range(60):  # the untrained policy falls within some twenty steps
        keys = jax.vmap(jax.random.fold_in, in_axes=(0, None))(run_keys("collect", 0, 2), step)
        batch, _ = program.source.collect(state, keys, step)
    prior = fine_tuned(online_config("cal_ql", dataset, "", num_steps=3), data, started=True).prior
    for row in range(2):
        offline_half = np.isin(batch.rewards[row], prior.rewards)
        assert offline_half.sum() == 16, "half of 32 come from the data set"
        assert np.isfinite(batch.mc_returns[row]).all() and (batch.mc_returns[row, ~offline_half] != 0).all()
        # Hopper's height is 1.25: seen by the statistics of made-up data with mean 3 and deviation 5.
        height = batch.observations[row, ~offline_half, 0] * 5.0 + 3.0
        assert (np.abs(height - 1.2) < 0.6).all()


@pytest.mark.slow
def test_a_fine_tuned_run_reports_and_goes_on_bitwise_without_the_offline_run(dataset, offline, tmp_path):
    pretrained = tmp_path / "pretrained"
    shutil.copytree(offline("iql"), pretrained)
    config = online_config("iql", dataset, pretrained)
    start = init_runs(finetune.make_program(config, tmp_path).program, run_keys("init", 0, 2), "map")
    whole = finetune.main(config, tmp_path / "whole")
    assert whole["paper"] == "offline_to_online" and whole["step"] == 20 and whole["seeds"] == 2
    before = np.load(pretrained / "episodes.npz")["returns"][-1]
    after = np.load(tmp_path / "whole" / "episodes.npz")["returns"][-1]
    assert whole["return"] == pytest.approx(after.mean())
    for name, returns in (("score_before", before), ("score", after)):
        assert whole[name] == pytest.approx(100 * (returns.mean() + 20.272305) / (3234.3 + 20.272305), rel=1e-9)
    assert whole["behaviour_score"] > 0 and (tmp_path / "whole" / "learning_curve.png").exists()
    lines = read_metrics(tmp_path / "whole" / "metrics.jsonl")
    assert any("collect/return" in line for line in lines)

    # Half the way, and on from its checkpoint when the offline run is gone.
    short = online_config("iql", dataset, pretrained, num_steps=10)
    finetune.main(short, tmp_path / "parts")
    shutil.rmtree(pretrained)
    parts = finetune.main(config, tmp_path / "parts")
    assert parts["return"] == whole["return"] and parts["score_before"] is None
    program = finetune.make_program(config, tmp_path / "parts").program
    one, two = (load_state(tmp_path / name, program, 2) for name in ("whole", "parts"))
    for (path, leaf), other in zip(leaves_by_path(one).items(), leaves_by_path(two).values(), strict=True):
        np.testing.assert_array_equal(leaf, other, err_msg=path)
    # The offline run has annealed the policy's learning rate to 0: the fine-tuning's is constant.
    moves = jax.tree.map(lambda x, y: float(np.abs(np.asarray(x) - y).max()), start.params, one.params)
    assert min(jax.tree.leaves(moves["actor"])) > config.agent.learning_rate
    with pytest.raises(FileNotFoundError, match="finished run of experiments.offline_rl.train"):
        finetune.main(config, tmp_path / "new")


@pytest.mark.slow
@pytest.mark.parametrize(
    "overrides, error, message",
    [
        ({"pretrained": ""}, FileNotFoundError, "name the --workdir of a finished run"),
        ({"pretrained": "/no/such/run"}, FileNotFoundError, "--config.pretrained=/no/such/run"),
        ({"num_seeds": 3}, ValueError, "has 2 seeds: --config.num_seeds=3"),
        ({"dataset.normalize_rewards": False}, ValueError, "dataset.normalize_rewards: True there, False here"),
        ({"agent.hidden_dims": (8, 16)}, ValueError, "other networks .*Dense_0"),
        ({"dataset.columns": ("next_actions",)}, ValueError, "next_actions, which a replay buffer does not hold"),
        ({"replay.offline_fraction": 2.0}, ValueError, "offline_fraction=2.0"),
        ({"dataset.env_id": "Walker2d-v4"}, ValueError, "dataset.env_id|Walker2d-v4 has observations"),
    ],
)
def test_what_cannot_be_tuned_is_one_error(overrides, error, message, dataset, offline, tmp_path):
    config = online_config("iql", dataset, offline("iql"), overrides)
    with pytest.raises(error, match=message):
        finetune.main(config, tmp_path / "run")
    assert not (tmp_path / "run").exists()


@pytest.mark.slow
def test_an_unfit_offline_run_is_one_error(dataset, offline, tmp_path):
    with pytest.raises(ValueError, match="of offline_rl with iql: this run tunes cql"):
        finetune.main(online_config("cal_ql", dataset, offline("iql")), tmp_path / "run")
    changed = tmp_path / "changed"
    for field, value, message in [
        ("num_steps", 100, "unfinished: step 20 of 100"),
        ("sweep", "agent.tau=0.1,0.2", "is of the sweep"),
    ]:
        shutil.rmtree(changed, ignore_errors=True)
        shutil.copytree(offline("iql"), changed)
        config = json.loads((changed / "config.json").read_text())
        (changed / "config.json").write_text(json.dumps(config | {field: value}))
        with pytest.raises(ValueError, match=message):
            finetune.main(online_config("iql", dataset, changed), tmp_path / "run")
    provenance = (changed / "provenance.json").read_text()
    checksum = json.loads(provenance)["starts"][0]["inputs"]["checksum"]
    (changed / "config.json").write_text((offline("iql") / "config.json").read_text())
    (changed / "provenance.json").write_text(provenance.replace(checksum, "0" * 64))
    with pytest.raises(ValueError, match=f"data of checksum {'0' * 64}"):
        finetune.main(online_config("iql", dataset, changed), tmp_path / "run")


def test_an_agent_from_scratch_acts_in_the_bounds_of_its_task():
    """InvertedPendulum-v4 takes forces in [-3, 3], and SAC learns in [-1, 1]."""
    config = configured(offline_to_online, "tiny")
    with EnvPool("InvertedPendulum-v4", 1) as pool:
        learner = from_scratch(config, pool)
    state = learner.init(jax.random.key(0))
    observations = 10 * jax.random.normal(jax.random.key(1), (500, 4))
    actions = learner.act((state.params, state.extra), observations, jax.random.key(2), 3.0)
    assert actions.shape == (500, 1) and 2.9 < float(np.abs(actions).max()) <= 3.0
    seen = {}

    def recording(state, batch, key):
        seen["actions"] = batch.actions
        return state, {}

    rows = np.ones(2, np.float32)
    batch = Transitions(np.zeros((2, 4)), np.float32([[3.0], [-1.5]]), rows, rows, np.zeros((2, 4)))
    with pytest.MonkeyPatch.context() as patch:
        agent = from_scratch.__globals__["make_agent"](config, 1)
        patch.setitem(from_scratch.__globals__, "make_agent", lambda *_: agent._replace(update=recording))
        with EnvPool("InvertedPendulum-v4", 1) as pool:
            from_scratch(config, pool).update(state, batch, jax.random.key(0))
    np.testing.assert_array_equal(seen["actions"], [[1.0], [-0.5]])


def test_unknown_agents_and_tasks_are_named(tmp_path):
    config = configured(offline_to_online, "tiny")
    config.agent.name = "sacc"
    with pytest.raises(ValueError, match="agent that learns from scratch 'sacc': did you mean sac"):
        finetune.main(config, tmp_path / "run")
    config.env_id = "Pendulum-v1"
    with pytest.raises(ValueError, match="Pendulum-v1 cannot be saved"):
        finetune.main(config, tmp_path / "run")
    for preset, near in [("sac/hoper", "sac/hopper"), ("cal_ql/hopper-mediun", "cal_ql/hopper-medium")]:
        with pytest.raises(ValueError, match=near):
            offline_to_online.get_config(preset)


def test_the_binary_ends_with_one_json_line_and_a_second_start_trains_nothing(tmp_path):
    command = [sys.executable, "-m", "experiments.offline_rl.finetune", "--config=configs/offline_to_online.py:tiny"]
    command += [f"--workdir={tmp_path / 'run'}", "--config.tensorboard=False"]
    environment = os.environ | {"XLA_FLAGS": "", "PYTHONPATH": str(ROOT)}

    def binary() -> subprocess.CompletedProcess:
        return subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=300)

    done = binary()
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert len(lines) == 1, "standard output is one JSON object"
    result = json.loads(lines[0])
    assert (result["preset"], result["step"], result["seeds"]) == ("tiny", 40, 2)
    assert result["return"] >= 1 and result["score"] is None and result["updates_per_s"] > 0
    again = binary()
    assert again.returncode == 0 and "nothing to train" in again.stderr
    assert json.loads(again.stdout) == result
