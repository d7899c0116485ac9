"""The compiled step: compiled once, its input state donated, no transfer but the explicit ones."""

import warnings

import jax
import numpy as np
import pytest

from rl_jax.core import loop
from tests.promises.cases import STEPS, TOY
from tests.promises.runner import execute


def test_compiled_once(case, unbroken):
    """Until step 14 everything periodic happens once: a line, an evaluation, a save. Then all happen again."""
    watched = unbroken(case).watched
    assert watched.at[14][0] > 0 and watched.at[14][1] > 0
    assert watched.end == watched.at[14], "something is traced or compiled again while the run goes on"


def test_donation_is_honoured(case, unbroken):
    # Evaluated at 12 and 24, the result.
    at_12, last = unbroken(case).watched.states
    assert all(leaf.is_deleted() for leaf in at_12)
    assert not any(leaf.is_deleted() for leaf in last)
    assert not any(leaf.is_deleted() for leaf in jax.tree.leaves(unbroken(case).result.resident))


def test_a_donation_that_xla_cannot_use_is_a_warning_nowhere(tmp_path):
    with warnings.catch_warnings():
        warnings.filterwarnings("error", message=".*donated.*")
        execute(TOY, tmp_path, {"num_steps": 2 * STEPS})


def test_an_implicit_transfer_is_refused(tmp_path, monkeypatch):
    """The guard stands: so every run that ends made none."""
    monkeypatch.setattr(loop.Run, "put_window", lambda self, window: jax.tree.map(np.asarray, window))
    with pytest.raises(Exception, match="Disallowed host-to-device transfer"):
        execute(TOY, tmp_path)
