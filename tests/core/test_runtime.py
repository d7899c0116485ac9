"""The process: clusters it recognises, signals it hears, how a binary ends."""

import logging
import os
import signal
import sys

import jax
import pytest

from rl_jax.core import main, runtime
from rl_jax.core.config import core_config
from rl_jax.core.runtime import (
    PREEMPTED_EXIT_CODE,
    NonFiniteError,
    Preempted,
    StopSignal,
    add_xla_flag,
    from_main_process,
    run_binary,
    start_process,
)
from rl_jax.envs.gym_pool import EnvPoolError
from tests.binaries import run_main
from tests.core import binary

CLUSTER = ("SLURM_NTASKS", "SLURM_PROCID", "OMPI_COMM_WORLD_SIZE", "TPU_WORKER_HOSTNAMES")
# What joining sets for the rest of a process, which here goes on with other tests: without a cache they all compile.
JOINED = ("jax_cpu_enable_async_dispatch", "jax_enable_compilation_cache")


@pytest.fixture
def initialised(monkeypatch):
    """The calls that would join the other processes."""
    calls = []
    monkeypatch.setattr(runtime.jax.distributed, "initialize", lambda *arguments: calls.append(arguments))
    monkeypatch.setenv("XLA_FLAGS", os.environ.get("XLA_FLAGS", ""))  # joining adds to it
    for name in CLUSTER:
        monkeypatch.delenv(name, raising=False)
    kept = {name: jax.config.values[name] for name in JOINED}
    yield calls
    for name, value in kept.items():
        jax.config.update(name, value)


@pytest.mark.parametrize("environment, joins", [
    ({}, False),
    ({"SLURM_NTASKS": "4", "SLURM_PROCID": "1"}, True),
    ({"SLURM_NTASKS": "4"}, False),
    ({"SLURM_NTASKS": "1", "SLURM_PROCID": "0"}, False),
    ({"OMPI_COMM_WORLD_SIZE": "2"}, True),
    ({"TPU_WORKER_HOSTNAMES": "a,b"}, True),
    ({"TPU_WORKER_HOSTNAMES": "localhost"}, False),
])
def test_the_cluster_is_recognised(environment, joins, initialised, monkeypatch):
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    start_process(core_config().distributed, deterministic=False)
    assert initialised == ([()] if joins else [])


def test_an_address_joins_as_told(initialised):
    distributed = core_config().distributed
    distributed.update(coordinator_address="host:1234", num_processes=2, process_id=1)
    start_process(distributed, deterministic=False)
    assert initialised == [("host:1234", 2, 1)]
    for bad in ({"process_id": 2}, {"process_id": -1}, {"process_id": 0, "num_processes": 0}):
        distributed.update(bad)
        with pytest.raises(ValueError, match="config.distributed: process_id="):
            start_process(distributed, deterministic=False)


def test_a_flag_is_added_once_and_never_over_a_persons_own(monkeypatch):
    monkeypatch.setenv("XLA_FLAGS", "--xla_one=2")
    for flag in ("--xla_one=1", "--xla_two=1", "--xla_two=3"):
        add_xla_flag(flag)
    assert os.environ["XLA_FLAGS"] == "--xla_one=2 --xla_two=1"


def test_deterministic_sets_xla_flags(initialised, monkeypatch):
    monkeypatch.setenv("XLA_FLAGS", "--xla_other=1")
    start_process(core_config().distributed, deterministic=True)
    assert os.environ["XLA_FLAGS"].split() == ["--xla_other=1", "--xla_gpu_deterministic_ops=true"]


def test_one_process_computes_for_itself():
    assert from_main_process(lambda: [1, 2]) == [1, 2]
    with pytest.raises(ZeroDivisionError):
        from_main_process(lambda: 1 / 0)


