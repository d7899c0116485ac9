"""Files of pretrained parameters: arrays of half precision with the kind and the domain of the model."""

from collections.abc import Callable
from pathlib import Path

import jax
import numpy as np
from flax.traverse_util import flatten_dict, unflatten_dict

from rl_jax.core.arrays import read_arrays
from rl_jax.core.files import atomically
from rl_jax.core.program import Key, PyTree


def save_model(path: Path, params: PyTree, *, kind: str, domain: str) -> None:
    """Writes parameters as float16, with their kind and domain."""
    arrays = {"/".join(name): np.asarray(value, np.float16) for name, value in flatten_dict(params).items()}
    with atomically(path) as file:
        np.savez_compressed(file, **arrays, _kind=np.asarray(kind), _domain=np.asarray(domain))


def load_model(path: Path, kind: str, domain: str, init: Callable[[Key], PyTree]) -> PyTree:
    """Reads the parameters that `save_model` wrote, as float32 host arrays.

    Args:
      kind, domain: what the model must be.
      init: key -> parameters of the network, whose names and shapes the file must have.

    Raises:
      FileNotFoundError: there is no such file.
      ValueError: the file is damaged, or holds another model, or parameters that do not fit the network.
    """
    if not path.exists():
        raise FileNotFoundError(f"{path}: no such model: make one with a preset of pretraining")
    try:
        arrays = read_arrays(path)
    except ValueError as error:
        raise ValueError(f"{path} is damaged, it is no file of parameters ({error}): copy it again") from error
    found_kind, found_domain = (str(arrays.pop(name, "")) for name in ("_kind", "_domain"))
    if (found_kind, found_domain) != (kind, domain):
        raise ValueError(
            f"{path} holds the {found_kind} model of {found_domain}, and the {kind} model of {domain} is needed: give "
            "the path of another file"
        )
    shapes = flatten_dict(jax.eval_shape(init, jax.random.key(0)))
    expected = {"/".join(name): value.shape for name, value in shapes.items()}
    for name in sorted(expected.keys() | arrays.keys()):
        shape = arrays[name].shape if name in arrays else None
        if shape != expected.get(name):
            raise ValueError(f"{path}: {name} is {shape} and the network's {expected.get(name)}: pretrain it again")
    return unflatten_dict({tuple(name.split("/")): np.asarray(value, np.float32) for name, value in arrays.items()})
