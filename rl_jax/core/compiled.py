"""What a compiled program moves between devices and what memory it takes, read from its text and XLA's own account."""

import math
import re
from collections.abc import Mapping
from typing import NamedTuple

import jax

COLLECTIVES = ("all-gather", "all-reduce", "all-to-all", "collective-permute", "reduce-scatter")
# "%name = f32[256,64]{1,0} all-gather(...)", or "= (f32[..], f32[..]) all-gather-start(...)" where it overlaps.
_CALL = re.compile(rf"= (\(?[^=]*?) ({'|'.join(COLLECTIVES)})(-start)?\(")
_ARRAY = re.compile(r"\b([a-z]+)(\d+)\w*\[([\d,]*)\]")
# As XLA writes them: {{0,1},{2,3}}, [2,2]<=[4], or mesh['a'=2,'b'=4], device_ids=(...) {'a'}.
_LISTED, _IOTA = re.compile(r"replica_groups=\{\{([\d,]*)\}"), re.compile(r"replica_groups=\[\d+,(\d+)\]<=")
_OF_MESH = re.compile(r"replica_groups=mesh\[([^\]]*)\][^{]*\{([^}]*)\}")


class Traffic(NamedTuple):
    """What one run of a program does.

    Attributes:
      counts: collectives by kind; a kind that does not occur is not there.
      received: bytes that a device gets from others; of a permutation, one that gets any.
      temporary: bytes a device, beside arguments and results.
      results: bytes a device, of the results.
    """

    counts: Mapping[str, int]
    received: float
    temporary: int
    results: int


def traffic(compiled: jax.stages.Compiled) -> Traffic:
    """Reads a compiled program."""
    memory = compiled.memory_analysis()
    counts, received = collectives(compiled.as_text())
    return Traffic(counts, received, memory.temp_size_in_bytes, memory.output_size_in_bytes)


def collectives(text: str) -> tuple[dict[str, int], float]:
    """Counts of collectives by kind, and bytes that a device receives, of a program's text (HLO).

    A gather, an all-to-all and a reduction over groups of n give a device (n - 1)/n of the array's bytes (a reduction
    twice that), a permutation all of them.
    """
    counts: dict[str, int] = {}
    received = 0.0
    for line in text.splitlines():
        if not (found := _CALL.search(line)):
            continue
        arrays, kind, started = found.groups()
        counts[kind] = counts.get(kind, 0) + 1
        sizes = [_bytes(*array) for array in _ARRAY.findall(arrays)]
        # What starts lists its operand before its result (and what it waits for after them).
        size = sizes[1] if started and len(sizes) > 1 else sum(sizes)
        if kind == "collective-permute":
            received += size
            continue
        number = _group_size(line)
        share = {"all-reduce": 2 * (number - 1) / number, "reduce-scatter": number - 1.0}
        received += size * share.get(kind, (number - 1) / number)
    return counts, received


def _group_size(line: str) -> int:
    """How many devices exchange with each other."""
    if found := _LISTED.search(line):
        return len(found[1].split(","))
    if found := _IOTA.search(line):
        return int(found[1])
    if found := _OF_MESH.search(line):
        sizes = dict(axis.split("=") for axis in found[1].split(","))
        return math.prod(int(sizes[axis.strip()]) for axis in found[2].split(","))
    raise ValueError(f"this collective does not say between which devices it is: {line.strip()[:200]}")


def _bytes(letters: str, bits: str, dimensions: str) -> float:
    del letters
    return math.prod(int(size) for size in dimensions.split(",") if size) * int(bits) / 8
