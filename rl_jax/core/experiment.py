"""What a paper's binary makes of a configuration: a program, what it reads, and which number says how good it is."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Literal, NamedTuple

from ml_collections import ConfigDict

from rl_jax.core.program import Program


class Metric(NamedTuple):
    """A number that says how good a run is.

    Attributes:
      name: of an evaluation's metric, such as "eval/return"; the outcome of that name is "return".
      label: what tables and figures call it.
      better: which way is good.
      unit: of its values; empty for none.
    """

    name: str
    label: str
    better: Literal["higher", "lower"] = "higher"
    unit: str = ""


class Experiment(NamedTuple):
    """What a paper's binary makes of a configuration.

    Attributes:
      program: configuration -> Program. It only puts functions together: data are read, and simulators opened, when the
        experiment is made. The core calls it with the run's configuration, and in a sweep, inside the compiled step,
        with the swept fields as traced scalars: that is how settings train side by side, and no paper mentions them.
      inputs: what the run reads, for its provenance, e.g. the data set's name and checksum.
      headline: the metric of the progress line, of the last line and of the best checkpoint.
      finish: (result, the run's folder) -> the paper's own fields of the last line; draws figures. Main process only.
    """

    program: Callable[[ConfigDict], Program]
    inputs: Mapping[str, Any]
    headline: Metric
    finish: Callable[[Any, Path], dict[str, Any]] = lambda result, workdir: {}
