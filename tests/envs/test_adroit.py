"""Adroit's door: its reward against what the authors recorded, and the task with its state."""

import sys
from pathlib import Path

import numpy as np
import pytest

from rl_jax.core.arrays import read_arrays
from rl_jax.core.extras import MissingExtraError
from rl_jax.data.adroit.sets import ENV_ID, SETS, TIME_LIMIT
from rl_jax.data.scores import reference_returns
from rl_jax.envs.adroit import HINGE, door_reward
from rl_jax.envs.gym_pool import EnvPool, find_spec

RECORDED = Path(__file__).parents[1] / "golden" / "dapg_door.npz"


def observed(palm=(0.0, 0.0, 0.0), handle=(0.0, 0.0, 0.0), angle=0.0):
    observation = np.zeros(39)
    observation[28], observation[29:32], observation[32:35] = angle, palm, handle
    return observation


def test_reward_by_hand():
    # A palm 0.5 m from the handle costs 0.05, a closed door 0.1 * 1.57^2 and velocities 1e-5 * (3^2 + 4^2).
    velocities = np.zeros(30)
    velocities[[0, 29]] = 3.0, -4.0
    closed = door_reward(observed(palm=(0.3, 0.0, 0.1), handle=(0.0, 0.4, 0.1)), velocities)
    assert closed == pytest.approx(-0.05 - 0.246490 - 0.00025, abs=1e-12)
    still = np.zeros(30)
    for angle, bonus in ((0.2, 0.0), (0.21, 2.0), (1.01, 10.0), (1.36, 20.0)):
        expected = bonus - 0.1 * (angle - 1.57) ** 2
        assert door_reward(observed(angle=angle), still) == pytest.approx(expected, abs=1e-12)


def test_reward_is_the_one_that_the_authors_recorded():
    """A demonstration that opens the door; the velocities come from differences of the joints, 0.01 s apart."""
    arrays = read_arrays(RECORDED)
    observations = arrays["observations"].astype(np.float64)
    rates = (observations[2:, :29] - observations[:-2, :29]) / 0.02
    computed = np.array([door_reward(*step) for step in zip(observations[1:-1], rates)])
    recorded = arrays["rewards"][: len(computed)]  # of the step into each of these observations
    assert recorded.max() > 19 and (recorded < 0).sum() > 100, "all bonuses and none"
    error = np.abs(computed - recorded)
    assert np.median(error) < 5e-5 and error.max() < 2e-3
    # With the distance paid for, as gymnasium-robotics 1.4.2 has it, the same data do not fit.
    distance = np.linalg.norm(observations[1:-1, 29:32] - observations[1:-1, 32:35], axis=1)
    assert np.median(np.abs(computed + 0.2 * distance - recorded)) > 5e-3


def test_the_task_has_d4rls_references():
    assert reference_returns(ENV_ID) == (-56.512833, 2880.5693087298737)
    assert find_spec(ENV_ID).max_episode_steps == TIME_LIMIT == 200


def test_a_missing_simulator_is_one_clear_error(monkeypatch):
    monkeypatch.setitem(sys.modules, "gymnasium_robotics", None)
    with pytest.raises(MissingExtraError, match=r"gymnasium_robotics is not installed: pip install 'rl_jax\[adroit\]'"):
        EnvPool(ENV_ID, 1)


def test_a_saved_pool_goes_on_bitwise_and_pays_the_authors_reward():
    pytest.importorskip("gymnasium_robotics")
    rng, active = np.random.default_rng(0), np.ones(1, bool)
    actions = rng.uniform(-1, 1, (40, 1, 28))
    with EnvPool(ENV_ID, 1, savable=True) as pool:
        assert (*pool.observation_space.shape, *pool.action_space.shape) == SETS["door-human"].dimensions == (39, 28)
        first = pool.reset(np.array([3]))[0]
        for action in actions[:20]:
            pool.step(action, active)
        saved = pool.save()
        expected = [pool.step(action, active) for action in actions[20:]]
    with EnvPool(ENV_ID, 1, savable=True) as pool:
        assert (pool.reset(np.array([4]))[0][32:35] != first[32:35]).any(), "the door stands elsewhere"
        pool.restore(saved)
        for action, wanted in zip(actions[20:], expected):
            for got, array in zip(pool.step(action, active), wanted):
                np.testing.assert_array_equal(got, array)
    for observation, reward, terminated, truncated in expected:
        # The door is shut and the hand waves about: what velocities may cost on top of this is below 0.5.
        at_rest = door_reward(observation[0], np.zeros(30))
        assert at_rest - 0.5 < reward[0] < at_rest and abs(observation[0, HINGE]) < 0.1
        assert not terminated[0] and not truncated[0]
