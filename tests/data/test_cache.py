"""The array cache: hits, damage, and processes that start at once."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from rl_jax.data.cache import content_checksum, files_checksum, open_cached
from rl_jax.data.lock import exclusive
from tests.data.sets import assert_same, make_episodes

ROOT = Path(__file__).parents[2]


def test_a_hit_does_not_decode(tmp_path):
    calls = []

    def decode():
        calls.append(1)
        return make_episodes(extras=True), {"env_id": "Hopper-v4"}

    first, info = open_cached(tmp_path, "key", decode)
    second, again = open_cached(tmp_path, "key", decode)
    assert len(calls) == 1
    assert info == again == {"env_id": "Hopper-v4", "checksum": content_checksum(make_episodes(extras=True))}
    for episodes in (first, second):
        assert_same(episodes, make_episodes(extras=True))
        assert isinstance(episodes.observations, np.memmap)
        with pytest.raises(ValueError, match="read-only"):
            episodes.observations[0, 0] = 1.0
    open_cached(tmp_path, "other", decode)
    assert len(calls) == 2


@pytest.mark.parametrize("damage", ["cut", "gone", "json"])
def test_a_damaged_entry_is_made_anew(tmp_path, damage):
    def decode():
        return make_episodes(), {}

    open_cached(tmp_path, "key", decode)
    entry = next(tmp_path.iterdir())
    if damage == "cut":
        (entry / "rewards.npy").write_bytes((entry / "rewards.npy").read_bytes()[:-8])
    elif damage == "gone":
        (entry / "actions.npy").unlink()
    else:
        (entry / "info.json").write_text("{")
    episodes, _ = open_cached(tmp_path, "key", decode)
    assert_same(episodes, make_episodes())


def test_a_failed_decode_leaves_nothing(tmp_path):
    def decode():
        raise ValueError("bad file")

    with pytest.raises(ValueError, match="bad file"):
        open_cached(tmp_path / "cache", "key", decode)
    assert not list(tmp_path.rglob("*"))


def test_a_slower_twin_takes_the_first_ones_entry(tmp_path):
    """The entry appears while we decode, as when another process was faster."""
    def slow():
        open_cached(tmp_path, "key", lambda: (make_episodes(), {"by": "the other"}))
        return make_episodes(), {"by": "us"}

    _, info = open_cached(tmp_path, "key", slow)
    assert info["by"] == "the other"
    assert len(list(tmp_path.iterdir())) == 1


def test_processes_at_once(tmp_path):
    program = (
        "import sys; from pathlib import Path; from rl_jax.data.cache import *; from tests.data.sets import *;"
        "e, _ = open_cached(Path(sys.argv[1]), 'key', lambda: (make_episodes(True), {}));"
        "assert_same(e, make_episodes(True))"
    )
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])}
    command = [sys.executable, "-c", program, str(tmp_path / "cache")]
    processes = [subprocess.Popen(command, env=environment, cwd=ROOT) for _ in range(2)]
    assert [process.wait(timeout=120) for process in processes] == [0, 0]
    assert len(list((tmp_path / "cache").iterdir())) == 1


def test_the_lock_excludes(tmp_path):
    path = tmp_path / "a" / "lock"
    program = (
        "import sys; from pathlib import Path; from rl_jax.data.lock import exclusive\n"
        "with exclusive(Path(sys.argv[1])): print('in', flush=True)"
    )
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    with exclusive(path):
        other = subprocess.Popen([sys.executable, "-c", program, str(path)], env=environment, stdout=subprocess.PIPE)
        with pytest.raises(subprocess.TimeoutExpired):
            other.wait(timeout=1.5)
    assert other.communicate(timeout=60)[0] == b"in\n"


def test_files_checksum(tmp_path):
    (tmp_path / "a").write_text("1")
    (tmp_path / "b").write_text("2")
    before = files_checksum(tmp_path)
    assert before == files_checksum(tmp_path) != files_checksum(tmp_path / "a")
    (tmp_path / "b").rename(tmp_path / "c")
    renamed = files_checksum(tmp_path)
    (tmp_path / "c").write_text("3")
    assert len({before, renamed, files_checksum(tmp_path)}) == 3
    with pytest.raises(FileNotFoundError, match="no such file"):
        files_checksum(tmp_path / "nowhere")
