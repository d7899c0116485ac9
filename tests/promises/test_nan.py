"""The NaN guard: it names the window and the metric, flushes the metrics and keeps the healthy checkpoints."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rl_jax.core.metrics import read_metrics
from rl_jax.core.runtime import NonFiniteError
from tests.promises.cases import STEPS, WHOLE, by_name
from tests.promises.runner import execute


def poisoned(at, *, params=True, metrics=True):
    """A change of a program: the update of step `at` makes NaN of its parameters or metrics."""

    def change(program):
        def step(state, data, key):
            new, info = program.step(state, data, key)
            bad = jnp.where(state.step == at, jnp.nan, 0.0)
            if params:
                new = new.replace(params=jax.tree.map(lambda x: x + bad.astype(x.dtype), new.params))
            return new, {name: value + bad for name, value in info.items()} if metrics else info

        return program._replace(step=step)

    return change


def saved(workdir):
    return sorted(int(path.name) for path in (workdir / "checkpoints").iterdir() if path.name.isdigit())


def test_a_nan_stops_the_run(case, tmp_path):
    with pytest.raises(NonFiniteError) as stopped:
        execute(case, tmp_path, change=poisoned(16))
    lines = read_metrics(tmp_path / "metrics.jsonl")
    assert lines[-1]["step"] == 18
    broken = [name for name, value in lines[-1].items() if value is None]
    assert broken
    assert "steps 17 to 18" in str(stopped.value)
    assert any(name in str(stopped.value) for name in broken)
    assert "checkpoint of step 16 is healthy" in str(stopped.value)
    assert saved(tmp_path)[-1] == 16
    # The healthy checkpoint is one to go on from: without the poison the run ends.
    assert execute(case, tmp_path).result.trained_steps == STEPS - 16


def test_skip_drops_the_bad_update_and_goes_on(costly_case, tmp_path):
    skipping = execute(costly_case, tmp_path, WHOLE | {"loop.on_nan": "skip"}, change=poisoned(13))
    assert skipping.result.step == STEPS
    assert all(np.all(np.isfinite(leaf)) for leaf in skipping.leaves.values())
    assert skipping.lines[0]["train/skipped_updates"] == 1
    assert None not in skipping.lines[0].values()


def test_nan_parameters_are_found_before_a_save(tmp_path):
    """No metric shows the NaN of step 15: the check of the checkpoint at 16 does."""
    with pytest.raises(NonFiniteError, match=r"steps 13 to 16: parameter policy/hidden/kernel.* step 8 is healthy"):
        execute(by_name("online"), tmp_path, change=poisoned(15, metrics=False))
    assert saved(tmp_path)[-1] == 8
