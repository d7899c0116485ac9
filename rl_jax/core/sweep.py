"""Hyper-parameter sweeps: which fields take several values, and which combinations of them share a program.

`config.sweep` assigns values to fields, "agent.expectile=0.5,0.7,0.9; agent.temperature=1,3", and every combination is
trained. The combinations of fields that `config.side_by_side` lists run side by side in one program, each with the same
seeds: they stand in formulas and change no shape. All other fields run in sequence, one folder a combination.

The values of a run's own fields are arguments of the compiled step, and `Experiment.program` is called inside it with a
configuration that has them as scalars. A paper sees an ordinary configuration and knows nothing of a sweep.
"""

import ast
import copy
import fnmatch
import itertools
import math
import re
from collections.abc import Mapping
from typing import Any

import numpy as np
from ml_collections import ConfigDict

from rl_jax.core.config import flat, unknown
from rl_jax.core.ranges import check_ranges

# They say which experiment this is: another one is not a setting of it.
FIXED = {"sweep", "paper", "preset"}
# A comma outside parentheses: those inside belong to a tuple.
SEPARATOR = re.compile(r",(?![^(]*\))")

Setting = dict[str, Any]  # dotted field -> value


def swept(config: Mapping[str, Any]) -> dict[str, tuple[Any, ...]]:
    """The values of every swept field, both in the order of `config.sweep`.

    Args:
      config: the whole configuration; as everywhere in this module where it says Mapping, a run's config.json will do.

    Raises:
      ValueError: `config.sweep` names a field that does not exist or cannot be swept, or a value that is not of the
        field's type, is missing or stands there twice.
    """
    fields, values = flat(config), {}
    for name, texts in _parts(config).items():
        if name not in fields or name in FIXED:
            raise ValueError(f"config.sweep: {unknown('field', name, fields.keys() - FIXED)}")
        if name.startswith("agent.") and isinstance(fields[name], str):
            raise ValueError(
                f"config.sweep: {name}={fields[name]!r} chooses an algorithm, and another may have other fields: start "
                "a run of its own for each"
            )
        values[name] = tuple(_value(name, text, fields[name]) for text in texts)
        for value in values[name]:
            check_ranges({name: value})
        if len(set(values[name])) < len(texts):
            raise ValueError(f"config.sweep: {name} has a value twice: {', '.join(texts)}")
    return values


def side_by_side(config: Mapping[str, Any]) -> list[Setting]:
    """The combinations that share a program, the last field varying fastest; one without fields where none is swept."""
    return _product({name: own for name, own in swept(config).items() if _is_side_by_side(config, name, own[0])})


def in_sequence(config: Mapping[str, Any]) -> list[Setting]:
    """The combinations that run one after another, the last field varying fastest; one without fields where none is."""
    return _product({name: own for name, own in swept(config).items() if not _is_side_by_side(config, name, own[0])})


def at(config: ConfigDict, setting: Setting) -> ConfigDict:
    """The configuration of one combination of a sequence: its fields are set, and out of `config.sweep`."""
    config = copy.deepcopy(config)
    rest = {name: texts for name, texts in _parts(config).items() if name not in setting}
    config.update_from_flattened_dict(setting)
    config.sweep = "; ".join(f"{name}={','.join(texts)}" for name, texts in rest.items())
    return config


def labels(config: Mapping[str, Any]) -> list[Setting]:
    """Which run is which: of each of the S runs of a folder its seed and its swept fields, in the columns' order."""
    seeds = range(config["seed"], config["seed"] + config["num_seeds"])
    return [{"seed": seed, **setting} for setting in side_by_side(config) for seed in seeds]


def num_runs(config: Mapping[str, Any]) -> int:
    """S, the runs that train side by side: every combination with every seed."""
    return len(labels(config))


def groups(config: Mapping[str, Any]) -> dict[str, slice]:
    """The runs of every combination, by its name; all runs under "" where nothing is swept."""
    size = config["num_seeds"]
    return {title(setting): slice(i * size, (i + 1) * size) for i, setting in enumerate(side_by_side(config))}


