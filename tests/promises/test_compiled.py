"""The compiled step: compiled once, its input state donated, no transfer but the explicit ones."""

import warnings
from types import SimpleNamespace
from unittest import mock

import jax
import numpy as np
import pytest

from rl_jax.core import loop
from tests.promises.cases import CASES, STEPS, slow_unless
from tests.promises.runner import execute

COMPILATION = "/jax/core/compile/backend_compile_duration"


@pytest.fixture(scope="module", params=slow_unless(lambda case: not case.kin))
def watched(request, tmp_path_factory):
    """A run of twice STEPS, in which everything periodic happened by STEPS: its traces, compilations and old states."""
    counts = SimpleNamespace(traces=0, compilations=0, at={}, states=[])

    def change(program):
        def step(*arguments):
            counts.traces += 1
            return program.step(*arguments)

        def evaluate(state, key):
            counts.states.append(jax.tree.leaves(state.replace(step=None)))
            return program.evaluate(state, key)

        return program._replace(step=step, evaluate=evaluate)

    def compiled(event, seconds, **_):
        counts.compilations += event == COMPILATION

    update = loop.ProgressLine.update

    def updated(self, step, **shown):
        counts.at[step] = (counts.traces, counts.compilations)
        update(self, step, **shown)

    jax.monitoring.register_event_duration_secs_listener(compiled)
    with mock.patch.object(loop.ProgressLine, "update", updated), warnings.catch_warnings():
        warnings.filterwarnings("error", message=".*donated.*")
        folder = tmp_path_factory.mktemp(f"watched_{request.param.name}")
        execute(request.param, folder, {"num_steps": 2 * STEPS}, change=change)
    return counts


def test_compiled_once(watched):
    assert watched.traces > 0
    assert watched.compilations > 0
    assert watched.at[2 * STEPS] == watched.at[STEPS], "something is traced or compiled again while the run goes on"


def test_donation_is_honoured(watched):
    # Evaluated at 12, 24, 36 and 48. Saved at 24 too: on a CPU the save under way reads the device's own memory, so
    # the step after it copies. The state of 48 is the result.
    at_12, _, at_36, last = watched.states
    assert all(leaf.is_deleted() for leaf in at_12 + at_36)
    assert not any(leaf.is_deleted() for leaf in last)


def test_an_implicit_transfer_is_refused(tmp_path, monkeypatch):
    """The guard stands: so every run that ends made none."""
    monkeypatch.setattr(loop.Run, "put_window", lambda self, window: jax.tree.map(np.asarray, window))
    with pytest.raises(Exception, match="Disallowed host-to-device transfer"):
        execute(CASES[0], tmp_path)
