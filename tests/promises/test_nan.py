"""The NaN guard: it names the window and the metric, flushes the metrics and keeps the healthy checkpoints."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rl_jax.core.metrics import read_metrics
from rl_jax.core.runtime import NonFiniteError
from tests.papers import one_a_family
from tests.promises.cases import STEPS, TOY, WHOLE
from tests.promises.runner import execute

CASES = [pytest.param(TOY, id=TOY.name), *one_a_family()]


def poisoned(at, *, params=True, metrics=True):
    """A change of a program: the update of step `at` makes NaN of its parameters or metrics."""

    def change(program):
        def step(state, resident, batch, key):
            new, info = program.step(state, resident, batch, key)
            bad = jnp.where(state.step == at, jnp.nan, 0.0)
            if params:
                new = new.replace(params=jax.tree.map(lambda x: x + bad.astype(x.dtype), new.params))
            return new, {name: value + bad for name, value in info.items()} if metrics else info

        return program._replace(step=step)

    return change


def saved(workdir):
    return sorted(int(path.name) for path in (workdir / "checkpoints").iterdir() if path.name.isdigit())


@pytest.mark.parametrize("case", CASES)
def test_a_nan_stops_the_run_and_skip_drops_its_update(case, tmp_path):
    abort, skip = {"loop.on_nan": "abort"}, {"loop.on_nan": "skip"}  # a paper may skip by itself
    with pytest.raises(NonFiniteError) as stopped:
        execute(case, tmp_path, abort, change=poisoned(16))
    lines = read_metrics(tmp_path / "metrics.jsonl")
    last = lines[-1]["step"]
    assert last in (17, 18)  # a feed may meet the parameters before the next line is due
    broken = [name for name, value in lines[-1].items() if value is None]
    assert broken
    assert f"steps 17 to {last}" in str(stopped.value)
    assert any(name in str(stopped.value) for name in broken)
    assert "checkpoint of step 16 is healthy" in str(stopped.value)
    assert saved(tmp_path)[-1] == 16
    # The healthy checkpoint is one to go on from, by dropping the update that makes the NaN.
    skipping = execute(case, tmp_path, skip, change=poisoned(16))
    assert skipping.result.trained_steps == STEPS - 16
    assert all(np.all(np.isfinite(leaf)) for leaf in skipping.leaves.values())
    assert sum(line.get("train/skipped_updates", 0) for line in skipping.lines) == 1
    trained = [line for line in skipping.lines if line["step"] > 12 and "train/skipped_updates" in line]
    assert trained and None not in [value for line in trained for value in line.values()]


def test_skip_in_one_chunk(tmp_path):
    skipping = execute(TOY, tmp_path, WHOLE | {"loop.on_nan": "skip"}, change=poisoned(13))
    assert skipping.result.step == STEPS and skipping.lines[0]["train/skipped_updates"] == 1


def test_nan_parameters_are_found_before_a_save(tmp_path):
    """No metric shows the NaN of step 15: the check of the checkpoint at 16 does."""
    with pytest.raises(NonFiniteError, match=r"steps 13 to 16: parameter net/kernel.* step 8 is healthy"):
        execute(TOY, tmp_path, change=poisoned(15, metrics=False))
    assert saved(tmp_path)[-1] == 8
