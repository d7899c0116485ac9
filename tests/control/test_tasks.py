"""The task of a data set: what the data record of it, what a person says of it, its box of actions and its score."""

import dataclasses
import json

import gymnasium
import h5py
import numpy as np
import pytest
from ml_collections import ConfigDict

from configs import offline_rl
from rl_jax.control.offline import in_box, load, offline_experiment, on_raw_observations
from rl_jax.control.tasks import (
    RETURN,
    SCORE,
    ActionBox,
    Task,
    action_box,
    check_task,
    headline_of,
    references_of,
    task_of,
)
from rl_jax.core.loop import run
from rl_jax.data.episodes import STEP_FIELDS
from rl_jax.data.load import Dataset
from tests.data.sets import make_episode, make_episodes

PENDULUM = gymnasium.spec("Pendulum-v1")
GOALS = gymnasium.spaces.Dict({
    "b": gymnasium.spaces.Box(-9, 9, (2,), np.float32),
    "a": gymnasium.spaces.Tuple([gymnasium.spaces.Box(-99, 99, (1, 1), np.float64)] * 11),
})


class Goals(gymnasium.Env):
    """Observations of the step, in a dictionary; two steps long."""

    observation_space, action_space = GOALS, gymnasium.spaces.Box(-1, 1, (2,), np.float32)

    def reset(self, *, seed=None, options=None):
        self.steps = 0
        return self._observation(), {}

    def step(self, action):
        self.steps += 1
        return self._observation(), 1.0, self.steps == 2, False, {}

    def _observation(self):
        return {"b": np.full(2, self.steps, np.float32), "a": tuple(np.full((1, 1), i, np.float64) for i in range(11))}


class Wide(Goals):
    """The reward is the action; an episode lasts one step."""

    observation_space = gymnasium.spaces.Box(-9, 9, (3,), np.float32)
    action_space = gymnasium.spaces.Box(np.array([-2, 0], np.float32), np.array([2, 10], np.float32))

    def reset(self, *, seed=None, options=None):
        return np.zeros(3, np.float32), {}

    def step(self, action):
        return np.zeros(3, np.float32), float(action[1]), True, False, {}


for _name, _class in (("Goals-v0", Goals), ("Wide-v0", Wide)):
    gymnasium.register(_name, entry_point=_class, max_episode_steps=5)


def config_of(**fields):
    config = offline_rl.get_config("tiny-bc")
    config.update_from_flattened_dict(fields)
    return config


def dataset(env_id="Pendulum-v1", episodes=None, **spec):
    return Dataset(make_episodes() if episodes is None else episodes, "mine", env_id, "", "", spec)


def test_a_recorded_task_is_the_one_that_is_made():
    kwargs = {**PENDULUM.kwargs, "g": 5.0, "render_mode": "human"}
    task = task_of(config_of(), dataset(kwargs=kwargs, max_episode_steps=15))
    assert task == ("Pendulum-v1", {"g": 5.0, "max_episode_steps": 15})
    assert task.label == "Pendulum-v1(g=5.0, max_episode_steps=15)"
    with task.open(1) as pool:
        pool.reset(np.zeros(1, int))
        steps = [pool.step(np.zeros((1, 1)), np.ones(1, bool))[3][0] for _ in range(15)]
        assert steps == [False] * 14 + [True]
    same = dataset(kwargs=dict(PENDULUM.kwargs), max_episode_steps=PENDULUM.max_episode_steps)
    assert task_of(config_of(), same) == Task("Pendulum-v1")


def test_a_person_may_name_the_module_of_a_recorded_task_or_another_task():
    recorded = dataset("Goals-v0", max_episode_steps=3)
    config = config_of(**{"dataset.env_id": "tests.control.test_tasks:Goals-v0"})
    assert task_of(config, recorded) == ("tests.control.test_tasks:Goals-v0", {"max_episode_steps": 3})
    assert task_of(config_of(**{"dataset.env_id": "Hopper-v4"}), recorded) == Task("Hopper-v4")


def test_wrappers_are_an_error_and_for_a_person_who_names_the_task_a_warning(caplog):
    recorded = dataset(additional_wrappers=[{"name": "ScaleReward", "entry_point": "x:y", "kwargs": {}}])
    with pytest.raises(ValueError, match=r"mine was recorded in Pendulum-v1 with the wrappers \['ScaleReward'\]"):
        task_of(config_of(), recorded)
    assert task_of(config_of(**{"dataset.env_id": "Pendulum-v1"}), recorded) == Task("Pendulum-v1")
    assert "ScaleReward" in caplog.text


def test_no_module_is_imported_because_data_name_it(tmp_path, monkeypatch):
    (tmp_path / "planted.py").write_text("raise SystemExit('imported')")
    monkeypatch.syspath_prepend(str(tmp_path))
    with pytest.raises(ValueError, match="'planted:Task-v0', which names a module to import.*dataset.env_id"):
        task_of(config_of(), dataset("planted:Task-v0", max_episode_steps=3))
    with pytest.raises(ValueError, match="mine does not say its task: give --config.dataset.env_id"):
        task_of(config_of(), dataset(""))


def test_references_are_of_tasks_as_they_are_registered():
    config = config_of()
    assert headline_of("Hopper-v5", config) == SCORE
    other = Task("Hopper-v5", {"max_episode_steps": 15}).label
    assert headline_of(other, config) == headline_of("Pendulum-v1", config) == RETURN


