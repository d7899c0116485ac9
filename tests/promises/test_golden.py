"""Golden trajectories and old checkpoints: what an upgrade may not change unnoticed."""

import json
import shutil

import numpy as np
import pytest

from rl_jax.core.checkpoint import CheckpointMismatchError
from tests.promises.cases import by_name
from tests.promises.golden import FOLDER, GOLDEN, OLD, OLD_CASE, OLD_RUN
from tests.promises.runner import execute

# Other CPUs and XLA versions round otherwise, and fifty steps of training amplify that. A changed term does far more.
TOLERANCE = 2e-3


def numbers(lines):
    """Training metrics as {name: values in time}; evaluations are chaotic in the last bit of a policy."""
    names = sorted({name for line in lines for name in line} - {"step"})
    return {
        name: np.asarray([line[name] for line in lines if name in line], np.float64)
        for name in names
        if not name.startswith(("eval/", "collect/"))
    }


def test_fifty_steps_are_the_committed_ones(case, tmp_path):
    golden = numbers(json.loads((FOLDER / f"{case.name}.json").read_text()))
    now = numbers(execute(case, tmp_path, GOLDEN).lines)
    assert now.keys() == golden.keys()
    for name, wanted in golden.items():
        scale = max(float(np.max(np.abs(wanted))), 1e-3)
        residual = (now[name] - wanted) / scale
        assert np.max(np.abs(residual)) < TOLERANCE, name
        # Rounding scatters around zero; a drift to one side is a changed computation.
        assert abs(np.mean(residual)) < TOLERANCE / 4, name


@pytest.mark.parametrize("release", sorted(path.name for path in OLD.iterdir()))
def test_a_checkpoint_of_an_older_release_goes_on(release, tmp_path):
    workdir = tmp_path / "run"
    shutil.copytree(OLD / release, workdir)
    longer = {**OLD_RUN, "num_steps": 8}
    resumed = execute(by_name(OLD_CASE), workdir, longer)
    assert resumed.result.trained_steps == 4
    fresh = execute(by_name(OLD_CASE), tmp_path / "fresh", OLD_RUN)
    fresh = execute(by_name(OLD_CASE), tmp_path / "fresh", longer)
    assert_close(resumed, fresh)


def assert_close(one, other):
    for name, leaf in one.leaves.items():
        np.testing.assert_allclose(leaf, other.leaves[name], rtol=TOLERANCE, atol=TOLERANCE, err_msg=name)


def test_a_checkpoint_of_another_program_names_the_array(tmp_path):
    """What a renamed or reshaped network of a later release would meet."""
    workdir = tmp_path / "run"
    shutil.copytree(OLD / "0.1.0", workdir)

    def renamed(program):
        def init(key):
            state = program.init(key)
            return state.replace(params={"scores": state.params["logits"]})

        return program._replace(init=init)

    with pytest.raises(CheckpointMismatchError, match="params/scores: nothing"):
        execute(by_name(OLD_CASE), workdir, {**OLD_RUN, "num_steps": 8}, change=renamed)
    assert (workdir / "checkpoints" / "4").is_dir()
