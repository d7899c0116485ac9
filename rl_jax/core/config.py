"""The part of a configuration that every experiment shares, its checks, and presets.

A paper's `configs/<paper>.py` starts from `core_config()` and adds its own fields; `core.loop.run` reads these.
"""

import difflib
import re
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from ml_collections import ConfigDict

from rl_jax.core.ranges import check_ranges


def core_config() -> ConfigDict:
    """The defaults of the core's fields."""
    return ConfigDict(
        {
            # Seeds seed, ..., seed + num_seeds - 1 train side by side in one program.
            "seed": 0,
            "num_seeds": 1,
            # Fields that take several values, e.g. "agent.expectile=0.5,0.7,0.9; agent.temperature=1,3": core.sweep.
            "sweep": "",
            # The fields that a sweep may train side by side in one program: those that stand in formulas and change no
            # shape. A pattern with a wildcard means numbers with a decimal point; name a whole number in full;
            # "!agent.discount" takes a field out.
            "side_by_side": ("agent.*",),
            # Weights of an earlier stage: a finished run's folder, and a regex of the leaves to take from it, such as
            # "params/actor/|extra/observation_". A run that resumes takes its own.
            "init_from": {"run": "", "names": ".*"},
            # One step is one `Program.step`; every interval below counts steps.
            "num_steps": 1000,
            "loop": {
                "chunk": 250,  # steps fused into one compiled call, at most
                "log_every": 1000,
                "eval_every": 5000,  # 0: only after the last step
                "eval_at_start": False,  # also before the first one
                "on_nan": "abort",  # or "skip": drop the updates that make a non-finite metric
                "seed_axis": "auto",  # "vmap" (accelerators) or "map" (CPU): see core.fused.over_runs
            },
            "checkpoint": {
                "every": 5000,  # 0: only after the last step or when told to stop
                "keep": 2,  # the latest ones; the best is kept besides
            },
            # Sizes of the mesh axes; -1 takes the devices that the others leave.
            "mesh": {"seed": 1, "data": -1, "model": 1},
            # First match wins: (path regex, "replicate" | "fsdp" | for each dimension None, an axis or several).
            "sharding_rules": ((".*", "replicate"),),
            "resident_rules": ((".*", "replicate"),),  # the same for what all runs share: data, frozen networks
            # Several processes: leave empty on SLURM, Open MPI, GKE and TPU pods.
            "distributed": {"coordinator_address": "", "num_processes": 0, "process_id": -1},
            "deterministic": False,  # bitwise reproducible on GPUs too, slower
            "profile": 0,  # the first steps of a start to trace into <workdir>/profile, for TensorBoard or Perfetto
            "tensorboard": True,
            "wandb_project": "",  # a name switches Weights & Biases on
        }
    )


def check_core_config(config: ConfigDict, combinations: int = 1) -> None:
    """Raises ValueError naming the first field whose value cannot work, and what it may be.

    Args:
      combinations: of swept fields that run side by side, each with all seeds.
    """
    fields = flat(config)
    check_ranges({name: fields[name] for name in flat(core_config())})  # first: others may follow from these
    check_ranges(fields)
    for field in ("sharding_rules", "resident_rules"):
        for rule in config[field]:
            try:
                re.compile(rule[0])
            except (re.error, TypeError) as error:
                raise ValueError(f"config.{field}: {rule[0]!r} is not a regular expression: {error}") from error
    one_of = {"on_nan": ("abort", "skip"), "seed_axis": ("auto", "vmap", "map")}
    for field, values in one_of.items():
        if config.loop[field] not in values:
            raise ValueError(f"config.loop.{field}={config.loop[field]!r}: must be one of {', '.join(values)}")
    seeds, devices = config.num_seeds, config.mesh.seed
    if devices > 0 and seeds * combinations % devices:
        runs = f"config.num_seeds={seeds}" + (f" times {combinations} settings" if combinations > 1 else "")
        raise ValueError(f"{runs} does not divide over config.mesh.seed={devices} devices")


def flat(tree: Mapping[str, Any] | ConfigDict, prefix: str = "") -> dict[str, Any]:
    """The fields of a configuration, also as config.json holds it, by dotted name."""
    fields = {}
    for name, value in tree.items():
        fields |= flat(value, f"{prefix}{name}.") if isinstance(value, Mapping | ConfigDict) else {prefix + name: value}
    return fields


def unknown(kind: str, name: str, known: Iterable[str]) -> str:
    """The message for a name that does not exist: the near ones, or all where none is near."""
    known = sorted(known)
    near = difflib.get_close_matches(name, known, n=3)
    hint = f"did you mean {' or '.join(near)}?" if near else f"known are {', '.join(known)}"
    return f"unknown {kind} {name!r}: {hint}"


def from_preset(paper: str, presets: dict[str, Callable[[], ConfigDict]], name: str) -> ConfigDict:
    """The configuration of a paper's preset; it carries both names.

    Raises:
      ValueError: there is no such preset; the message lists the near ones.
    """
    if name not in presets:
        raise ValueError(unknown("preset", name, presets))
    config = presets[name]()
    config.paper, config.preset = paper, name
    return config