@pytest.fixture
def interruptible():
    """Ctrl-C as in a foreground process: a test session in the background ignores it."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


def test_an_ignored_signal_stays_ignored(interruptible):
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    with StopSignal() as stop:
        os.kill(os.getpid(), signal.SIGINT)
        assert not stop.raised()


def test_a_signal_raises_the_flag_and_handlers_come_back(interruptible):
    before = signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGINT)
    with StopSignal() as stop:
        assert not stop.raised()
        os.kill(os.getpid(), signal.SIGTERM)
        assert stop.raised()
    with StopSignal() as stop, pytest.raises(KeyboardInterrupt):
        os.kill(os.getpid(), signal.SIGINT)
        assert stop.raised()
        os.kill(os.getpid(), signal.SIGINT)
        stop.raised()
    assert (signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGINT)) == before
    assert Preempted(3).code == PREEMPTED_EXIT_CODE


def test_the_determinism_of_a_run_is_asked_for_before_anything_starts(monkeypatch, tmp_path):
    """`config.deterministic` reaches `start_process`; on a CPU the numbers are the same with it."""
    told = []
    monkeypatch.setattr(main, "start_process", lambda distributed, deterministic: told.append(deterministic))
    scores = [
        run_main(
            binary.run, "--config=tests/core/binary_config.py:short", f"--workdir={tmp_path / flag}",
            f"--config.deterministic={flag}",
        ).last_line["score"]
        for flag in ("false", "true")
    ]
    assert told == [False, True] and scores[0] == scores[1]


@pytest.mark.parametrize("error, line", [
    (ValueError("config.x=1: no"), "error: config.x=1: no (--verbosity=1 shows where)\n"),
    (OSError("a\nb"), "error: a b (--verbosity=1 shows where)\n"),
    (MemoryError("too\nlarge "), "error: too large (--verbosity=1 shows where)\n"),
    (NonFiniteError("loss is nan"), "error: loss is nan (--verbosity=1 shows where)\n"),
    (EnvPoolError("Toy-v0 cannot be made"), "error: Toy-v0 cannot be made (--verbosity=1 shows where)\n"),
    (MemoryError(), "error: there is no memory left: give the process more of it, or use fewer seeds, smaller batches "
     "or less data (--verbosity=1 shows where)\n"),
    (jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: Out of memory allocating 9 bytes.\nand more"),
     "error: the devices have no memory left (RESOURCE_EXHAUSTED: Out of memory allocating 9 bytes.): use fewer seeds, "
     "smaller batches or less data, or more devices with an fsdp rule (--verbosity=1 shows where)\n"),
])
def test_an_error_of_the_user_is_one_line(error, line):
    def broken(argv):
        raise error

    ended = run_main(lambda: run_binary(broken))
    assert (ended.code, ended.stdout, ended.stderr) == (1, "", line)


def test_another_error_is_a_defect_and_a_preemption_has_its_code():
    def broken(argv):
        raise KeyError("x")

    def stopped(argv):
        raise Preempted(3)

    def miscompiled(argv):
        raise jax.errors.JaxRuntimeError("INTERNAL: x")

    def threadless(argv):
        raise RuntimeError("can't start new thread")

    hook = sys.unraisablehook
    assert "thread: give the process more memory, or more threads" in run_main(lambda: run_binary(threadless)).stderr
    assert 0 < signal.alarm(0) <= runtime.SECONDS_TO_END and sys.unraisablehook is hook
    with pytest.raises(KeyError):
        run_main(lambda: run_binary(broken))
    with pytest.raises(jax.errors.JaxRuntimeError, match="INTERNAL"):
        run_main(lambda: run_binary(miscompiled))
    assert run_main(lambda: run_binary(stopped)).code == PREEMPTED_EXIT_CODE == 75


def test_a_librarys_error_is_shown_without_its_traceback():
    """It is raised in the main thread too."""
    def recorded(path, level):
        return logging.LogRecord("absl", level, path, 1, "no", (), (ValueError, ValueError("x"), None))

    library, own = (f"{os.sep}{folder}{os.sep}x.py" for folder in ("site-packages", "rl_jax"))
    error, chatter = recorded(library, logging.ERROR), recorded(library, logging.INFO)
    ours = recorded(own, logging.INFO)
    assert [runtime._worth_showing(record) for record in (error, chatter, ours)] == [True, False, True]
    assert error.exc_info is None and ours.exc_info
