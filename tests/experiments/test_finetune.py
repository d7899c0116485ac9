"""Learning in the task: from an offline run to its fine-tuning, its exact resume, from scratch, and the errors."""

import shutil
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from configs import offline_rl, offline_to_online
from experiments.offline_rl.experiment import experiment
from rl_jax.control.agents import AGENTS, make_agent
from rl_jax.control.offline import agent_data, load
from rl_jax.control.offline_to_online import as_prepared, reward_scale
from rl_jax.core.checkpoint import load_state
from rl_jax.core.main import run
from rl_jax.core.metrics import read_metrics
from rl_jax.core.outcomes import read_outcomes
from rl_jax.core.program import TrainState
from rl_jax.data.locomotion.embed import main as embed
from rl_jax.data.locomotion.embed import policy_arrays
from rl_jax.data.locomotion.policies import load_policy
from rl_jax.data.transitions import Transitions
from tests.experiments.offline_files import write_d4rl

SMALL = {"num_steps": 20, "loop.eval_every": 10, "checkpoint.every": 10, "tensorboard": False}


@pytest.fixture(scope="module")
def dataset(tmp_path_factory) -> dict:
    return write_d4rl(tmp_path_factory.mktemp("finetune"))


@pytest.fixture(scope="module")
def offline(dataset, tmp_path_factory):
    """(agent, seeds) -> the folder of its finished offline run; each is trained once."""
    folders = {}

    def trained(agent: str, num_seeds: int = 2) -> Path:
        if (agent, num_seeds) not in folders:
            folders[agent, num_seeds] = folder = tmp_path_factory.mktemp(f"{agent}_{num_seeds}")
            run(experiment, configured(offline_rl, f"tiny-{agent}", dataset, num_seeds=num_seeds), folder)
        return folders[agent, num_seeds]

    return trained


def configured(module, preset: str, *overrides: dict, **fields):
    config = module.get_config(preset)
    for own in (SMALL, *overrides, fields):
        config.update_from_flattened_dict(own)
    return config


def online_config(agent: str, dataset: dict, source: Path | str, *overrides: dict, **fields):
    return configured(
        offline_to_online, f"tiny-{agent}", dataset, {"init_from.run": str(source)}, *overrides, **fields
    )


def leaves_by_path(state: TrainState) -> dict[str, np.ndarray]:
    return {jax.tree_util.keystr(path): np.asarray(x) for path, x in jax.tree_util.tree_leaves_with_path(state)}


def test_own_steps_speak_the_units_of_the_prepared_data(dataset):
    """Observations standardised as the data set's, rewards and returns scaled as the data set's."""
    scaled = {"dataset.normalize_rewards": True, "dataset.top_fraction": 0.7}
    config = online_config("cal_ql", dataset, "", scaled)
    data = load(config.dataset)
    kept, prepared = data.episodes.best_steps(0.7), agent_data(config, data.episodes)
    raw = kept.to_transitions(("mc_returns",), config.agent.discount)
    state = TrainState.create({}, {}, extra=prepared.statistics)
    own = as_prepared(raw, state, reward_scale(config, data))
    assert reward_scale(config, data) > 1 and np.abs(prepared.resident.observations.mean(0)).max() < 1e-4
    for name in ("observations", "next_observations", "rewards", "mc_returns", "actions", "masks"):
        np.testing.assert_allclose(getattr(own, name), getattr(prepared.resident, name), rtol=1e-4, atol=1e-4)


