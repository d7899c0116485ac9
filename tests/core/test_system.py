"""What a run records beside its numbers: the machine's load, the clock, and how each start ended."""

import json
import os
import signal
import subprocess
import sys
import time
from types import SimpleNamespace

import jax
import psutil
import pytest

from rl_jax.core import loop
from rl_jax.core.metrics import read_metrics
from rl_jax.core.program import Evaluation
from rl_jax.core.runtime import NonFiniteError, Preempted
from rl_jax.core.system import SystemMonitor
from tests.core import toys

OFTEN = {"loop.log_every": 5, "loop.eval_every": 10}
BUSY = "import time\nend = time.perf_counter() + 60\nwhile time.perf_counter() < end: pass"


def starts(workdir):
    return json.loads((workdir / "provenance.json").read_text())["starts"]


def test_the_load_of_this_process_is_what_the_clock_of_the_process_says():
    monitor = SystemMonitor()
    wall, busy = time.perf_counter(), time.process_time()
    while time.process_time() - busy < 0.4:
        pass
    metrics = monitor.read()
    wall, busy = time.perf_counter() - wall, time.process_time() - busy
    # The kernel counts in hundredths of a second.
    assert metrics["system/cpu_percent"] == pytest.approx(100 * busy / wall, rel=0.15)
    assert metrics["system/memory_gb"] == pytest.approx(psutil.Process().memory_info().rss / 1e9, rel=0.05)
    idle = SystemMonitor()
    time.sleep(0.3)
    assert idle.read()["system/cpu_percent"] < 50


def test_a_child_process_counts():
    monitor = SystemMonitor()
    child = subprocess.Popen([sys.executable, "-c", BUSY])
    try:
        begin, process = time.perf_counter(), psutil.Process(child.pid)
        while process.cpu_times().user < 0.4:
            time.sleep(0.05)
        metrics = monitor.read()
        seconds = time.perf_counter() - begin
        assert metrics["system/cpu_percent"] * seconds / 100 > 0.35
        own = psutil.Process().memory_info().rss
        assert metrics["system/memory_gb"] == pytest.approx((own + process.memory_info().rss) / 1e9, rel=0.05)
    finally:
        child.kill()
        child.wait()
    assert monitor.read()["system/cpu_percent"] >= 0


def test_the_fullest_device_that_reports_its_memory(monkeypatch):
    assert "system/device_memory_gb" not in SystemMonitor().read(), "CPU devices do not report theirs"
    devices = [SimpleNamespace(memory_stats=lambda used=used: {"bytes_in_use": used}) for used in (2e9, 7e9, 3e9)]
    monkeypatch.setattr(jax, "local_devices", lambda: devices)
    assert SystemMonitor().read()["system/device_memory_gb"] == 7.0


def test_every_line_has_the_clock_and_every_training_line_the_load(tmp_path):
    experiment = toys.experiment(evaluate=lambda state, resident, key: Evaluation({"eval/loss": 1.0}))
    begin = time.perf_counter()
    loop.run(experiment, toys.config(num_steps=10, **OFTEN), tmp_path)
    first = time.perf_counter() - begin
    time.sleep(1.0)
    result = loop.run(experiment, toys.config(num_steps=20, **OFTEN), tmp_path)
    total = time.perf_counter() - begin
    lines = read_metrics(tmp_path / "metrics.jsonl")
    assert [line["step"] for line in lines] == [5, 10, 10, 15, 20, 20]
    seconds = [line["time/wall_seconds"] for line in lines]
    assert seconds == sorted(seconds)
    # The second between the two starts is in it; the clock starts after `begin`, by a load's whim.
    assert 0 < seconds[2] < first and seconds[3] - seconds[2] > 0.99 and seconds[-1] < total
    for line in lines:
        assert ("system/cpu_percent" in line) == ("system/memory_gb" in line) == ("loss" in line)
    assert result.evaluations == [{"step": 10, "eval/loss": 1.0}, {"step": 20, "eval/loss": 1.0}]


def test_a_run_says_how_it_ended(tmp_path):
    told, broken = [True], [False]

    def evaluate(state, resident, key):
        if told.pop() if told else False:
            os.kill(os.getpid(), signal.SIGTERM)
        if broken.pop() if broken else False:
            raise RuntimeError("the simulator broke")
        return Evaluation()

    config = toys.config(**OFTEN)
    with pytest.raises(Preempted):
        loop.run(toys.experiment(evaluate=evaluate), config, tmp_path)
    broken.append(True)
    with pytest.raises(RuntimeError, match="simulator broke"):
        loop.run(toys.experiment(evaluate=evaluate), config, tmp_path)
    loop.run(toys.experiment(evaluate=evaluate), config, tmp_path)
    loop.run(toys.experiment(evaluate=evaluate), config, tmp_path)
    preempted, failed, finished, again = (start["end"] for start in starts(tmp_path))
    assert [end["state"] for end in (preempted, failed, finished, again)] == ["preempted", "failed"] + ["finished"] * 2
    assert [end["step"] for end in (preempted, failed, finished, again)] == [10, 20, 20, 20]
    assert failed["error"] == "RuntimeError: the simulator broke" and "error" not in finished
    assert preempted["seconds"]["train"] > 0 and preempted["seconds"]["compile"] > 0
    assert again["seconds"] == {"train": finished["seconds"]["train"], "compile": 0.0}


def test_a_nan_is_a_failure_and_a_start_that_was_refused_none(tmp_path):
    def step(state, data, batch, key):
        new, metrics = toys.step(state, data, batch, key)
        return new, {"loss": metrics["loss"] / (state.step != 12)}

    with pytest.raises(NonFiniteError):
        loop.run(toys.experiment(step=step), toys.config(**OFTEN), tmp_path)
    (start,) = starts(tmp_path)
    assert start["end"]["state"] == "failed" and start["end"]["step"] == 15
    assert start["end"]["error"].startswith("NonFiniteError: not finite in steps 11 to 15: loss")
    with pytest.raises(ValueError, match="another config"):
        loop.run(toys.experiment(), toys.config(seed=1), tmp_path)
    assert starts(tmp_path) == [start]
