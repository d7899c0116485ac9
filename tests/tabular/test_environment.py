"""A tabular MDP as an environment, against walking through the table by hand."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rl_jax.envs.environment import ending_at_the_horizon, step_or_restart
from rl_jax.tabular.environment import environment, pictures
from rl_jax.tabular.files import bridge_path, load_screens
from rl_jax.tabular.mdp import Screens, TabularMDP

# 0 -> 1 by action 0, ends by action 1; 1 -> 0 by both.
TINY = TabularMDP(np.array([[1, -1], [0, 0]], np.int32), np.array([[0.0, 1.0], [2.0, 3.0]], np.float32), 3)
PICTURES = Screens(np.array([[[10, 20]], [[255, 0]]], np.uint8), np.array([1, 0], np.int32))


def rollout(env, actions, key):
    """Time steps and observations before each, of one episode and what follows it, restarting where it ends."""
    def step(carry, action_and_key):
        state, observation = carry
        state, following, time_step = step_or_restart(env, state, *action_and_key)
        return (state, following), (time_step, observation)

    keys = jax.random.split(key, len(actions))
    return jax.lax.scan(step, env.reset(key), (jnp.asarray(actions), keys))[1]


def test_the_environment_walks_the_table():
    env = environment(TINY)
    assert env.num_actions == 2 and env.horizon == 3
    time_steps, before = jax.jit(lambda key: rollout(env, [0, 1, 0, 0, 1, 1], key))(jax.random.key(0))
    # 0 -0-> 1 -1-> 0 -0-> 1: time is up; 0 -0-> 1 -1-> 0 -1-> the end, in the last step of the horizon.
    assert time_steps.reward.tolist() == [0.0, 3.0, 0.0, 0.0, 3.0, 1.0]
    assert time_steps.terminated.tolist() == [False, False, False, False, False, True]
    assert time_steps.truncated.tolist() == [False, False, True, False, False, False]
    assert before.tolist() == [[1, 0], [0, 1], [1, 0], [1, 0], [0, 1], [1, 0]]
    assert time_steps.observation.tolist() == [[0, 1], [1, 0], [0, 1], [0, 1], [1, 0], [0, 0]]
    assert time_steps.observation.dtype == time_steps.reward.dtype == jnp.float32


def test_pictures_are_the_states_and_stack():
    env = environment(TINY, observe=pictures(PICTURES))
    time_steps, before = rollout(env, [0, 0, 1], jax.random.key(0))
    assert before.shape == (3, 1, 2, 1)
    assert before.dtype == np.uint8 and before[:2, 0, :, 0].tolist() == [[255, 0], [10, 20]]
    assert not time_steps.observation[2].any()
    stacked = pictures(PICTURES._replace(of_state=np.array([[0, 1], [1, 1]])))
    assert stacked(jnp.array(0))[0].tolist() == [[10, 255], [20, 0]]
    coloured = pictures(Screens(np.full((1, 4, 5, 3), 51, np.uint8), np.zeros(2, np.int32)))
    assert coloured(jnp.array(1)).shape == (4, 5, 3) and int(coloured(jnp.array(1)).max()) == 51


def test_freeway_comes_with_its_pictures():
    screens = load_screens(bridge_path("freeway_10_fs30"))
    assert screens.images.shape == (263, 210, 160, 3) and screens.of_state.shape == (197,)
    framestack = load_screens(bridge_path("freeway_10_fs30_framestack"))
    assert pictures(framestack)(jnp.array(5)).shape == (84, 84, 4)


def test_sticky_actions_repeat_what_was_executed_but_not_at_the_first_step():
    # Reward 10^state when action 1 is executed: the state counts the steps, so the digits tell what was executed.
    steps, sticky = 4, 0.25
    table = np.repeat(np.arange(1, steps + 1)[:, None] % steps, 2, 1)
    mdp = TabularMDP(table, np.stack([np.zeros(steps), 10.0 ** np.arange(steps)], 1), steps)
    env = environment(mdp, sticky=sticky)

    def executed(key):
        return rollout(env, [1, 0, 0, 0], key)[0].reward > 0

    ones = np.asarray(jax.jit(jax.vmap(executed))(jax.random.split(jax.random.key(1), 20_000)))
    assert ones[:, 0].all()
    # Action 1 goes on only as long as each step repeats it.
    for step in range(1, steps):
        assert ones[:, step].mean() == pytest.approx(sticky**step, abs=4 * np.sqrt(sticky**step / 20_000))
        assert not (ones[:, step] & ~ones[:, step - 1]).any()
    for wrong in (-0.1, 1.0, np.nan):
        with pytest.raises(ValueError, match="sticky is .*: give a probability"):
            environment(mdp, sticky=wrong)


def test_where_the_horizon_ends_the_problem_it_is_a_terminal():
    mdp = TabularMDP(np.array([[0, -1]], np.int32), np.array([[1.0, 2.0]], np.float32), 2)
    plain = environment(mdp)
    ends = []
    for world in (plain, ending_at_the_horizon(plain)):
        state, _ = world.reset(jax.random.key(0))
        for _ in range(2):
            state, stepped = world.step(state, jnp.int32(0), jax.random.key(0))
            ends.append((bool(stepped.terminated), bool(stepped.truncated)))
    assert ends == [(False, False), (False, True), (False, False), (True, False)]
