"""The aesthetic score: a head on CLIP's image embedding that predicts how people rate a picture, about 1 to 10.

Source: the LAION improved aesthetic predictor of Schuhmann et al. 2022 (LAION-5B), arXiv 2210.08402, as Black et al.
2023 (DDPO), arXiv 2305.13301, and Oertell et al. 2024 (RLCM), arXiv 2404.03673, use it: on ViT-L/14.
"""

import pickle
import zipfile
from collections import OrderedDict
from pathlib import Path
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from flax.traverse_util import flatten_dict, unflatten_dict

from rl_jax.core.program import PyTree
from rl_jax.generative.clip import unit
from rl_jax.generative.pretrained import torch_axes, torch_name
from rl_jax.networks.weight_files import open_safetensors

WIDTH = 768  # of ViT-L/14's embedding
# Width of each layer by its index in the authors' list, where the dropouts, off at test time, have an index too.
LAYERS = {0: 1024, 2: 128, 4: 64, 6: 16, 7: 1}
STORAGES = {"FloatStorage": np.float32, "HalfStorage": np.float16, "DoubleStorage": np.float64}


class AestheticHead(nn.Module):
    """Maps embeddings of images [B, 768], of any length, to scores [B] by linear layers without activations."""

    @nn.compact
    def __call__(self, embeddings: jax.Array) -> jax.Array:
        x = unit(embeddings)
        for number, units in LAYERS.items():
            x = nn.Dense(units, name=f"layers_{number}")(x)
        return x[:, 0]


def load_head(file: str | Path) -> PyTree:
    """Reads the parameters of an `AestheticHead`, float32 host arrays.

    Args:
      file: safetensors, or the authors' sac+logos+ava1-l14-linearMSE.pth, as torch wrote it.

    Raises:
      FileNotFoundError: there is no such file.
      ValueError: it is another kind of file, holds something else than tensors, or the tensors are not this head's.
    """
    file = Path(file).expanduser()
    if not file.is_file():
        raise FileNotFoundError(f"{file} is missing: give the file of the aesthetic head, .pth or .safetensors")
    tensors = _read_safetensors(file) if file.suffix == ".safetensors" else read_torch(file)
    shapes = flatten_dict(jax.eval_shape(AestheticHead().init, jax.random.key(0), jnp.zeros((1, WIDTH)))["params"])
    params, wrong = {}, []
    for keys, leaf in shapes.items():
        name, axes = torch_name(keys), torch_axes(keys, len(leaf.shape))
        expected = tuple(leaf.shape[axis] for axis in axes)
        if name not in tensors:
            wrong.append(f"{name} is missing")
        elif tensors[name].shape != expected:
            wrong.append(f"{name} is {tensors[name].shape} and not {expected}")
        else:
            params[keys] = np.array(np.transpose(tensors[name], axes), np.float32, order="C")
    wrong += [f"{name} is not this head's" for name in sorted(tensors.keys() - set(map(torch_name, shapes)))]
    if wrong:
        raise ValueError(f"{file} is not the aesthetic head of ViT-L/14: {'; '.join(wrong)}")
    return unflatten_dict(params)


def read_torch(file: str | Path) -> dict[str, np.ndarray]:
    """Reads the tensors of a dictionary that `torch.save` wrote, without torch.

    A pickle may call any function; this reader makes only tensors and ordered dictionaries.

    Raises:
      ValueError: the file is not of torch 1.6 or later, or holds anything else.
    """
    remedy = "save a dictionary of tensors by torch 1.6 or later, or as safetensors"
    try:
        with zipfile.ZipFile(file) as archive:
            # torch compresses nothing, so that a larger content is a bomb.
            if sum(entry.file_size for entry in archive.infolist()) > Path(file).stat().st_size:
                raise ValueError("it is compressed")
            (pickled,) = (name for name in archive.namelist() if name.rpartition("/")[2] == "data.pkl")
            with archive.open(pickled) as stream:
                found = _Unpickler(stream, archive, pickled.removesuffix("data.pkl")).load()
    except Exception as error:  # a pickle that is no dictionary of tensors can fail in any way
        raise ValueError(f"{file} holds no tensors that can be read without torch ({error}): {remedy}") from error
    if not isinstance(found, dict):
        raise ValueError(f"{file} holds a {type(found).__name__}: {remedy}")
    others = [f"{name!r} is a {type(x).__name__}" for name, x in found.items() if not isinstance(x, np.ndarray)]
    if others:
        raise ValueError(f"{file}: {', '.join(others)} and no tensor: {remedy}")
    return dict(found)


class _Unpickler(pickle.Unpickler):
    """Reads data.pkl of torch's archive, whose tensors refer to storages: files beside it."""

    def __init__(self, stream: Any, archive: zipfile.ZipFile, folder: str):
        super().__init__(stream)
        self._archive, self._folder = archive, folder

    def find_class(self, module: str, name: str) -> Any:
        if module == "torch" and name in STORAGES:
            return np.dtype(STORAGES[name])
        known = {("collections", "OrderedDict"): OrderedDict, ("torch._utils", "_rebuild_tensor_v2"): _tensor}
        if (module, name) not in known:
            raise pickle.UnpicklingError(f"it asks for {module}.{name}")
        return known[module, name]

    def persistent_load(self, storage: tuple) -> np.ndarray:
        _, dtype, name, _, _ = storage
        return np.frombuffer(self._archive.read(f"{self._folder}data/{name}"), dtype)


def _tensor(storage: np.ndarray, offset: int, size: tuple, stride: tuple, *others: Any) -> np.ndarray:
    """Makes a view of a storage from torch's description; numpy refuses one that exceeds the storage."""
    del others
    width = storage.dtype.itemsize
    return np.ndarray(size, storage.dtype, storage, offset * width, tuple(step * width for step in stride))


def _read_safetensors(file: Path) -> dict[str, np.ndarray]:
    with open_safetensors(file, "generative") as tensors:
        return {name: tensors.get_tensor(name) for name in tensors.keys()}
