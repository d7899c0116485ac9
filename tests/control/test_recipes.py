"""Recipes of the mazes: CORL's settings by hand, and a training on one through the experiment."""

import os

import numpy as np
import pytest

from configs.offline_rl import get_config
from experiments.offline_rl.experiment import experiment
from rl_jax.control.recipes import DATA_SETS
from rl_jax.core.main import run
from rl_jax.core.outcomes import read_outcomes
from rl_jax.data.load import BUILT_IN, load_dataset


def test_presets_name_every_built_in_set():
    assert set(DATA_SETS.values()) == set(BUILT_IN) and DATA_SETS["pointmaze-umaze-dense"] == "pointmaze/umaze-dense"


@pytest.mark.parametrize("agent, fields", [  # of CORL's configs/offline/<agent>/maze2d
    ("bc", {"normalize": True}), ("bc10", {"normalize": True, "frac": 0.1}), ("td3_bc", {"normalize": True}),
    ("awac", {"normalize": True, "temperature": 1 / 0.1}),
    ("iql", {"normalize": True, "expectile": 0.7, "temperature": 3.0, "discount": 0.99}),
    ("rebrac", {"normalize": False, "actor_penalty": 0.003, "critic_penalty": 0.001}),
])
def test_settings_of_maze2d(agent, fields):
    config = get_config(f"{agent}/pointmaze-medium")
    assert (config.dataset.name, config.eval_episodes, config.batch_size) == ("pointmaze/medium", 100, 256)
    assert not config.dataset.normalize_rewards and config.num_steps == 1_000_000
    found = {"normalize": config.dataset.normalize_observations, "frac": config.dataset.top_fraction, **config.agent}
    assert {name: found[name] for name in fields} == fields
    assert get_config(f"{agent}/hopper-medium").eval_episodes == 10


def test_an_agent_without_settings_for_mazes_has_no_preset():
    for preset in ("cql/pointmaze-umaze", "rebrac/pointmaze-umaze-dense"):
        with pytest.raises(ValueError, match="unknown"):
            get_config(preset)


def test_a_training_is_judged_in_the_maze(tmp_path):
    config = get_config("bc/pointmaze-umaze")
    config.update_from_flattened_dict({
        "agent.hidden_dims": (16, 16), "batch_size": 32, "num_steps": 20, "loop.chunk": 10, "loop.log_every": 10,
        "loop.eval_every": 20, "checkpoint.every": 20, "eval_episodes": 2, "tensorboard": False,
        "dataset.num_steps": 1000, "dataset.data_dir": os.environ["RL_JAX_TEST_DATA"],
    })
    result = run(experiment, config, tmp_path)
    _, _, values = read_outcomes(tmp_path / "outcomes.npz")
    np.testing.assert_array_equal(values["length"], [[[300, 300]]])
    np.testing.assert_allclose(values["normalized_score"], 100 * (values["return"] - 23.85) / (161.86 - 23.85))
    rewards = load_dataset("pointmaze/umaze", num_steps=1000, data_dir=config.dataset.data_dir).episodes.rewards
    behaviour = rewards[:900].sum() / 3
    assert result["behaviour_score"] == pytest.approx(100 * (behaviour - 23.85) / (161.86 - 23.85))
