"""Filters: which runs make one curve, and what it is called.

    "library=rl_jax&agent.name=iql,td3_bc&tag=v1&cl=ours"

Conditions are joined by &, and all of them hold for every run that is chosen (the authors' offline mode joins one with
Python's `and`, which drops those before it, and finds nothing for two tags). A condition is FIELD=VALUE: a dotted field
of the configuration or of the provenance, or run (its name), column, seed, library, task, tag, state, last_step;
several values with commas between them, any of which will do, with the wildcards * ? []. The same field may stand
twice. A field that is a list, such as tag, holds a value when one of its elements is it. Beside conditions a filter has

    cl=LABEL        the legend                          (the filter itself if not given)
    metric=NAME     its metric, where it differs from --metric
    by=FIELD        the field that names its task, where it differs from --by
    FIELD:=VALUE    says something of its runs that they do not say, such as task:=hopper-medium

%26 stands for & and %2C for a comma.
"""

import fnmatch
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple
from urllib.parse import unquote

from rl_jax.core.config import unknown
from rl_jax.reports.runs import Run

OPTIONS = ("cl", "metric", "by")


class Filter(NamedTuple):
    """A filter as it was written, taken apart."""

    text: str
    label: str
    metric: str | None
    by: str | None
    conditions: tuple[tuple[str, tuple[str, ...]], ...]
    says: Mapping[str, str]


class Member(NamedTuple):
    """One training run that a filter chose: a column of a run's folder."""

    run: Run
    column: int
    fields: Mapping[str, Any]  # its attributes with run, column and seed

    @property
    def name(self) -> str:
        return f"{self.run.name}#{self.column}"


def parse(text: str) -> Filter:
    """Takes a filter apart.

    Raises:
      ValueError: a part of it is not FIELD=VALUE, or an option stands twice.
    """
    conditions, says, options = [], {}, {}
    for part in text.split("&"):
        field, equals, value = part.partition("=")
        if not equals or not field.rstrip(":") or not value:
            raise ValueError(f"--filters={text!r}: {part!r} is not FIELD=VALUE")
        values = tuple(unquote(one) for one in value.split(","))
        field = unquote(field)
        if field in OPTIONS:
            if field in options:
                raise ValueError(f"--filters={text!r}: {field} stands twice")
            options[field] = unquote(value)
        elif field.endswith(":"):
            says[field[:-1]] = unquote(value)
        else:
            conditions.append((field, values))
    return Filter(text, options.get("cl", text), options.get("metric"), options.get("by"), tuple(conditions), says)


def select(runs: Sequence[Run], chosen: Filter) -> list[Member]:
    """The training runs for which every condition of a filter holds.

    Raises:
      ValueError: there is none. A field or a value that no run has is named with the near ones.
    """
    members = [
        Member(run, column, {**run.attributes, **own, "run": run.name, "column": column, **chosen.says})
        for run in runs
        for column, own in enumerate(run.columns)
    ]
    if not members:
        raise ValueError("there is no run under the roots")
    holds = [[_holds(member.fields.get(field), values) for member in members] for field, values in chosen.conditions]
    kept = [member for member, *held in zip(members, *holds, strict=True) if all(held)]
    if not kept:
        raise ValueError(_why_empty(members, chosen, holds))
    return kept


def _why_empty(members: Sequence[Member], chosen: Filter, holds: Sequence[Sequence[bool]]) -> str:
    for (field, values), held in zip(chosen.conditions, holds, strict=True):
        if not any(field in member.fields for member in members):
            return f"--filters={chosen.text!r}: {unknown('field', field, {f for m in members for f in m.fields})}"
        if not any(held):
            known = {text for member in members for text in _texts(member.fields.get(field))}
            return f"--filters={chosen.text!r}: {unknown(field, ','.join(values), known)}"
    counts = ", ".join(f"{field} for {sum(held)}" for (field, _), held in zip(chosen.conditions, holds, strict=True))
    return f"--filters={chosen.text!r}: no run meets all conditions; of {len(members)} runs they hold apart: {counts}"


def _holds(value: Any, patterns: Sequence[str]) -> bool:
    return any(_equal(text, pattern) for text in _texts(value) for pattern in patterns)


def _texts(value: Any) -> list[str]:
    if value is None:
        return []
    if isinstance(value, list | tuple):
        return [text for element in value for text in _texts(element)]
    return [str(value)]


def _equal(text: str, pattern: str) -> bool:
    if fnmatch.fnmatchcase(text, pattern) or (text in ("True", "False") and text.lower() == pattern.lower()):
        return True
    try:
        return float(text) == float(pattern)
    except ValueError:
        return False
