"""Which models share devices: a search over all groupings of models with a simulated time of an iteration.

Sheng et al. 2025, arXiv 2409.19256, section 6: models of one group run in turn on its devices, groups run at the same
time, and a stage of an iteration ends with its slowest group.
"""

import itertools
from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

# Seconds by stage, model and number of devices: {"generate": {"actor": {4: 1.2, 8: 0.7}}, ...}. A number of devices
# that is not there does not hold the model.
Costs = Mapping[str, Mapping[str, Mapping[int, float]]]


class Mapped(NamedTuple):
    """A grouping of models, the devices of each group, and the seconds of an iteration."""

    groups: tuple[tuple[str, ...], ...]
    devices: tuple[int, ...]
    seconds: float


def partitions(models: Sequence[str]) -> Iterator[tuple[tuple[str, ...], ...]]:
    """All ways to put models into groups: 1, 2, 5, 15, 52, ... of them."""
    if not models:
        yield ()
        return
    first, *others = models
    for groups in partitions(others):
        yield ((first,), *groups)
        for place, group in enumerate(groups):
            yield (*groups[:place], (first, *group), *groups[place + 1 :])


def seconds(groups: Sequence[Sequence[str]], devices: Sequence[int], costs: Costs) -> float:
    """Of an iteration; infinite where a model does not fit its group's devices."""
    total = 0.0
    for by_model in costs.values():
        total += max(
            sum(by_model[model].get(number, float("inf")) for model in group if model in by_model)
            for group, number in zip(groups, devices, strict=True)
        )
    return total


def search(models: Sequence[str], number: int, costs: Costs) -> list[Mapped]:
    """The best allocation of `number` devices to each grouping, the fastest grouping first.

    Raises:
      ValueError: no grouping fits.
    """
    found = []
    for groups in partitions(models):
        if len(groups) > number:
            continue
        splits = [x for x in itertools.product(range(1, number + 1), repeat=len(groups)) if sum(x) == number]
        best = min(splits, key=lambda devices: seconds(groups, devices, costs))
        found.append(Mapped(groups, best, seconds(groups, best, costs)))
    found.sort(key=lambda mapped: mapped.seconds)
    if found[0].seconds == float("inf"):
        raise ValueError(f"no grouping of {', '.join(models)} fits {number} devices: the costs name other numbers")
    return found
