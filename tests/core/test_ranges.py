"""Ranges of configurations' numbers: their ends, their errors, and that no field of a paper is without one."""

import importlib
import math

import pytest

from rl_jax.core.config import flat
from rl_jax.core.ranges import INSIDE, POSITIVE, SEED, SHARE, check_ranges, range_of
from tests.papers import PAPERS

PRESETS = [(file, preset) for paper in PAPERS for file in paper.tiny for preset in
           [importlib.import_module(f"configs.{file}").get_config.__defaults__[0],
            *(f"tiny-{name}".strip("-") for name in paper.tiny[file])]]


@pytest.mark.parametrize("allowed, inside, outside", [
    (SHARE, (0.0, 0.5, 1), (-1e-9, 1.0001, math.nan)),
    (INSIDE, (1e-9, 0.5), (0.0, 1.0, 2, math.nan)),
    (POSITIVE, (1e-30, math.inf), (0.0, -1, math.nan, -math.inf)),
    (SEED, (0, 2**32 - 1), (-1, 2**32)),
])
def test_its_ends(allowed, inside, outside):
    assert all(value in allowed for value in inside) and not any(value in allowed for value in outside)


@pytest.mark.parametrize("field, value, message", [
    ("agent.expectile", 2.0, r"config.agent.expectile=2.0: must be in \(0, 1\)"),
    ("agent.discount", 1.5, r"config.agent.discount=1.5: must be in \[0, 1\]"),
    ("agent.learning_rate", -1.0, "config.agent.learning_rate=-1.0: must be above 0"),
    ("agent.learning_rate", math.nan, "config.agent.learning_rate=nan: must be above 0"),
    ("agent.num_steps", 0, "config.agent.num_steps=0: must be at least 1"),
    ("batch_size", 0, "config.batch_size=0: must be at least 1"),
    ("dataset.context_length", -1, "config.dataset.context_length=-1: must be at least 0"),
    ("agent.buffer_size", 0, "config.agent.buffer_size=0: must be at least 1"),
    ("seed", 2**32, r"config.seed=4294967296: must be in \[0, 4294967295\]"),
])
def test_a_number_out_of_it_is_named(field, value, message):
    with pytest.raises(ValueError, match=message):
        check_ranges({field: value})


@pytest.mark.parametrize("pair", [(1.0,), (2.0, 1.0), (1.0, 1.0), (0.0, math.inf), (0.0, "1"), "12", 5.0, (True, 2.0)])
def test_a_pair_is_two_finite_numbers_the_lower_one_first(pair):
    with pytest.raises(ValueError, match="config.dataset.reference_returns=.*: must be two finite numbers, the lower"):
        check_ranges({"dataset.reference_returns": pair})
    for good in ((), (-1200.0, -150), [0, 1]):
        check_ranges({"dataset.reference_returns": good})


def test_what_is_no_number_or_unknown_passes():
    check_ranges({"batch_size": "many", "agent.norm": True, "agent.unheard_of": -3.0})


@pytest.mark.parametrize("file, preset", PRESETS)
def test_every_number_of_a_paper_has_one_and_is_in_it(file, preset):
    fields = flat(importlib.import_module(f"configs.{file}").get_config(preset))
    numbers = {name for name, x in fields.items() if isinstance(x, int | float) and not isinstance(x, bool)}
    assert [name for name in sorted(numbers) if range_of(name) is None] == [], "give it a line in core/ranges.py"
    check_ranges(fields)
