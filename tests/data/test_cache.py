"""The array cache: hits, damage, and processes that start at once."""

import dataclasses
import errno
import os
import stat
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import pytest

from rl_jax.core.files import exclusive
from rl_jax.data.cache import content_checksum, files_checksum, open_cached
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


def flip_a_bit(file):
    content = bytearray(file.read_bytes())
    content[-3] ^= 0x40
    file.write_bytes(content)


DAMAGES = {
    "cut": lambda entry: (entry / "2.npy").write_bytes((entry / "2.npy").read_bytes()[:-8]),
    "gone": lambda entry: (entry / "1.npy").unlink(),
    "flipped": lambda entry: flip_a_bit(entry / "2.npy"),
    "cut json": lambda entry: (entry / "info.json").write_text("{"),
    "other json": lambda entry: (entry / "info.json").write_text("[1]"),
    "no text": lambda entry: (entry / "info.json").write_text('{"content": 1, "crc": 1}'),
    "changed json": lambda entry: (entry / "info.json").write_text(
        (entry / "info.json").read_text().replace("Hopper", "Hoper")
    ),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_entry_is_made_anew(tmp_path, damage, caplog):
    calls = []

    def decode():
        calls.append(1)
        return make_episodes(), {"env_id": "Hopper-v4"}

    open_cached(tmp_path, "key", decode)
    DAMAGES[damage](next(tmp_path.iterdir()))
    episodes, info = open_cached(tmp_path, "key", decode)
    assert len(calls) == 2 and info["env_id"] == "Hopper-v4" and "making it anew" in caplog.text
    assert_same(episodes, make_episodes())


def test_a_damaged_entry_of_another_user_is_named(tmp_path, monkeypatch):
    open_cached(tmp_path, "key", lambda: (make_episodes(), {}))
    flip_a_bit(next(tmp_path.iterdir()) / "0.npy")
    monkeypatch.setattr("shutil.rmtree", lambda *args, **kwargs: None)  # as where the entry may not be removed
    with pytest.raises(ValueError, match=r"key-2: this cache entry is damaged .*observations.*: remove it, or name"):
        open_cached(tmp_path, "key", lambda: (make_episodes(), {}))


def test_no_name_of_a_field_decides_about_a_path(tmp_path):
    extras = {name: make_episodes().rewards for name in ("../../X", "/X", "../observations", "infos/cost")}
    episodes = dataclasses.replace(make_episodes(), extras=extras)
    cached, _ = open_cached(tmp_path / "a" / "b", "key", lambda: (episodes, {}))
    assert_same(cached, episodes)
    written = {path.name for path in tmp_path.rglob("*") if path.is_file()}
    assert written == {"info.json", *(f"{number}.npy" for number in range(11))}


def test_other_users_may_read_an_entry(tmp_path):
    before = os.umask(0o022)
    try:
        open_cached(tmp_path, "key", lambda: (make_episodes(), {}))
    finally:
        os.umask(before)
    entry = next(tmp_path.iterdir())
    assert stat.S_IMODE(entry.stat().st_mode) == 0o755
    assert {stat.S_IMODE(file.stat().st_mode) for file in entry.iterdir()} == {0o644}


@pytest.fixture
def open_folder():
    """A folder that every user may enter; pytest's own are closed."""
    with tempfile.TemporaryDirectory() as folder:
        os.chmod(folder, 0o755)
        yield Path(folder)
        for path in Path(folder).rglob("*"):
            path.chmod(0o755)


def test_other_users_may_take_a_lock(open_folder):
    lock = open_folder / "locks" / "set.lock"
    before = os.umask(0o022)
    try:
        with exclusive(lock):
            pass
    finally:
        os.umask(before)
    assert [stat.S_IMODE(path.stat().st_mode) for path in (lock.parent, lock)] == [0o755, 0o644]
    lock.chmod(0o444)  # as another user sees it
    lock.parent.chmod(0o555)
    program = (
        "import os, sys; from pathlib import Path; from rl_jax.core.files import exclusive\n"
        "if os.getuid() == 0: os.seteuid(65534)\n"
        "with exclusive(Path(sys.argv[1])): print('in')"
    )
    done = subprocess.run([sys.executable, "-c", program, str(lock)], env={**os.environ, "PYTHONPATH": str(ROOT)},
                          capture_output=True, text=True)
    assert done.stdout == "in\n", done.stderr


def closed(path, number=errno.EACCES):
    return OSError(number, os.strerror(number), str(path))


def test_an_entry_that_is_closed_to_this_user_stays_and_is_named(tmp_path, monkeypatch):
    open_cached(tmp_path, "key", lambda: (make_episodes(), {}))
    entry = next(tmp_path.iterdir())

    def read_text(path):
        raise closed(path)

    monkeypatch.setattr(Path, "read_text", read_text)
    with pytest.raises(PermissionError, match="denied: '.*key-2/info.json': you may not .* --config.dataset.d"):
        open_cached(tmp_path, "key", lambda: pytest.fail("decoded"))
    assert entry.exists()


@pytest.mark.parametrize("number", [errno.EACCES, errno.EROFS])
def test_a_folder_that_this_user_may_not_add_to_is_named(tmp_path, monkeypatch, number):
    def mkdir(path, *args, **kwargs):
        raise closed(path, number)

    monkeypatch.setattr(Path, "mkdir", mkdir)
    with pytest.raises(PermissionError, match=f"have its owner open it .* name another folder than {tmp_path} with"):
        open_cached(tmp_path, "key", lambda: (make_episodes(), {}))


def test_a_full_disk_is_named(tmp_path, monkeypatch):
    def full(*args, **kwargs):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(np, "save", full)
    with pytest.raises(OSError, match="No space left on device: .*cache"):
        open_cached(tmp_path / "cache", "key", lambda: (make_episodes(), {}))
    assert not list((tmp_path / "cache").iterdir())


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
        "import sys; from pathlib import Path; from rl_jax.core.files import exclusive\n"
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
