"""Weights of an earlier stage: `config.init_from` takes leaves of a finished run into a new one."""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
from absl import logging
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P
from ml_collections import ConfigDict

from rl_jax.core.checkpoint import CheckpointMismatchError, load_leaves
from rl_jax.core.mesh import path_name
from rl_jax.core.program import TrainState
from rl_jax.core.provenance import read_starts


def check_source(config: ConfigDict) -> None:
    """Raises FileNotFoundError where `config.init_from.run` is no run, and ValueError where it is not finished or
    `config.init_from.names` is no regular expression."""
    source, names = config.init_from.run, config.init_from.names
    if not source:
        return
    try:
        re.compile(names)
    except re.error as error:
        raise ValueError(f"--config.init_from.names={names} is not a regular expression: {error}") from error
    if not (Path(source).expanduser() / "provenance.json").is_file():
        raise FileNotFoundError(f"--config.init_from.run={source} is not the --workdir of a finished run")
    end = _starts(source)[-1].get("end", {})
    if (state := end.get("state", "not finished")) != "finished":
        raise ValueError(f"--config.init_from.run={source} is {state}: give its command again, then this one")


def init_from(
    config: ConfigDict, state: TrainState, inputs: Mapping[str, Any]
) -> tuple[TrainState, dict[str, Any]]:
    """`state` with the leaves that `config.init_from.names` finds taken from the run in `config.init_from.run`.

    A source of one run serves all S runs; otherwise it has as many. The step and what is not found stay as they are.

    Args:
      state: of all S runs, as the program's init made it, on its devices.
      inputs: what this run reads; a warning says where the source has read something else under the same name.

    Returns:
      (state, what was read, for the provenance); the state itself and nothing where no run is named.

    Raises:
      ValueError: the source, which has passed `check_source`, has another number of runs, or lacks a leaf of that name
        and shape.
    """
    source, names = config.init_from.run, config.init_from.names
    if not source:
        return state, {}
    flag = f"--config.init_from.run={source}"
    for name, value in _starts(source)[0]["inputs"].items():
        if name in inputs and inputs[name] != value:
            logging.warning("%s has read %s = %r, and this run %r", flag, name, value, inputs[name])
    leaves = {
        path_name(path): leaf
        for path, leaf in jax.tree_util.tree_leaves_with_path(state)
        if path_name(path) != "step" and re.search(names, path_name(path))
    }
    if not leaves:
        raise ValueError(f"--config.init_from.names={names} finds no leaf of this run's state")

    def place(leaf: jax.Array) -> Any:
        spec = P(None, *leaf.sharding.spec[1:])  # the source may have one run where this one has several
        return lambda shape: NamedSharding(leaf.sharding.mesh, spec if len(shape) == leaf.ndim else P())

    step, found = load_leaves(source, {name: place(leaf) for name, leaf in leaves.items()})
    taken = {}
    for name, leaf in leaves.items():
        there = found[name].shape if name in found else None
        if there is None or there[1:] != leaf.shape[1:]:
            raise CheckpointMismatchError(
                f"{flag} has {name}: {there and there[1:]}, and this run {leaf.shape[1:]}: choose the leaves that both "
                "have with --config.init_from.names"
            )
        if there[0] not in (1, leaf.shape[0]):
            raise ValueError(f"{flag} has {there[0]} runs, and this one {leaf.shape[0]}: give 1 or as many")
        widened = jax.jit(lambda x, shape=leaf.shape: jax.numpy.broadcast_to(x, shape), out_shardings=leaf.sharding)
        taken[name] = widened(found[name].astype(leaf.dtype))
    state = jax.tree_util.tree_map_with_path(lambda path, leaf: taken.get(path_name(path), leaf), state)
    return state, {"init_from": {"run": str(source), "step": step, "names": names, "leaves": len(taken)}}


def _starts(source: str) -> list[dict[str, Any]]:
    return read_starts(Path(source).expanduser() / "provenance.json")
