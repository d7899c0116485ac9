"""What the promises share: one compilation cache for all their processes, and every case's unbroken run."""

from collections.abc import Callable, Iterator

import jax
import pytest
from jax.experimental.compilation_cache import compilation_cache

from tests.promises.cases import WHOLE, Case, slow_unless
from tests.promises.runner import Outcome, execute

CACHE = {"jax_compilation_cache_dir": None, "jax_persistent_cache_min_compile_time_secs": 0.0,
         "jax_persistent_cache_min_entry_size_bytes": -1}


@pytest.fixture(scope="package", autouse=True)
def shared_by_all_processes(tmp_path_factory) -> Iterator[None]:
    """A case is compiled, and its data set made, once for all tests of this folder and the processes they start."""
    before = {name: getattr(jax.config, name) for name in CACHE}
    settings = CACHE | {"jax_compilation_cache_dir": str(tmp_path_factory.mktemp("compilations"))}
    with pytest.MonkeyPatch.context() as patch:
        for name, value in settings.items():
            jax.config.update(name, value)
            patch.setenv(name.upper(), str(value))
        patch.setenv("RL_JAX_TEST_DATA", str(tmp_path_factory.mktemp("data")))
        compilation_cache.reset_cache()
        yield
    for name, value in before.items():
        jax.config.update(name, value)
    compilation_cache.reset_cache()


@pytest.fixture(params=slow_unless(lambda case: not case.kin))
def case(request) -> Case:
    return request.param


@pytest.fixture(params=slow_unless(lambda case: case.quick))
def costly_case(request) -> Case:
    """For a promise that starts processes or compiles anew for each case: `make test` takes the quick ones."""
    return request.param


def _remembered(tmp_path_factory, label: str, overrides: dict) -> Callable[[Case], Outcome]:
    outcomes = {}

    def outcome(case: Case) -> Outcome:
        if case.name not in outcomes:
            outcomes[case.name] = execute(case, tmp_path_factory.mktemp(f"{label}_{case.name}"), overrides)
        return outcomes[case.name]

    return outcome


@pytest.fixture(scope="session")
def unbroken(tmp_path_factory) -> Callable[[Case], Outcome]:
    """case -> its run from the first step to the last without a stop."""
    return _remembered(tmp_path_factory, "unbroken", {})


@pytest.fixture(scope="session")
def whole(tmp_path_factory) -> Callable[[Case], Outcome]:
    """case -> the same as one fused chunk."""
    return _remembered(tmp_path_factory, "whole", WHOLE)
