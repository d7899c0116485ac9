"""What does not fit is told before it is uploaded, with sizes and remedies."""

from types import SimpleNamespace

import jax
import numpy as np
import pytest

from rl_jax.core import memory
from rl_jax.core.loop import run
from rl_jax.core.memory import DeviceMemoryError, check_compiled, check_fits
from rl_jax.core.program import Feed
from tests.core import toys


@pytest.fixture
def small_device(monkeypatch):
    monkeypatch.setattr(memory, "free_bytes", lambda device: 3 * 2**20)


def test_state_and_resident_that_fit_pass(small_device):
    check_fits({"w": np.zeros(2**18, np.float32)}, {"x": np.zeros(2**18, np.float32)})


def test_what_does_not_fit_is_told(small_device):
    with pytest.raises(DeviceMemoryError, match=r"state \(2 MiB\), resident \(4 MiB\) do not fit the 3 MiB free"):
        check_fits({"w": np.zeros(2**19, np.float32)}, {"x": np.zeros(2**20, np.float32)})


def test_what_a_feed_keeps_counts(small_device):
    trees = {"w": np.zeros(2**18, np.float32)}, {"x": np.zeros(2**18, np.float32)}
    check_fits(*trees, feed_bytes=2**20)
    with pytest.raises(DeviceMemoryError, match=r"resident \(1 MiB\), feed \(1.5 MiB\) do not fit the 3 MiB free"):
        check_fits(*trees, feed_bytes=3 * 2**19)


def test_temporaries_that_do_not_fit_are_told(small_device):
    compiled = SimpleNamespace(memory_analysis=lambda: SimpleNamespace(temp_size_in_bytes=5 * 2**30))
    with pytest.raises(DeviceMemoryError, match="the step needs 5 GiB of temporaries and 3 MiB are free"):
        check_compiled(compiled)
    check_compiled(SimpleNamespace(memory_analysis=lambda: None))


def test_a_run_that_cannot_fit_leaves_nothing(small_device, tmp_path):
    """State and resident of the toy are small: it is the feed's declaration that does not fit, and it is closed."""
    closed = []
    feed = Feed(lambda *arguments: ({}, {}), close=lambda: closed.append(True), bytes=2**22)
    with pytest.raises(DeviceMemoryError, match=r"feed \(4 MiB\)"):
        run(toys.experiment(feed=feed), toys.config(), tmp_path / "run")
    assert closed == [True]
    assert not (tmp_path / "run").exists()


def test_free_memory_is_a_number():
    assert memory.free_bytes(jax.local_devices()[0]) > 0
