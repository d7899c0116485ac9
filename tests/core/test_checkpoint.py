"""Checkpoints: what is saved, what is kept, and what damage does."""

import errno
import json
import zlib
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import orbax.checkpoint as ocp
import pytest
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P

from rl_jax.core import checkpoint
from rl_jax.core.checkpoint import Checkpointer, CheckpointMismatchError
from rl_jax.core.loop import run
from rl_jax.core.mesh import make_mesh
from rl_jax.core.program import TrainState
from tests.core import toys

MESH = make_mesh(data=1, devices=jax.devices()[:1])
SHARDING = NamedSharding(MESH, P())


def state_of(value, width=300):
    params = {"w": jnp.full((1, width), value), "b": jnp.full((1, 4), -value)}
    made = TrainState(jnp.asarray(3, jnp.int32), params, {}, {"mu": jnp.full((1, width), value / 2)}, {})
    return jax.device_put(made, SHARDING)


def abstract_of(state):
    return jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=x.sharding), state)


def saved(directory, steps, keep=5, scores=None, has_source=False):
    checkpointer = Checkpointer(directory, keep=keep, has_source=has_source)
    for step in steps:
        checkpointer.save(step, state_of(float(step)), {"lines": step}, {"n": step}, (scores or {}).get(step))
    checkpointer.wait()
    return checkpointer


def restore(directory, state=None, has_source=False):
    checkpointer = Checkpointer(directory, keep=5, has_source=has_source)
    try:
        return checkpointer.restore(abstract_of(state_of(0.0) if state is None else state))
    finally:
        checkpointer.close()


@pytest.fixture
def warnings_said(monkeypatch):
    said = []
    listening = SimpleNamespace(warning=lambda text, *values: said.append(text % values))
    monkeypatch.setattr(checkpoint, "logging", listening)
    return said


def largest_file(folder):
    return max((path for path in folder.rglob("*") if path.is_file()), key=lambda path: path.stat().st_size)


def test_an_empty_folder_has_nothing_to_restore(tmp_path):
    assert restore(tmp_path / "checkpoints") is None


def test_a_round_trip_is_exact(tmp_path):
    saved(tmp_path, [4, 8]).close()
    found = restore(tmp_path)
    assert (found.step, found.records, found.source) == (8, {"lines": 8}, None)
    for read, wanted in zip(jax.tree.leaves(found.state), jax.tree.leaves(state_of(8.0)), strict=True):
        assert np.array_equal(read, wanted) and read.dtype == wanted.dtype


def test_a_donated_state_was_saved_before_it_was_overwritten(tmp_path):
    checkpointer = Checkpointer(tmp_path, keep=5, has_source=False)
    grow = jax.jit(lambda state: jax.tree.map(lambda x: x + 1, state), donate_argnums=0)
    state = state_of(1.0, width=300_000)
    for step in range(1, 4):
        checkpointer.save(step, state, {})
        for _ in range(3):
            state = grow(state)
    checkpointer.wait()
    for step in (3, 2, 1):
        found = checkpointer._read(step, abstract_of(state))
        assert np.all(np.asarray(found.state.params["w"]) == 1.0 + 3 * (step - 1))
    checkpointer.close()


def test_a_source_is_saved_as_it_was(tmp_path):
    buffer = {"cursor": 3, "name": "a", "rows": [np.arange(4.0), {"x": np.ones((2, 3), np.float32)}], "on": True}
    checkpointer = Checkpointer(tmp_path, keep=5, has_source=True)
    checkpointer.save(1, state_of(1.0), {}, buffer)
    buffer["rows"][0][:] = 9.0  # the run goes on writing into it
    checkpointer.close()
    source = restore(tmp_path, has_source=True).source
    assert (source["cursor"], source["name"], source["on"]) == (3, "a", True)
    assert np.array_equal(source["rows"][0], np.arange(4.0))
    assert source["rows"][1]["x"].dtype == np.float32


def test_the_latest_and_the_best_are_kept(tmp_path):
    checkpointer = saved(tmp_path, range(1, 7), keep=2, scores={2: 5.0, 4: 1.0, 6: 2.0})
    assert checkpointer.steps() == [2, 5, 6]
    checkpointer.close()


