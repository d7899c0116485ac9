"""Normalised scores: the ends of the scale, a hand number, and unknown tasks."""

import numpy as np
import pytest

from rl_jax.evaluation.scores import REFERENCE_RETURNS, has_references, normalized_score


@pytest.mark.parametrize("env_id", ["Hopper-v4", "HalfCheetah-v5", "Walker2d-v2", "Ant-v4", "some_module:Hopper-v4"])
def test_random_is_0_and_expert_is_100(env_id):
    reference = REFERENCE_RETURNS[env_id.partition("-")[0].rpartition(":")[2].lower()]
    np.testing.assert_allclose(normalized_score(env_id, [reference.random, reference.expert]), [0, 100], atol=1e-12)


def test_hand_numbers():
    # 100 * (1607.013848 + 20.272305) / (3234.3 + 20.272305) = 50 and, at return 0, 100 * 20.272305 / 3254.572305.
    returns = np.array([[1607.0138475, 0.0]])
    np.testing.assert_allclose(normalized_score("Hopper-v4", returns), [[50.0, 0.6228869]], rtol=1e-6)
    assert normalized_score("Walker2d-v4", 1.629008) == 0.0


@pytest.mark.parametrize("env_id", ["Humanoid-v4", "HopperBullet-v0", "", "AntMaze_UMaze-v4"])
def test_unknown_tasks_say_which_exist(env_id):
    assert not has_references(env_id) and has_references("some_module:space/Hopper-v4")
    with pytest.raises(ValueError, match="ant, halfcheetah, hopper, walker2d"):
        normalized_score(env_id, 0.0)
