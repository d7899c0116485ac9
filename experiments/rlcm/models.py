"""Files of pretrained parameters."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax.traverse_util import flatten_dict, unflatten_dict

from rl_jax.core.program import Key, PyTree

CHECKPOINTS = Path(__file__).parent / "checkpoints"


def save_model(path: Path, params: PyTree, **described: Any) -> None:
    """Writes parameters as float16, with what they are; a file of that name is replaced as a whole."""
    arrays = {"/".join(name): np.asarray(value, np.float16) for name, value in flatten_dict(params).items()}
    arrays |= {f"_{name}": np.asarray(value) for name, value in described.items()}
    unfinished = path.with_suffix(".tmp")
    with open(unfinished, "wb") as file:
        np.savez_compressed(file, **arrays)
    unfinished.replace(path)


def load_model(path: Path, kind: str, domain: str, init: Callable[[Key], PyTree]) -> PyTree:
    """The float32 parameters, as `init` gives them, of a file that `save_model` wrote.

    Raises:
      FileNotFoundError or ValueError: the message names the file, what is missing or does not fit, and the remedy.
    """
    if not path.exists():
        raise FileNotFoundError(f"{path}: no such model: make one with a preset of pretraining in configs/rlcm.py")
    with np.load(path, allow_pickle=False) as file:
        arrays = {name: file[name] for name in file.files}
    described = {name: str(arrays.pop(f"_{name}", "")) for name in ("kind", "domain")}
    if described != {"kind": kind, "domain": domain}:
        raise ValueError(f"{path}: it is a model {described}, and {kind} of {domain} is asked for")
    shapes = flatten_dict(jax.eval_shape(init, jax.random.key(0)))
    wanted = {"/".join(name): value.shape for name, value in shapes.items()}
    for name in sorted(wanted.keys() | arrays.keys()):
        found = arrays[name].shape if name in arrays else None
        if found != wanted.get(name):
            raise ValueError(f"{path}: {name} is {found} and the network's {wanted.get(name)}: pretrain it again")
    return unflatten_dict({tuple(name.split("/")): jnp.asarray(value, jnp.float32) for name, value in arrays.items()})
