"""What the promises share: every case's unbroken run, and the same as one chunk."""

from collections.abc import Callable

import pytest

from tests.papers import Case, parameters
from tests.promises.cases import WHOLE
from tests.promises.runner import Outcome, execute


@pytest.fixture(params=parameters())
def case(request) -> Case:
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