def test_references_of_ones_own_make_scores_of_any_task():
    config = config_of(**{"dataset.reference_returns": (-100.0, 300.0)})
    assert references_of("Pendulum-v1", config) == references_of("Hopper-v4", config) == (-100.0, 300.0)
    assert headline_of("Pendulum-v1", config) == SCORE
    assert references_of("Pendulum-v1", config_of()) is None
    assert references_of("Hopper-v4", config_of()) == references_of("Hopper-v4", ConfigDict({})) == (-20.272305, 3234.3)


def test_the_first_action_outside_the_box_is_a_warning(caplog):
    episode = make_episode(5, True, 0)
    with Task("tests.control.test_tasks:Wide-v0").open(1) as pool:
        inside = dataclasses.replace(episode, actions=np.array([[-2.0, 10.0]] * 5, np.float32))
        check_task(pool, dataset(episodes=inside))
        assert not caplog.records
        inside.actions[3] = [1.9, -0.5]
        check_task(pool, dataset(episodes=inside))
    assert "mine: field 'actions' at step 3, component 1 is -0.5, expected a value in [0, 10]" in caplog.text


def test_dictionaries_are_evaluated_as_they_are_read(tmp_path):
    with Task("tests.control.test_tasks:Goals-v0").open(4, num_workers=2) as pool:
        assert pool.observation_space.shape == (13,)
        pool.reset(np.zeros(4, int))
        observations = pool.step(np.zeros((4, 2)), np.ones(4, bool))[0]
    np.testing.assert_array_equal(observations, [[*range(11), 1, 1]] * 4)
    (tmp_path / "metadata.json").write_text(json.dumps({"env_spec": json.dumps({"id": "Goals-v0"})}))
    with h5py.File(tmp_path / "main_data.hdf5", "w") as file:
        file["episode_0/observations/b"] = np.ones((3, 2), np.float32)
        for i in range(11):
            file[f"episode_0/observations/a/_index_{i}"] = np.full((3, 1, 1), i, np.float64)
        file["episode_0/actions"], file["episode_0/rewards"] = np.zeros((2, 2), np.float32), np.ones(2)
        file["episode_0/terminations"] = file["episode_0/truncations"] = np.array([False, True])
    config = config_of(**{"dataset.path": str(tmp_path), "dataset.data_dir": str(tmp_path / "store"),
                          "dataset.num_steps": 0})
    np.testing.assert_array_equal(load(config.dataset).episodes.observations[0], observations[0])


def test_agents_act_in_the_box_of_the_task():
    with Task("tests.control.test_tasks:Wide-v0").open(1) as pool:
        box = action_box(pool)
    np.testing.assert_array_equal(box.to_task(np.array([[-1, -1], [0, 0], [1, 1]])), [[-2, 0], [0, 5], [2, 10]])
    actions = np.array([[2, 0], [-1, 5]], np.float32)
    np.testing.assert_array_equal(box.to_task(box.to_agent(actions)), actions)
    with Task("Hopper-v4").open(1) as pool:
        assert action_box(pool) == ActionBox() and ActionBox().to_task(actions) is actions
    episodes = dataclasses.replace(make_episodes(), actions=np.tile(actions, (7, 1)))
    assert np.abs(in_box(episodes, box).actions).max() == 1.0

    class Still:
        def act(self, params, inputs, key, temperature):
            return np.zeros((1, 2))

    extra = {"observation_mean": np.zeros(3), "observation_std": np.ones(3)}
    np.testing.assert_array_equal(on_raw_observations(Still(), box)(({}, extra), np.zeros((1, 3)), None, 0.0), [[0, 5]])


def test_any_task_trains_and_is_judged_by_its_return(tmp_path):
    """With the name of its file, which is given alone: in the configuration too, which reports read."""
    episodes = make_episodes()
    actions = np.stack([episodes.actions[:, 0], np.full(len(episodes), 9.0)], axis=1).astype(np.float32)
    arrays = {field: getattr(episodes, field) for field in STEP_FIELDS} | {"actions": actions}
    np.savez(tmp_path / "wide.npz", **arrays, env_id="Wide-v0")
    config = config_of(**{
        "dataset.path": str(tmp_path / "wide.npz"), "dataset.data_dir": str(tmp_path / "store"),
        "dataset.num_steps": 0, "agent.learning_rate": 0.05, "num_steps": 100, "loop.eval_every": 100,
        "checkpoint.every": 100, "tensorboard": False,
    })
    data = load(config.dataset)
    assert config.dataset.name == data.name == "wide"
    experiment = offline_experiment(config, data)
    assert experiment.headline == RETURN and experiment.inputs["env_id"] == "Wide-v0"
    config.dataset.reference_returns = (5.0, 15.0)
    experiment = offline_experiment(config, data)
    assert experiment.headline == SCORE
    last = run(experiment, config, tmp_path / "run").evaluations[-1]
    returned = np.mean(last["eval/return"])
    assert 8.0 < returned < 10.0  # cloned; without the box's map it would be 1 at most
    np.testing.assert_allclose(np.mean(last["eval/normalized_score"]), 10 * (returned - 5), rtol=1e-5)
