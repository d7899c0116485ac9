"""Pipelines of runs: what one stage has trained is what the next one starts from, seed by seed."""

from collections.abc import Sequence
from pathlib import Path

import jax
from jax.sharding import SingleDeviceSharding

from rl_jax.core.checkpoint import load_leaves
from rl_jax.core.files import read_json
from rl_jax.core.mesh import path_name
from rl_jax.core.program import PyTree
from rl_jax.language.decoder import DecoderConfig, init_decoder


def starting_models(
    field: str, run: str, decoder: DecoderConfig, seeds: Sequence[int], network: str = "policy"
) -> list[PyTree]:
    """The decoders that these seeds start from, on the host: those of a finished run, or fresh ones where it is "".

    Arguments and errors as `trained_models`.
    """
    if not run:
        return [jax.device_get(init_decoder(decoder, jax.random.key(seed))) for seed in seeds]
    return trained_models(field, run, jax.eval_shape(lambda: init_decoder(decoder, jax.random.key(0))), seeds, network)


def trained_models(
    field: str, run: str, like: PyTree, seeds: Sequence[int], network: str = "policy"
) -> list[PyTree]:
    """The networks that a finished run has trained for these of its seeds, on the host.

    Args:
      field: of the configuration that names the run, for messages.
      run: its folder.
      like: parameters, or their shapes, of one network.
      network: by the name that the run trained it under, such as "policy", "reward" or "judge".

    Raises:
      FileNotFoundError: `config.FIELD` is no finished run.
      ValueError: it has not these seeds, or networks of another shape.
    """
    folder, said = Path(run).expanduser(), f"config.{field}={run}"
    if not (folder / "result.json").is_file():
        raise FileNotFoundError(f"{said} is not the --workdir of a finished run: run that stage first")
    there = read_json(folder / "config.json")
    rows = [seed - there["seed"] for seed in seeds]
    if not all(0 <= row < there["num_seeds"] for row in rows):
        raise ValueError(f"{said} has {there['num_seeds']} seeds from {there['seed']}, and this run {list(seeds)}")
    place = SingleDeviceSharding(jax.local_devices()[0])
    wanted = {f"params/{network}/{path_name(path)}": x for path, x in jax.tree_util.tree_leaves_with_path(like)}
    _, found = load_leaves(folder, {name: lambda shape: place for name in wanted})
    for name, leaf in wanted.items():
        if name not in found or found[name].shape[1:] != leaf.shape:
            raise ValueError(f"{said} has no {name} of shape {leaf.shape}: its models have another shape")
    leaves = jax.device_get([found[name] for name in wanted])
    return [jax.tree.unflatten(jax.tree.structure(like), [x[row] for x in leaves]) for row in rows]
