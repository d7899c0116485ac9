"""What a stage starts from: fresh decoders seed by seed, and runs that cannot be started from, named."""

import json

import jax
import numpy as np
import pytest

from rl_jax.language.stages import starting_models, trained_models
from tests.language.tiny import CONFIG


def test_without_a_run_every_seed_starts_from_a_fresh_decoder_of_its_own():
    one, other = starting_models("start", "", CONFIG, range(3, 5))
    (again,) = starting_models("start", "", CONFIG, [4])
    jax.tree.map(np.testing.assert_array_equal, other, again)
    assert np.any(one["embed"]["embedding"] != other["embed"]["embedding"])


def test_a_run_of_other_seeds_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match="config.judge.run=.* is not the --workdir of a finished run"):
        trained_models("judge.run", str(tmp_path), {}, [0], "judge")
    (tmp_path / "result.json").write_text("{}")
    (tmp_path / "config.json").write_text(json.dumps({"seed": 3, "num_seeds": 2}))
    with pytest.raises(ValueError, match=r"has 2 seeds from 3, and this run \[5\]"):
        trained_models("judge.run", str(tmp_path), {}, [5], "judge")
