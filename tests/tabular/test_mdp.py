"""Files of tabular MDPs, what is wrong with bad ones, and the environment against walking through the table by hand."""

import hashlib
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rl_jax.envs import tabular
from rl_jax.envs.environment import ending_at_the_horizon, step_or_restart
from rl_jax.envs.tabular import BRIDGE, BRIDGE_DIR, BRIDGE_EXPLORATION, Screens, TabularMDP, environment, load_mdp

# 0 -> 1 by action 0, ends by action 1; 1 -> 0 by both.
TINY = TabularMDP(np.array([[1, -1], [0, 0]], np.int32), np.array([[0.0, 1.0], [2.0, 3.0]], np.float32), 3)
PICTURES = Screens(np.array([[[10, 20]], [[255, 0]]], np.uint8), np.array([1, 0], np.int32))


def write(path, **arrays):
    np.savez(path, **arrays)
    return path


def same(first, second):
    np.testing.assert_array_equal(first.transitions, second.transitions)
    np.testing.assert_array_equal(first.rewards, second.rewards)
    return first.horizon == second.horizon


def test_what_is_saved_is_loaded(tmp_path):
    path = tmp_path / "folder" / "tiny.npz"
    tabular.save_mdp(path, TINY, PICTURES)
    loaded, screens = load_mdp(path), tabular.load_screens(path)
    assert same(loaded, TINY) and loaded.transitions.dtype == np.int32 and loaded.rewards.dtype == np.float32
    assert load_mdp(path, horizon=7).horizon == 7
    np.testing.assert_array_equal(screens.images, PICTURES.images)
    np.testing.assert_array_equal(screens.of_state, PICTURES.of_state)
    assert [file.name for file in path.parent.iterdir()] == ["tiny.npz"]
    assert tabular.checksum(loaded) == tabular.checksum(TINY) != tabular.checksum(TINY.replace(horizon=4))


def test_a_failed_save_leaves_the_old_file(tmp_path, monkeypatch):
    path = tmp_path / "tiny.npz"
    tabular.save_mdp(path, TINY)

    def fail(*args, **kwargs):
        raise OSError("disk full")

    monkeypatch.setattr(np, "savez_compressed", fail)
    with pytest.raises(OSError, match="disk full"):
        tabular.save_mdp(path, TINY.replace(horizon=9))
    assert load_mdp(path).horizon == 3 and len(list(tmp_path.iterdir())) == 1


GOOD = {"transitions": TINY.transitions, "rewards": TINY.rewards, "horizon": 3}
BAD = {
    "out of range": ({"transitions": np.array([[1, 2], [0, 0]])}, "transitions[0, 1] is 2 (1 such entries)", "0 to 1"),
    "below -1": ({"transitions": np.array([[1, 1], [0, -2]])}, "transitions[1, 1] is -2", "-1 where the episode ends"),
    "NaN": ({"rewards": np.array([[0.0, 1.0], [np.nan, 0.0]])}, "rewards[1, 0] is nan", "finite"),
    "infinite": ({"rewards": np.array([[np.inf, 1.0], [np.inf, 0.0]])}, "rewards[0, 0] is inf (2", "finite"),
    "shapes": ({"rewards": np.zeros((2, 3))}, "rewards has shape (2, 3) and transitions (2, 2)", "[states, actions]"),
    "flat": ({"transitions": np.zeros(4, int)}, "transitions has shape (4,)", "[states, actions]"),
    "no states": ({"transitions": np.zeros((0, 2), int)}, "transitions has shape (0, 2)", "at least one"),
    "floats": ({"transitions": np.zeros((2, 2))}, "transitions has dtype float64", "integers"),
    "complex": ({"rewards": np.zeros((2, 2), complex)}, "rewards has dtype complex128", "float32"),
    "horizon": ({"horizon": 0}, "horizon is 0", "at least 1"),
}


@pytest.mark.parametrize("fault", BAD)
def test_a_bad_file_is_named_with_field_index_and_remedy(tmp_path, fault):
    arrays, what, remedy = BAD[fault]
    path = write(tmp_path / "bad.npz", **(GOOD | arrays))
    with pytest.raises(ValueError, match=f"{re.escape(str(path))}: .*{re.escape(what)}.*{re.escape(remedy)}"):
        load_mdp(path)