def test_an_agent_from_scratch_acts_in_the_bounds_of_its_task(monkeypatch):
    """InvertedPendulum-v4 takes forces in [-3, 3], and SAC learns in [-1, 1]."""
    config, seen = configured(offline_to_online, "tiny"), {}
    sac = AGENTS["sac"]

    def watched(config, action_dim):
        def update(state, batch, key):
            seen["actions"] = batch.actions
            return state, {}

        return sac(config, action_dim)._replace(update=update, act=lambda params, o, key, t: t * jnp.sign(o[:, :1]))

    monkeypatch.setitem(AGENTS, "sac", watched)
    program = experiment(config).program(config)
    rows = np.ones(2, np.float32)
    batch = Transitions(np.zeros((2, 4)), np.float32([[3.0], [-1.5]]), rows, rows, np.zeros((2, 4)))
    program.step(None, (), batch, jax.random.key(0))
    np.testing.assert_array_equal(seen["actions"], [[1.0], [-0.5]])
    keys = jax.random.split(jax.random.key(0), 2)
    state = jax.vmap(lambda key: program.init(key, ()).replace(step=None))(keys)
    batch, _ = program.feed.collect(state, (), keys, 0)  # the random steps
    assert 2.5 < np.abs(batch.actions).max() <= 3.0 and batch.actions.shape == (2, 32, 1)
    for step in range(1, 60):
        batch, _ = program.feed.collect(state, (), keys, step)
    assert np.isin([-3.0, 3.0], batch.actions).all() and np.abs(batch.actions).max() == 3.0
    program.feed.close()


@pytest.mark.parametrize(
    "overrides, error, message",
    [
        ({"init_from.run": "/no/such/run"}, FileNotFoundError, "--config.init_from.run=/no/such/run"),
        ({"dataset.columns": ("next_actions",)}, ValueError, "next_actions, which a replay buffer does not hold"),
        ({"replay.offline_fraction": 2.0}, ValueError, "offline_fraction=2.0"),
        ({"dataset.env_id": "Walker2d-v4"}, ValueError, "Walker2d-v4 has observations .*dataset.env_id"),
        ({"collect.env_steps": 0}, ValueError, "env_steps=0"),
    ],
)
def test_what_cannot_go_on_is_one_error(overrides, error, message, dataset, tmp_path):
    with pytest.raises(error, match=message):
        run(experiment, online_config("iql", dataset, "", overrides), tmp_path / "run")


def test_unknown_agents_tasks_and_presets_are_named():
    config = configured(offline_to_online, "tiny")
    config.agent.name = "sacc"
    with pytest.raises(ValueError, match="agent that learns from scratch 'sacc': did you mean sac"):
        experiment(config)
    for preset, near in [("sac/hoper", "sac/hopper"), ("cal_ql/hopper-mediun", "cal_ql/hopper-medium")]:
        with pytest.raises(ValueError, match=near):
            offline_to_online.get_config(preset)


@pytest.mark.slow
@pytest.mark.parametrize("agent, num_seeds", [("cal_ql", 1), ("iql", 2)])
def test_the_fine_tuning_starts_where_the_offline_run_ended(agent, num_seeds, dataset, offline, tmp_path):
    """From as many seeds as there are, or all from the one; parameters, targets, optimisers and statistics."""
    folder = offline(agent, num_seeds)
    config = online_config(agent, dataset, folder, num_steps=1)
    run(experiment, config, tmp_path)
    start = leaves_by_path(load_state(tmp_path, experiment(config).program(config), 2))
    config = configured(offline_rl, f"tiny-{agent}", dataset, num_seeds=num_seeds)
    ended = leaves_by_path(load_state(folder, experiment(config).program(config), num_seeds))
    assert ended.pop(".step") == 20 and start.pop(".step") == 1 and start.keys() == ended.keys()
    counts = 0
    for path, leaf in ended.items():
        if path.startswith(".extra"):
            np.testing.assert_array_equal(start[path], np.broadcast_to(leaf, start[path].shape), err_msg=path)
        elif path.endswith("count"):
            counts += 1
            assert (start[path] == 21).all(), "the optimisers' states are those of a new run"
        elif "params" in path and ".opt_state" not in path:  # one update of Adam moves a weight by about its rate
            np.testing.assert_allclose(start[path], np.broadcast_to(leaf, start[path].shape), atol=2e-3, err_msg=path)
    assert counts >= 3