def test_half_written_folders_are_cleaned(tmp_path):
    saved(tmp_path, [4]).close()
    planted = tmp_path / "8.orbax-checkpoint-tmp"
    (planted / "state").mkdir(parents=True)
    (planted / "state" / "half").write_bytes(b"x")
    assert restore(tmp_path).step == 4
    assert not planted.exists()


def damage(file, kind):
    raw = file.read_bytes()
    if kind == "truncated":
        file.write_bytes(raw[: len(raw) // 2])
    elif kind == "flipped":
        file.write_bytes(raw[: len(raw) // 2] + bytes([raw[len(raw) // 2] ^ 0x10]) + raw[len(raw) // 2 + 1 :])
    else:
        file.unlink()


@pytest.mark.parametrize("kind", ["truncated", "flipped", "lost"])
@pytest.mark.parametrize("item", ["state", "records", "source"])
def test_a_damaged_newest_falls_back(kind, item, tmp_path, warnings_said):
    saved(tmp_path, [4, 8], has_source=True).close()
    if item == "state":
        target = largest_file(tmp_path / "8" / "state" / "d")
    else:
        target = tmp_path / "8" / item / ("metadata" if item == "records" else "process_0.msgpack")
    damage(target, kind)
    found = restore(tmp_path, has_source=True)
    assert found.step == 4
    assert any("step 8 cannot be read" in text and "from step 4" in text for text in warnings_said)
    assert (tmp_path / "damaged" / "8").is_dir() and not (tmp_path / "8").exists()
    # Its step can be saved again.
    saved(tmp_path, [8]).close()
    assert restore(tmp_path).step == 8


def test_changed_numbers_are_not_what_was_saved(tmp_path, monkeypatch, warnings_said):
    """Bits that storage delivers without an error, but not the ones it was given."""
    saved(tmp_path, [4]).close()
    with monkeypatch.context() as wrong:
        wrong.setattr(checkpoint, "fingerprint", lambda tree: tuple(jnp.uint32(7) for _ in jax.tree.leaves(tree)))
        saved(tmp_path, [8]).close()
    assert restore(tmp_path).step == 4
    assert any("step is not what was saved" in text for text in warnings_said)


def test_nothing_readable_is_an_error_and_moves_nothing(tmp_path):
    saved(tmp_path, [4, 8]).close()
    for step in (4, 8):
        largest_file(tmp_path / str(step) / "state").unlink()
    with pytest.raises(ValueError, match="no checkpoint in .* can be read .*move that folder away"):
        restore(tmp_path)
    assert (tmp_path / "4").is_dir() and (tmp_path / "8").is_dir() and not (tmp_path / "damaged").exists()


@pytest.mark.parametrize("change, named", [
    (lambda s: s.replace(params={"w": s.params["w"][:, :5], "b": s.params["b"]}), r"params/w: \(1, 300\)"),
    (lambda s: s.replace(params=s.params | {"c": s.params["b"]}), "params/c: nothing"),
    (lambda s: s.replace(opt_state={}), r"opt_state/mu: \(1, 300\), and this program has nothing"),
])
def test_another_program_is_told_which_array_differs(change, named, tmp_path):
    saved(tmp_path, [4]).close()
    with pytest.raises(CheckpointMismatchError, match=named):
        restore(tmp_path, change(state_of(0.0)))
    assert (tmp_path / "4").is_dir()


def test_an_error_of_a_save_under_way_surfaces(tmp_path, monkeypatch):
    checkpointer = Checkpointer(tmp_path / "checkpoints", keep=5, has_source=False)
    checkpointer.save(1, state_of(1.0), {})
    checkpointer.wait()

    def full(*_, **__):
        raise OSError("no space left on device")

    monkeypatch.setattr(ocp.JsonCheckpointHandler, "_save_fn", full, raising=True)
    with pytest.raises(Exception, match="no space left"):
        checkpointer.save(2, state_of(2.0), {})
        checkpointer.wait()
    monkeypatch.undo()
    assert restore(tmp_path / "checkpoints").step == 1


def test_a_random_key_is_saved(tmp_path):
    state = state_of(1.0).replace(extra={"key": jax.device_put(jax.random.split(jax.random.key(5), 1), SHARDING)})
    checkpointer = Checkpointer(tmp_path, keep=2, has_source=False)
    checkpointer.save(1, state, {})
    checkpointer.close()
    found = restore(tmp_path, state)
    assert np.array_equal(jax.random.key_data(found.state.extra["key"]), jax.random.key_data(state.extra["key"]))


def test_a_feed_of_another_number_of_processes_is_refused(tmp_path):
    saved(tmp_path, [4], has_source=True).close()
    records = tmp_path / "4" / "records" / "metadata"
    changed = json.loads(records.read_text()) | {"processes": 2}
    del changed["crc"]
    records.write_text(json.dumps(changed | {"crc": zlib.crc32(json.dumps(changed, sort_keys=True).encode())}))
    with pytest.raises(CheckpointMismatchError, match="the source of 2 processes and 1 run now: start 2"):
        restore(tmp_path, has_source=True)
    assert (tmp_path / "4").is_dir()
    assert restore(tmp_path).step == 4


@pytest.mark.parametrize("found", [None, 1, 3])
def test_another_format_is_refused_with_the_remedy(found, tmp_path):
    """Of a release before formats were numbered, or of a later one."""
    saved(tmp_path, [4]).close()
    records = tmp_path / "4" / "records" / "metadata"
    stored = json.loads(records.read_text())
    del stored["format"]
    records.write_text(json.dumps(stored if found is None else stored | {"format": found}))
    message = rf"checkpoint of step 4 in {tmp_path} has format {found or 1}, and this release reads 2: .*another --work"
    with pytest.raises(CheckpointMismatchError, match=message):
        restore(tmp_path)
    assert (tmp_path / "4").is_dir()


def test_leaves_of_a_run_are_read_by_name(tmp_path):
    result = run(toys.experiment(), toys.config(num_seeds=2), tmp_path)
    wanted = ("params/net/out", "opt_state/0/mu/net/out", "params/absent")
    step, found = checkpoint.load_leaves(tmp_path, {name: lambda shape: SHARDING for name in wanted})
    assert step == 20 and found.keys() == {"params/net/out", "opt_state/0/mu/net/out"}
    np.testing.assert_array_equal(found["params/net/out"], result.state.params["net"]["out"])
    earlier, other = checkpoint.load_leaves(tmp_path, {"params/net/out": lambda shape: SHARDING}, step=10)
    assert earlier == 10 and not np.array_equal(other["params/net/out"], found["params/net/out"])
    with pytest.raises(FileNotFoundError, match=r"no checkpoint of step 15: it has \[10, 20\]"):
        checkpoint.load_leaves(tmp_path, {}, step=15)


def test_the_state_of_a_run_is_read_by_others(tmp_path):
    with pytest.raises(FileNotFoundError, match="no such folder"):
        checkpoint.load_state(tmp_path, toys.program(), 2)
    result = run(toys.experiment(), toys.config(num_seeds=2), tmp_path)
    before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")}
    state = checkpoint.load_state(tmp_path, toys.program(), 2)
    for read, trained in zip(jax.tree.leaves(state), jax.tree.leaves(result.state), strict=True):
        np.testing.assert_array_equal(read, trained)
        assert len(read.devices()) == 1
    assert before == {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")}
    with pytest.raises(CheckpointMismatchError, match=r"params/net/kernel: \(2, 4, 16\)"):
        checkpoint.load_state(tmp_path, toys.program(), 3)


def test_a_run_that_has_not_saved_has_no_state(tmp_path):
    (tmp_path / "checkpoints").mkdir()
    with pytest.raises(FileNotFoundError, match="holds no checkpoint"):
        checkpoint.load_state(tmp_path, toys.program(), 1)


def test_a_full_disk_names_the_folder(tmp_path, monkeypatch):
    checkpointer = Checkpointer(tmp_path, keep=5, has_source=False)

    def full(*args, **kwargs):
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(checkpointer._manager, "save", full)
        patched.setattr(checkpointer._manager, "wait_until_finished", full)
        for fails in (lambda: checkpointer.save(1, state_of(1.0), {}), checkpointer.wait):
            with pytest.raises(OSError, match=f"No space left on device: '{tmp_path}'"):
                fails()
    checkpointer.close()
