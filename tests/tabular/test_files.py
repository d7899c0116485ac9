"""Files of tabular MDPs: what is saved is loaded, what is wrong with bad ones is named, and BRIDGE's are its own."""

import hashlib
import re

import numpy as np
import pytest

from rl_jax.tabular import files
from rl_jax.tabular.files import BRIDGE, BRIDGE_DIR, BRIDGE_EXPLORATION, load_mdp
from rl_jax.tabular.mdp import Screens, TabularMDP, checksum

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
    files.save_mdp(path, TINY, PICTURES)
    loaded, screens = load_mdp(path), files.load_screens(path)
    assert same(loaded, TINY) and loaded.transitions.dtype == np.int32 and loaded.rewards.dtype == np.float32
    assert load_mdp(path, horizon=7).horizon == 7
    np.testing.assert_array_equal(screens.images, PICTURES.images)
    np.testing.assert_array_equal(screens.of_state, PICTURES.of_state)
    assert [file.name for file in path.parent.iterdir()] == ["tiny.npz"]
    assert checksum(loaded) == checksum(TINY) != checksum(TINY.replace(horizon=4))


def test_a_failed_save_leaves_the_old_file(tmp_path, monkeypatch):
    path = tmp_path / "tiny.npz"
    files.save_mdp(path, TINY)

    def fail(*args, **kwargs):
        raise OSError("disk full")

    monkeypatch.setattr(np, "savez_compressed", fail)
    with pytest.raises(OSError, match="disk full"):
        files.save_mdp(path, TINY.replace(horizon=9))
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
        with pytest.raises(ValueError, match="corrupt.npz: not a readable npz file.*: write it again with save_mdp"):
            load_mdp(tmp_path / "corrupt.npz", 3)


def test_bad_screens_are_named(tmp_path):
    arrays = {"screens": PICTURES.images, "screen_mapping": np.array([0, 2])}
    with pytest.raises(ValueError, match=r"screen_mapping\[1\] is 2: use 0 to 1"):
        files.load_screens(write(tmp_path / "a.npz", **arrays))
    with pytest.raises(ValueError, match="screens is float64"):
        files.load_screens(write(tmp_path / "b.npz", **(arrays | {"screens": np.zeros((2, 1, 2))})))
    with pytest.raises(ValueError, match="screen_mapping is float64"):
        files.load_screens(write(tmp_path / "c.npz", **(arrays | {"screen_mapping": np.zeros(2)})))


def test_the_bridge_mdps_are_those_of_their_table():
    table = (BRIDGE_DIR / "SOURCE.md").read_text()
    rows = re.findall(r"^\| (\S+)\.npz.*\| (\d+) x (\d+) \| (\d+) \| (\w{64}) \|$", table, flags=re.MULTILINE)
    assert {name for name, *_ in rows} == {path.stem for path in BRIDGE_DIR.glob("*.npz")}
    for name, states, actions, horizon, digest in rows:
        assert hashlib.sha256((BRIDGE_DIR / f"{name}.npz").read_bytes()).hexdigest() == digest
        if name in BRIDGE:
            mdp = files.bridge_mdp(name)
            assert (*mdp.rewards.shape, mdp.horizon) == (int(states), int(actions), int(horizon))
    for name in BRIDGE_EXPLORATION:
        mdp, policy = files.bridge_mdp(name), files.bridge_exploration_policy(name)
        assert policy.shape == (mdp.horizon, *mdp.rewards.shape)
        np.testing.assert_allclose(policy.sum(-1), 1.0, atol=1e-6)
    for lookup in (files.bridge_mdp, files.bridge_exploration_policy):
        with pytest.raises(ValueError, match="'pong'.*use one of"):
            lookup("pong")
