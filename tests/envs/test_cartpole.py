"""CartPole against Gymnasium's, step by step."""

import functools

import gymnasium
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rl_jax.envs.cartpole import TIME_LIMIT, CartPoleState, cartpole
from rl_jax.envs.environment import step_or_restart

ENVIRONMENT = cartpole()
KEY = jax.random.key(0)


@functools.cache
def steps_from():
    return jax.jit(jax.vmap(lambda state, action: ENVIRONMENT.step(state, action, KEY)))


def played(policy, seed):
    """Gymnasium's steps of one episode: motions before, actions, and what each step gave."""
    env = gymnasium.make("CartPole-v1")
    observation, _ = env.reset(seed=seed)
    rows, ended = [], False
    while not ended:
        before = np.array(env.unwrapped.state, np.float64)
        action = policy(observation)
        observation, reward, terminated, truncated, _ = env.step(action)
        rows.append((before, action, observation, reward, terminated, truncated))
        ended = terminated or truncated
    return [np.array(column) for column in zip(*rows, strict=True)]


def balancing(observation):
    """Keeps the pole up and, as it pushes back a cart that drifts, the cart on the track."""
    return int(0.1 * observation[0] + 0.3 * observation[1] + 3 * observation[2] + observation[3] > 0)


RNG = np.random.default_rng(0)
POLICIES = {"random": lambda x: int(RNG.integers(2)), "left": lambda x: 0, "right": lambda x: 1, "upright": balancing}


@pytest.mark.parametrize("policy", POLICIES)
def test_every_step_is_gymnasiums(policy):
    for seed in range(3):
        before, actions, observations, rewards, terminated, truncated = played(POLICIES[policy], seed)
        counts = jnp.arange(len(actions), dtype=jnp.int32)
        state = CartPoleState(jnp.asarray(before, jnp.float32), counts)
        after, ours = steps_from()(state, jnp.asarray(actions))
        np.testing.assert_allclose(ours.observation, observations, atol=1e-5, rtol=1e-5)
        np.testing.assert_array_equal(after.motion, ours.observation)
        np.testing.assert_array_equal(ours.reward, rewards)
        np.testing.assert_array_equal(ours.terminated, terminated)
        np.testing.assert_array_equal(ours.truncated, truncated)
        np.testing.assert_array_equal(after.steps, counts + 1)
        if policy == "upright":
            assert len(actions) == TIME_LIMIT and truncated[-1]
        else:
            assert terminated[-1]


def test_a_fall_in_the_last_step_is_a_terminal_and_no_time_out():
    falling = CartPoleState(jnp.array([0.0, 0.0, 0.3, 0.0]), jnp.int32(TIME_LIMIT - 1))
    _, time_step = ENVIRONMENT.step(falling, jnp.int32(0), KEY)
    assert time_step.terminated and not time_step.truncated


def test_episodes_start_uniformly_within_bounds():
    state, observations = jax.vmap(ENVIRONMENT.reset)(jax.random.split(KEY, 2000))
    np.testing.assert_array_equal(state.motion, observations)
    assert not np.any(state.steps)
    assert np.abs(observations).max() <= 0.05
    # Mean and variance of a uniform distribution within +-0.05, in each of the four.
    np.testing.assert_allclose(observations.mean(0), 0.0, atol=0.003)
    np.testing.assert_allclose(observations.var(0), 0.1**2 / 12, rtol=0.1)


def test_an_ended_episode_starts_over_and_hands_out_what_it_led_to():
    falling = CartPoleState(jnp.array([0.0, 0.0, 0.3, 0.0]), jnp.int32(7))
    state, observation, time_step = step_or_restart(ENVIRONMENT, falling, jnp.int32(1), KEY)
    assert time_step.terminated and time_step.observation[2] > 0.2
    assert state.steps == 0 and np.abs(observation).max() <= 0.05
    np.testing.assert_array_equal(state.motion, observation)
