"""The probe environments: their steps, and their values by dynamic programming over what they give."""

import jax
import jax.numpy as jnp
import pytest

from rl_jax.envs import probes

DISCOUNT = 0.7
VALUES = {
    probes.constant_reward: {0.0: 1.0},
    probes.observed_reward: {-1.0: -1.0, 1.0: 1.0},
    probes.chosen_reward: {0.0: 1.0},
    probes.matched_reward: {-1.0: 1.0, 1.0: 1.0},
    probes.late_reward: {0.0: DISCOUNT},
}


def best(environment, state, key):
    """The largest return from a state, by trying every action at every step."""
    returns = []
    for action in range(environment.num_actions):
        after, step = environment.step(state, jnp.int32(action), key)
        assert not step.truncated and step.observation.shape == (1,)
        later = 0.0 if step.terminated else best(environment, after, key)
        returns.append(float(step.reward) + DISCOUNT * later)
    return max(returns)


@pytest.mark.parametrize("make", VALUES, ids=lambda make: make.__name__)
def test_values_of_the_docstrings(make):
    environment, seen = make(), {}
    for seed in range(12):
        state, observation = environment.reset(jax.random.key(seed))
        value = best(environment, state, jax.random.key(seed))
        assert seen.setdefault(float(observation[0]), value) == value
    assert seen == pytest.approx(VALUES[make])


def test_the_time_out_never_terminates():
    environment = probes.time_out()
    state, _ = environment.reset(jax.random.key(0))
    flags = []
    for _ in range(environment.horizon):
        state, step = environment.step(state, jnp.int32(0), jax.random.key(0))
        assert (float(step.observation[0]), float(step.reward)) == (0.0, 1.0) and not step.terminated
        flags.append(bool(step.truncated))
    assert flags == [False, False, True]
