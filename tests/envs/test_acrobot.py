"""Acrobot against Gymnasium's, step by step."""

import gymnasium
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rl_jax.envs.acrobot import TIME_LIMIT, AcrobotState, acrobot

ENVIRONMENT = acrobot()
STEPS = jax.jit(jax.vmap(lambda state, action: ENVIRONMENT.step(state, action, jax.random.key(0))))
RNG = np.random.default_rng(0)
# By the second link's speed: pumping swings it up, braking keeps it down until the time is out.
POLICIES = {"random": lambda x: int(RNG.integers(3)), "pump": lambda x: int(np.sign(x[5])) + 1,
            "brake": lambda x: 1 - int(np.sign(x[5]))}


@pytest.mark.parametrize("policy", POLICIES)
def test_every_step_is_gymnasiums(policy):
    env = gymnasium.make("Acrobot-v1")
    observation, _ = env.reset(seed=1)
    rows, ended = [], False
    while not ended:
        before, action = np.array(env.unwrapped.state, np.float64), POLICIES[policy](observation)
        observation, reward, terminated, truncated, _ = env.step(action)
        rows.append((before, action, observation, reward, terminated, truncated))
        ended = terminated or truncated
    before, actions, observations, rewards, terminated, truncated = (np.array(x) for x in zip(*rows, strict=True))
    state = AcrobotState(jnp.asarray(before, jnp.float32), jnp.arange(len(actions), dtype=jnp.int32))
    _, ours = STEPS(*jax.tree.map(lambda x: jnp.resize(x, (TIME_LIMIT, *x.shape[1:])), (state, jnp.asarray(actions))))
    found = jax.tree.map(lambda x: np.asarray(x)[: len(actions)], ours)
    np.testing.assert_allclose(found.observation, observations, atol=2e-4, rtol=1e-4)
    np.testing.assert_array_equal(found.reward, rewards)
    np.testing.assert_array_equal(found.terminated, terminated)
    np.testing.assert_array_equal(found.truncated, truncated)
    assert terminated[-1] == (policy == "pump") or policy == "random"


def test_an_episode_starts_near_rest():
    state, observation = ENVIRONMENT.reset(jax.random.key(3))
    assert np.abs(state.motion).max() <= 0.1 and observation.shape == (6,)
    np.testing.assert_allclose(observation[:2], [np.cos(state.motion[0]), np.sin(state.motion[0])], rtol=1e-6)
