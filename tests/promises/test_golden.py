"""Golden trajectories, and checkpoints of older releases: what an upgrade may not change unnoticed."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from rl_jax.core.checkpoint import CheckpointMismatchError
from tests.papers import CASES
from tests.promises.cases import TOY
from tests.promises.golden import FOLDER
from tests.promises.runner import execute

# Other CPUs and XLA versions round otherwise, and steps of training amplify that. A changed term does far more.
TOLERANCE = 2e-3
# The gap between a sampler and its trainer is nothing but rounding: the largest of some thousand differences of
# log-probabilities, which comes out as 10e-6, 14e-6 or 15e-6 for one and the same step of training.
SMALLEST_SCALE = {"sampler/gap_max": 1e-2}
OLD = Path(__file__).parent / "old"


def numbers(lines):
    """Training metrics as {name: values in time}; evaluations are chaotic in the last bit of a policy."""
    names = sorted({name for line in lines for name in line} - {"step"})
    return {
        name: np.asarray([line[name] for line in lines if name in line], np.float64)
        for name in names
        if not name.startswith(("eval/", "collect/"))
    }


def test_the_first_steps_are_the_committed_ones(case, unbroken):
    golden = numbers(json.loads((FOLDER / f"{case.name}.json").read_text()))
    now = numbers(unbroken(case).lines)
    assert now.keys() == golden.keys()
    for name, wanted in golden.items():
        scale = max(float(np.max(np.abs(wanted))), SMALLEST_SCALE.get(name, 1e-3))
        residual = (now[name] - wanted) / scale
        assert np.max(np.abs(residual)) < TOLERANCE, name
        # Rounding scatters around zero; a drift to one side is a changed computation.
        assert abs(np.mean(residual)) < TOLERANCE / 4, name


def test_every_case_has_its_trajectory():
    assert {path.stem for path in FOLDER.iterdir()} == {case.name for case in CASES}


@pytest.mark.parametrize("release", sorted(path.name for path in OLD.iterdir()))
def test_a_checkpoint_of_an_older_release_is_refused(release, tmp_path):
    """By its format, whatever program meets it; the error names the file and what to do, and nothing is moved."""
    checkpoints = tmp_path / "checkpoints"
    shutil.copytree(OLD / release / "checkpoints", checkpoints)
    before = sorted(checkpoints.rglob("*"))
    with pytest.raises(CheckpointMismatchError) as refused:
        execute(TOY, tmp_path)
    assert str(refused.value) == (
        f"checkpoint of step 4 in {checkpoints} has format 1, and this release reads 2: go on with the release that "
        "began the run, or train in another --workdir"
    )
    assert sorted(checkpoints.rglob("*")) == before
    assert not (tmp_path / "metrics.jsonl").exists()
