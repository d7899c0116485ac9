"""Normalised scores: the ends of the scale, a hand number, and unknown tasks."""

import numpy as np
import pytest

from rl_jax.data.scores import REFERENCE_RETURNS, has_references, normalized_score


@pytest.mark.parametrize("env_id", ["Hopper-v4", "HalfCheetah-v5", "Walker2d-v2", "Ant-v4", "some_module:Hopper-v4"])
def test_random_is_0_and_expert_is_100(env_id):
    reference = REFERENCE_RETURNS[env_id.partition("-")[0].rpartition(":")[2].lower()]
    np.testing.assert_allclose(normalized_score(env_id, [reference.random, reference.expert]), [0, 100], atol=1e-12)


def test_hand_numbers():
    # 100 * (1607.013848 + 20.272305) / (3234.3 + 20.272305) = 50 and, at return 0, 100 * 20.272305 / 3254.572305.
    returns = np.array([[1607.0138475, 0.0]])
    np.testing.assert_allclose(normalized_score("Hopper-v4", returns), [[50.0, 0.6228869]], rtol=1e-6)
    assert normalized_score("Walker2d-v4", 1.629008) == 0.0


@pytest.mark.parametrize("env_id", [
    "Humanoid-v4", "HopperBullet-v0", "", "AntMaze_UMaze-v4", "maze2d-eval-umaze-v1", "door-opening-v0",
    "Hopper-v5(max_episode_steps=15)", "Hopper-v5(xml_file='/tmp/hopper-v4')",
])
def test_unknown_tasks_say_which_exist(env_id):
    assert not has_references(env_id) and has_references("some_module:space/Hopper-v4")
    with pytest.raises(ValueError, match="ant, antmaze, .* walker2d"):
        normalized_score(env_id, 0.0)


@pytest.mark.parametrize("env_id, random, expert", [  # rows of D4RL's infos.py
    ("maze2d-umaze-v1", 23.85, 161.86), ("maze2d-umaze-dense-v1", 68.537689, 193.66285642381482),
    ("antmaze-large-diverse-v2", 0.0, 1.0), ("pen-human-v0", 96.262799, 3076.8331017826877),
    ("door-cloned-v1", -56.512833, 2880.5693087298737), ("kitchen-mixed-v0", 0.0, 4.0),
    ("hopper-medium-replay-v2", -20.272305, 3234.3), ("relocate-expert-v1", -6.425911, 4233.877797728884),
])
def test_all_sets_of_a_task_share_its_references(env_id, random, expert):
    np.testing.assert_allclose(normalized_score(env_id, [random, expert]), [0, 100], atol=1e-12)
