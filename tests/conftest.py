"""What every test session needs before jax is imported: the platform, eight virtual CPU devices, a quick compiler, one
cache of compilations and one folder of data sets for the session, its workers and every process that they start.
"""

import atexit
import hashlib
import os
import platform
import resource
import shutil
import tempfile
from collections import defaultdict
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[1]
# A test that asks for nothing runs on device 0 and sees no difference; the sharding tests use all eight.
_DEVICES = "--xla_force_host_platform_device_count=8"
# Most of the tests' time is compiling small networks. The older emitter of fusions and code in one piece take a third
# off the CPU seconds (50 to 33 on three files of language and control, none off large convolutions).
_QUICKER = "--xla_cpu_use_fusion_emitters=false --xla_cpu_parallel_codegen_split_count=1"
# As rl_jax.core.runtime.run_binary sets it: the programs that binaries compile have the bits of those compiled here.
_EIGEN = "--xla_cpu_experimental_ynn_fusion_type=individual_dot"
if not version("jaxlib").startswith("0.10."):  # others may not know these two, and an unknown flag ends the process
    _QUICKER = _EIGEN = ""
CACHE_BYTES = 2 * 2**30  # of compilations that stay for the next session


def _processor() -> str:
    """What code compiled here may use: a checkout that moves to another machine must not find this one's."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    return next((line for line in lines if line.startswith(("flags", "Features"))), platform.processor())


def _compilations() -> Path:
    """The folder of compiled programs; jax's own key holds the program, the flags and its version."""
    key = hashlib.sha256(f"{_processor()} {version('jaxlib')}".encode()).hexdigest()[:12]
    return ROOT / ".pytest_cache" / "compilations" / key


# LAPACK is called by all virtual devices at once, and threads of its own then wait for each other for ever (QR does).
os.environ["OPENBLAS_NUM_THREADS"] = "1"
# It takes other kernels on other CPUs. Simulated sets and orthogonal starts then differ in their last bits, which steps
# of training amplify: golden trajectories, made with these, are off by 0.2 to 19% with those for AVX-512.
if "avx2" in _processor().split():
    os.environ.setdefault("OPENBLAS_CORETYPE", "HASWELL")
os.environ["JAX_PLATFORMS"] = os.environ.get("RL_JAX_TEST_PLATFORM", "cpu")
os.environ["XLA_FLAGS"] = f"{_QUICKER} {_EIGEN} {os.environ.get('XLA_FLAGS', '')} {_DEVICES}"
os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", str(_compilations()))
os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0")
os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES", "-1")
# The controller makes it and removes it; its workers find its name in their environment.
_OWN_DATA = "" if "RL_JAX_TEST_DATA" in os.environ else tempfile.mkdtemp(prefix="rl_jax_test_data_")
os.environ.setdefault("RL_JAX_TEST_DATA", _OWN_DATA)
if _OWN_DATA:
    atexit.register(shutil.rmtree, _OWN_DATA, ignore_errors=True)


def pytest_configure(config: pytest.Config) -> None:
    """Level 0 of the compiler takes another third off, and is for all but the slow tests: at level 1 a seed beside
    others has the bits of the seed alone in every program. There steps are long, too: where eight devices share one
    busy core, the first at a collective waits longer than the 40 seconds after which it would end the process."""
    flags = "--xla_backend_optimization_level=0"
    if "not slow" not in config.option.markexpr:
        flags = "--xla_backend_optimization_level=1 --xla_cpu_collective_call_terminate_timeout_seconds=300"
    os.environ["XLA_FLAGS"] = f"{flags} {os.environ['XLA_FLAGS']}"
    if _OWN_DATA:
        drop_oldest(_compilations(), CACHE_BYTES)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """A worker runs a file in one go, but of the promises all those of one program, so that the run that they share is
    made once."""
    from xdist.scheduler import LoadScopeScheduling

    from tests.papers import CASES

    names = {case.name for case in CASES}

    class ByFileOrProgram(LoadScopeScheduling):
        def _split_scope(self, nodeid: str) -> str:
            path, _, test = nodeid.partition("::")
            name = test.partition("[")[2].removesuffix("]")
            return f"promises of {name}" if path.startswith("tests/promises/") and name in names else path

    return ByFileOrProgram(config, log)


def drop_oldest(folder: Path, most: int) -> None:
    """Removes the files that were written first until the others take at most `most` bytes."""
    files = sorted(folder.glob("*"), key=lambda path: path.stat().st_mtime, reverse=True)
    total = 0
    for path in files:
        total += path.stat().st_size
        if total > most:
            path.unlink()


# A compiled program takes six memory maps or more. Linux gives a process 65,530, past which the compiler crashes.
MOST_MAPS = 20_000
MOST_BYTES = 4 * 2**30  # that a process grows by before they go: two workers are to fit beside each other
_MAPS, _SIZES = Path("/proc/self/maps"), Path("/proc/self/statm")
_cleared = {"bytes": 0}  # what was left when they went last


@pytest.hookimpl(trylast=True)  # when fixtures are undone: a test may be another user, who must not read this
def pytest_runtest_teardown(item: pytest.Item, nextitem: pytest.Item | None) -> None:
    """The compiled programs go where they have become many: between two files, or between two tests by their size."""
    if nextitem is None or not _MAPS.exists():
        return
    grown = _resident_bytes() - _cleared["bytes"]
    if grown > MOST_BYTES or nextitem.path != item.path and _count(_MAPS) > MOST_MAPS:
        import jax

        jax.clear_caches()
        _cleared["bytes"] = _resident_bytes()


def _resident_bytes() -> int:
    return int(_SIZES.read_text().split()[1]) * resource.getpagesize()


def _count(path: Path) -> int:
    with path.open("rb") as lines:
        return sum(1 for _ in lines)


@pytest.fixture(scope="session")
def data_dir() -> Path:
    """Where data sets are made: one folder for the session and all its processes."""
    return Path(os.environ["RL_JAX_TEST_DATA"])


# CPU seconds of every folder of tests, the processes that they wait for included.

_spent = {"until": 0.0}
_folders: dict[str, float] = defaultdict(float)


def _cpu_seconds() -> float:
    times = os.times()
    return times.user + times.children_user


def pytest_runtest_logstart(nodeid: str, location: tuple) -> None:
    _spent["until"] = _cpu_seconds()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo):
    report = yield
    before, _spent["until"] = _spent["until"], _cpu_seconds()
    report.cpu_seconds = _spent["until"] - before
    return report


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    parts = Path(report.location[0]).parts
    _folders["/".join(parts[:2])] += getattr(report, "cpu_seconds", 0.0)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    if sum(_folders.values()) >= 1:
        by_size = sorted(_folders.items(), key=lambda item: -item[1])
        folders = ", ".join(f"{folder.removeprefix('tests/')} {seconds:.0f}" for folder, seconds in by_size)
        terminalreporter.write_line(f"CPU seconds (user): {folders}; together {sum(_folders.values()):.0f}")
