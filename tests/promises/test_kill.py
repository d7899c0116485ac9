"""Kill safety: what a killed process leaves behind is always enough to go on, and to end at the same place."""

import random
import shutil
import signal
from types import SimpleNamespace

import pytest
from absl import logging

from rl_jax.core import checkpoint
from tests.promises.cases import STEPS, TOY
from tests.promises.runner import assert_same, execute, finish, start

OFTEN = {"checkpoint.every": 1, "loop.chunk": 1, "checkpoint.keep": 3}
KILLS = 2


def saved_steps(workdir):
    return sorted(int(path.name) for path in (workdir / "checkpoints").iterdir() if path.name.isdigit())


def test_sigkill_at_random_moments(unbroken, tmp_path):
    """Saves are under way all the time, so the kills fall into them as well."""
    moments = random.Random(13)
    reached = 0
    for _ in range(KILLS):
        ended = finish(start(TOY, tmp_path, OFTEN, die=f"KILL+{moments.uniform(0.05, 0.6):.2f}"))
        assert ended.code in (-signal.SIGKILL, 0), ended.stderr
        steps = saved_steps(tmp_path)
        # No kill takes back what was saved.
        assert not steps or steps[-1] >= reached
        reached = steps[-1] if steps else 0
    last = execute(TOY, tmp_path, OFTEN)
    assert last.result.trained_steps <= STEPS - reached
    assert_same(last, unbroken(TOY))


def test_a_half_written_checkpoint_is_ignored_and_cleaned(unbroken, tmp_path):
    execute(TOY, tmp_path, {"num_steps": 8, "checkpoint.every": 4})
    planted = tmp_path / "checkpoints" / "12.orbax-checkpoint-tmp"
    shutil.copytree(tmp_path / "checkpoints" / "8", planted)
    shutil.rmtree(planted / "state")
    (planted / "commit_success.txt").unlink(missing_ok=True)
    resumed = execute(TOY, tmp_path)
    assert resumed.result.trained_steps == STEPS - 8
    assert resumed.hashes == unbroken(TOY).hashes
    assert not planted.exists()


@pytest.mark.parametrize("damage", ["truncated", "lost"])
def test_a_corrupt_newest_checkpoint_falls_back(damage, unbroken, tmp_path, monkeypatch):
    execute(TOY, tmp_path, {"num_steps": 16})
    newest = tmp_path / "checkpoints" / "16"
    assert newest.is_dir()
    files = [path for path in (newest / "state" / "d").rglob("*") if path.is_file()]
    largest = max(files, key=lambda path: path.stat().st_size)
    if damage == "truncated":
        largest.write_bytes(largest.read_bytes()[: largest.stat().st_size // 2])
    else:
        largest.unlink()
    said = []
    listening = SimpleNamespace(warning=lambda message, *values: said.append(message % values), info=logging.info)
    monkeypatch.setattr(checkpoint, "logging", listening)
    resumed = execute(TOY, tmp_path)
    assert any("checkpoint of step 16 cannot be read" in line for line in said), said
    assert resumed.result.trained_steps == STEPS - 8
    # The evaluation of 16 steps' end is done again as one of 24 steps': what stands in its place is dropped.
    assert_same(resumed, unbroken(TOY))
    assert (tmp_path / "checkpoints" / "damaged" / "16").is_dir()


def test_a_run_without_a_checkpoint_starts_over(unbroken, tmp_path):
    """Killed before the first save: only lines of metrics are there."""
    (tmp_path / "metrics.jsonl").write_text('{"step": 6, "loss": 1.0}\n{"step": 1')
    assert_same(execute(TOY, tmp_path), unbroken(TOY))