def test_a_file_that_is_none_or_lacks_something_says_so(tmp_path):
    with pytest.raises(FileNotFoundError, match="absent.npz: no such file: give an npz"):
        load_mdp(tmp_path / "absent.npz")
    with pytest.raises(ValueError, match="no array 'rewards', it has transitions"):
        load_mdp(write(tmp_path / "half.npz", transitions=TINY.transitions))
    path = write(tmp_path / "whole.npz", transitions=TINY.transitions, rewards=TINY.rewards)
    with pytest.raises(ValueError, match="the file has no horizon: give the number of steps"):
        load_mdp(path)
    endless = write(tmp_path / "endless.npz", transitions=np.zeros((2, 2), int), rewards=TINY.rewards)
    with pytest.raises(ValueError, match="no horizon and no transition ends an episode: give"):
        load_mdp(endless)
    content = path.read_bytes()
    for damage in (content[: len(content) // 2], b"no zip at all", b"", content[:60] + b"\xff" * 40 + content[100:]):
        (tmp_path / "corrupt.npz").write_bytes(damage)
        with pytest.raises(ValueError, match="corrupt.npz: not a readable npz file .*: write it again"):
            load_mdp(tmp_path / "corrupt.npz", 3)


def test_bad_screens_are_named(tmp_path):
    arrays = {"screens": PICTURES.images, "screen_mapping": np.array([0, 2])}
    with pytest.raises(ValueError, match=r"screen_mapping\[1\] is 2: use 0 to 1"):
        tabular.load_screens(write(tmp_path / "a.npz", **arrays))
    with pytest.raises(ValueError, match="screens is float64"):
        tabular.load_screens(write(tmp_path / "b.npz", **(arrays | {"screens": np.zeros((2, 1, 2))})))
    with pytest.raises(ValueError, match="screen_mapping is float64"):
        tabular.load_screens(write(tmp_path / "c.npz", **(arrays | {"screen_mapping": np.zeros(2)})))


def test_the_bridge_mdps_are_those_of_their_table():
    table = (BRIDGE_DIR / "SOURCE.md").read_text()
    rows = re.findall(r"^\| (\S+)\.npz.*\| (\d+) x (\d+) \| (\d+) \| (\w{64}) \|$", table, flags=re.MULTILINE)
    assert {name for name, *_ in rows} == {path.stem for path in BRIDGE_DIR.glob("*.npz")}
    for name, states, actions, horizon, digest in rows:
        assert hashlib.sha256((BRIDGE_DIR / f"{name}.npz").read_bytes()).hexdigest() == digest
        if name in BRIDGE:
            mdp = tabular.bridge_mdp(name)
            assert (*mdp.rewards.shape, mdp.horizon) == (int(states), int(actions), int(horizon))
    for name in BRIDGE_EXPLORATION:
        mdp, policy = tabular.bridge_mdp(name), tabular.bridge_exploration_policy(name)
        assert policy.shape == (mdp.horizon, *mdp.rewards.shape)
        np.testing.assert_allclose(policy.sum(-1), 1.0, atol=1e-6)
    for lookup in (tabular.bridge_mdp, tabular.bridge_exploration_policy):
        with pytest.raises(ValueError, match="'pong'.*use one of"):
            lookup("pong")


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
    env = environment(TINY, observe=tabular.pictures(PICTURES))
    time_steps, before = rollout(env, [0, 0, 1], jax.random.key(0))
    assert before.shape == (3, 1, 2, 1)
    assert before.dtype == np.uint8 and before[:2, 0, :, 0].tolist() == [[255, 0], [10, 20]]
    assert not time_steps.observation[2].any()
    stacked = tabular.pictures(PICTURES._replace(of_state=np.array([[0, 1], [1, 1]])))
    assert stacked(jnp.array(0))[0].tolist() == [[10, 255], [20, 0]]
    coloured = tabular.pictures(Screens(np.full((1, 4, 5, 3), 51, np.uint8), np.zeros(2, np.int32)))
    assert coloured(jnp.array(1)).shape == (4, 5, 3) and int(coloured(jnp.array(1)).max()) == 51


def test_freeway_comes_with_its_pictures():
    screens = tabular.load_screens(tabular.bridge_path("freeway_10_fs30"))
    assert screens.images.shape == (263, 210, 160, 3) and screens.of_state.shape == (197,)
    framestack = tabular.load_screens(tabular.bridge_path("freeway_10_fs30_framestack"))
    assert tabular.pictures(framestack)(jnp.array(5)).shape == (84, 84, 4)


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
