"""A game stepped on the host is the table of its states, in any batch, and goes on from a saved state."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rl_jax.tabular.files import bridge_mdp

pytest.importorskip("ale_py")
from rl_jax.envs.atari import Emulator, atari  # noqa: E402

HORIZON = 6


@pytest.fixture(scope="module")
def freeway():
    return atari("freeway", horizon=HORIZON, frameskip=30, frame_stack=2, num_threads=2)


def rollout(env, state, actions):
    """(state, time steps [T, ...]) of actions [T]."""
    return jax.lax.scan(lambda state, action: env.step(state, action, jax.random.key(0)), state, actions)


def test_its_rewards_are_those_of_the_table(freeway):
    mdp = bridge_mdp("freeway_10_fs30")
    up = np.zeros((1, HORIZON), int) + 1
    sequences = np.concatenate([up, np.random.default_rng(0).integers(0, 3, (7, HORIZON))])
    states, _ = jax.vmap(freeway.reset)(jax.random.split(jax.random.key(0), 8))
    _, stepped = jax.jit(jax.vmap(lambda state, actions: rollout(freeway, state, actions)))(states, sequences)
    for rewards, sequence in zip(stepped.reward, sequences, strict=True):
        state, expected = 0, []
        for action in sequence:
            expected.append(mdp.rewards[state, action])
            state = mdp.transitions[state, action]
        np.testing.assert_allclose(rewards, expected, atol=1e-6)
    assert stepped.reward.sum() > 0 and stepped.observation.shape == (8, HORIZON, 84, 84, 2)
    # The horizon is a time-out; the newest screen comes last and becomes the older one.
    np.testing.assert_array_equal(stepped.truncated[0], np.arange(1, HORIZON + 1) == HORIZON)
    assert not stepped.terminated.any()
    np.testing.assert_array_equal(stepped.observation[:, 1:, ..., 0], stepped.observation[:, :-1, ..., 1])
    assert (stepped.observation[0, 0, ..., 0] != stepped.observation[0, 0, ..., 1]).any()


def test_it_goes_on_from_a_saved_state(freeway):
    actions = jnp.array([1, 1, 2, 0, 1, 1])
    start, _ = freeway.reset(jax.random.key(0))
    _, whole = rollout(freeway, start, actions)
    middle, _ = rollout(freeway, start, actions[:3])
    again = jax.tree.map(lambda x: jnp.asarray(np.asarray(x).copy()), middle)
    _, rest = rollout(atari("freeway", horizon=HORIZON, frameskip=30, frame_stack=2), again, actions[3:])
    jax.tree.map(lambda x, y: np.testing.assert_array_equal(x[3:], y), whole, rest)


def test_sticky_actions_repeat_the_one_executed():
    env = atari("freeway", horizon=HORIZON, frameskip=1, sticky=0.5, num_threads=1)
    state, _ = env.reset(jax.random.key(0))
    keys, actions = jax.random.split(jax.random.key(1), 40), jnp.arange(40) % 3
    _, executed = jax.lax.scan(
        lambda state, inputs: (lambda after: (after, after.previous_action))(env.step(state, *inputs)[0]),
        state, (actions, keys),
    )
    repeats = np.asarray(executed[1:]) == np.asarray(executed[:-1])
    assert executed[0] == actions[0] and 10 < repeats.sum() < 30
    np.testing.assert_array_equal(np.where(repeats, actions[1:], executed[1:]), actions[1:])


def test_bad_settings_are_named():
    with pytest.raises(ValueError, match="no Atari game 'nosuch'"):
        Emulator("nosuch", 1)
    with pytest.raises(ValueError, match="horizon=0, frameskip=1, frame_stack=4: give at least 1 of each"):
        atari("freeway", horizon=0, frameskip=1)