def title(setting: Setting) -> str:
    """A combination in a word, e.g. "agent.expectile=0.7,agent.temperature=3.0"."""
    return ",".join(f"{name}={str(value).replace(' ', '')}" for name, value in setting.items())


def settings(config: Mapping[str, Any]) -> dict[str, np.ndarray]:
    """The values [S] of every field that `config.side_by_side` lists, float32 or int32, swept or not.

    Those that are not swept are among them so that a run alone is computed as it is in a sweep. With Python numbers it
    would not be: 1 - 0.9 is 0.1 for Python and 0.100000024 in float32, and XLA computes with known constants in another
    order (x * c * c becomes x * (c * c)).
    """
    own = {name: value for name, value in flat(config).items() if _is_side_by_side(config, name, value)}
    runs = labels(config)
    return {
        name: np.asarray([run.get(name, value) for run in runs], np.float32 if isinstance(value, float) else np.int32)
        for name, value in own.items()
    }


def check_one_folder(config: ConfigDict) -> None:
    """Raises ValueError where a sweep needs several folders."""
    if sequence := in_sequence(config)[0]:
        raise ValueError(
            f"config.sweep: {', '.join(sequence)} runs in sequence, a folder a value: only a binary can start that"
        )


def with_settings(config: ConfigDict, settings: Mapping[str, Any]) -> ConfigDict:
    """The configuration with one run's settings in the place of its own values; they may be traced scalars."""
    config = config.copy_and_resolve_references()
    with config.ignore_type():
        for name, value in settings.items():
            *path, field = name.split(".")
            group = config
            for part in path:
                group = group[part]
            group[field] = value
    return config


def _is_side_by_side(config: Mapping[str, Any], name: str, value: Any) -> bool:
    """Whether `config.side_by_side` lists the field, and does not take it out again with an exclamation mark."""
    patterns = config.get("side_by_side", ())
    if isinstance(value, bool) or not isinstance(value, int | float) or f"!{name}" in patterns:
        return False
    # A wildcard means numbers with a decimal point alone: a whole number may be a shape.
    return any(
        name == pattern or isinstance(value, float) and fnmatch.fnmatchcase(name, pattern) for pattern in patterns
    )


def _product(values: Mapping[str, tuple[Any, ...]]) -> list[Setting]:
    return [dict(zip(values, combination, strict=True)) for combination in itertools.product(*values.values())]


def _parts(config: Mapping[str, Any]) -> dict[str, list[str]]:
    """The values of `config.sweep` as texts, by field."""
    parts = {}
    for part in filter(None, map(str.strip, config.get("sweep", "").split(";"))):
        name, equals, text = (word.strip() for word in part.partition("="))
        texts = [value.strip() for value in SEPARATOR.split(text)]
        if not name or not equals or "" in texts:
            raise ValueError(f"config.sweep: {part!r} is not field=value,value,...: a name or a value is missing")
        if name in parts:
            raise ValueError(f"config.sweep: {name} stands there twice")
        parts[name] = texts
    return parts


def _value(name: str, text: str, current: Any) -> Any:
    """The value that `text` writes, of the type of the field's current one."""
    try:
        if isinstance(current, str):
            return text
        if isinstance(current, bool):
            return {"true": True, "false": False}[text.lower()]
        if isinstance(current, int):
            return int(text)
        if isinstance(current, float):
            if not math.isfinite(number := float(text)):
                raise ValueError(text)
            return number
        value = ast.literal_eval(text)
        if not isinstance(value, tuple) or current and {*map(type, value)} != {*map(type, current)}:
            raise ValueError(text)
        return value
    except (ValueError, KeyError, SyntaxError):
        kind = {bool: "true or false", int: "a whole number", float: "a finite number"}.get(type(current), "a tuple")
        raise ValueError(f"config.sweep: {name}={text}: must be {kind}, like {current!r}") from None