@pytest.mark.slow
def test_a_fine_tuned_run_reports_and_goes_on_bitwise_without_the_offline_run(dataset, offline, tmp_path):
    source = tmp_path / "source"
    shutil.copytree(offline("iql"), source)
    config = online_config("iql", dataset, source)
    whole = run(experiment, config, tmp_path / "whole")
    assert whole["paper"] == "offline_to_online" and whole["step"] == 20 and whole["seeds"] == 2
    steps, _, values = read_outcomes(tmp_path / "whole" / "outcomes.npz")
    assert steps.tolist() == [0, 10, 20]
    assert whole["return"] == pytest.approx(values["return"][-1].mean())
    for name, returns in (("score_before", values["return"][0]), ("score", values["return"][-1])):
        assert whole[name] == pytest.approx(100 * (returns.mean() + 20.272305) / (3234.3 + 20.272305), rel=1e-9)
    assert whole["behaviour_score"] > 0 and (tmp_path / "whole" / "learning_curve.png").exists()
    assert any("collect/return" in line for line in read_metrics(tmp_path / "whole" / "metrics.jsonl"))

    # Half the way, and on from its checkpoint when the offline run is gone.
    run(experiment, online_config("iql", dataset, source, num_steps=10), tmp_path / "parts")
    program = experiment(config).program(config)
    half = load_state(tmp_path / "parts", program, 2)
    shutil.rmtree(source)
    parts = run(experiment, config, tmp_path / "parts")
    assert parts["return"] == whole["return"] and parts["score_before"] == whole["score_before"]
    one, two = (load_state(tmp_path / name, program, 2) for name in ("whole", "parts"))
    for (path, leaf), other in zip(leaves_by_path(one).items(), leaves_by_path(two).values(), strict=True):
        np.testing.assert_array_equal(leaf, other, err_msg=path)
    # The offline run has annealed the policy's learning rate to 0: the fine-tuning's is constant.
    moves = jax.tree.map(lambda x, y: float(np.abs(np.asarray(x) - y).max()), half.params, one.params)
    assert min(jax.tree.leaves(moves["actor"])) > config.agent.learning_rate


@pytest.mark.slow
def test_sac_from_scratch_runs_to_its_last_line(tmp_path):
    result = run(experiment, configured(offline_to_online, "tiny"), tmp_path)
    assert result["score"] == result["return"] >= 1 and "behaviour_score" not in result
    assert (tmp_path / "learning_curve.png").exists()


@pytest.mark.slow
def test_a_snapshot_of_sac_is_a_behaviour_policy(tmp_path):
    config = configured(offline_to_online, "tiny", {"num_seeds": 1, "checkpoint.every": 10, "eval_episodes": 1})
    run(experiment, config, tmp_path)
    embed(["embed", str(tmp_path), "20", str(tmp_path / "sac.npz")])
    arrays = np.load(tmp_path / "sac.npz")
    assert str(arrays["eval_env"]) == "InvertedPendulum-v4" and arrays["eval_returns"].min() >= 1
    observations = np.random.default_rng(0).normal(size=(5, 4)).astype(np.float32)
    state = load_state(tmp_path, experiment(config).program(config), 1)
    params = jax.tree.map(lambda x: x[0], state.params)
    expected = make_agent(config, 1).act(params, observations, jax.random.key(0), 0.0)
    # Weights are stored as float16.
    np.testing.assert_allclose(load_policy(str(tmp_path / "sac")).act(observations, None), expected, atol=2e-3)
    assert not np.array_equal(policy_arrays(tmp_path, 10)["W0"], arrays["W0"])
    with pytest.raises(FileNotFoundError, match="no checkpoint of step 15"):
        policy_arrays(tmp_path, 15)
    (tmp_path / "config.json").write_text('{"agent": {"name": "iql"}}')
    with pytest.raises(ValueError, match="no run of SAC: name one of"):
        policy_arrays(tmp_path, 20)
    with pytest.raises(ValueError, match="give the folder of a run of SAC, a step and the file"):
        embed(["embed", str(tmp_path), "latest"])
