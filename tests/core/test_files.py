"""Files: written whole or not at all, read with errors that name them, locked by one."""

import errno
import subprocess
import sys

import pytest

from rl_jax.core.files import atomically, hold, naming, read_json, read_lines, read_text, write_atomically


def test_a_write_that_fails_leaves_the_old_file_and_nothing_else(tmp_path):
    path = tmp_path / "kept"
    write_atomically(path, "old")
    with pytest.raises(OSError, match=f"No space left on device: '{path}'"), atomically(path) as file:
        file.write(b"half")
        raise OSError(errno.ENOSPC, "No space left on device")
    assert path.read_text() == "old" and list(tmp_path.iterdir()) == [path]


def test_an_error_that_names_a_file_keeps_it():
    with pytest.raises(FileNotFoundError, match="/nowhere/file"), naming("other"):
        open("/nowhere/file")


def test_only_a_line_feed_ends_a_line_and_a_mark_is_no_text(tmp_path):
    path = tmp_path / "lines"
    path.write_bytes("\ufeffone\u2028still\x0bone\r\ntwo\n\nfour".encode())
    assert read_lines(path) == ["one\u2028still\x0bone", "two", "", "four"]
    path.write_bytes(b"")
    assert read_lines(path) == []


@pytest.mark.parametrize("read, content", [
    (read_json, b'{"a": '), (read_json, b"[" * 100_000), (read_json, b"1" * 5000), (read_json, b"\xff"),
    (read_text, b"\xff\xfe\x00"),
])
def test_a_damaged_file_is_named_with_a_remedy(tmp_path, read, content):
    path = tmp_path / "config.json"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=f"{path} is .*: (restore it|save it)"):
        read(path)


def test_a_folder_is_held_by_one_process_and_free_after_it_was_killed(tmp_path):
    lock = tmp_path / ".lock"
    code = (
        "import sys, time; from pathlib import Path; from rl_jax.core.files import hold\n"
        f"held = hold(Path({str(lock)!r}), 'wait'); print('held', flush=True); time.sleep(60)"
    )
    child = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    try:
        assert child.stdout.readline() == "held\n"
        with pytest.raises(ValueError, match=rf"{tmp_path} is in use by process {child.pid} on .* since .*: go away"):
            hold(lock, "go away")
    finally:
        child.kill()
        child.wait()
    hold(lock, "go away").close()
    hold(lock, "go away").close()
