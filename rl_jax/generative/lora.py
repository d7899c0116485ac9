"""Low-rank adapters of attention, so that a large network is fine-tuned by few parameters.

Hu et al. 2021, arXiv 2106.09685. Which layers and how they start: the code of RLCM (Oertell et al. 2024, arXiv
2404.03673), which adapts query, key, value and output of every attention of its U-Net.
"""

import re
from typing import Any

import jax
import jax.numpy as jnp
from flax.traverse_util import flatten_dict, unflatten_dict

from rl_jax.core.program import PyTree

ATTENTION = r"(to_q|to_k|to_v|to_out_0)/kernel$"


def init_lora(key: jax.Array, params: PyTree, rank: int, layers: str = ATTENTION, dtype: Any = jnp.float32) -> PyTree:
    """Adapters of the kernels [D, F] whose path has `layers` in it: {..., "to_q": {"a": [D, rank], "b": [rank, F]}}.

    A is normal with deviation 1 / rank and B is 0, so that fresh adapters change nothing.

    Args:
      params: arrays or shapes of the network, or of a pipeline's part.
      layers: a regex, searched in paths such as `mid_block/attentions_0/transformer_blocks_0/attn1/to_q/kernel`.

    Raises:
      ValueError: no kernel has such a path, one that has is no matrix, or the rank is not positive.
    """
    kernels = {path: x for path, x in flatten_dict(params).items() if re.search(layers, "/".join(path))}
    if not kernels:
        raise ValueError(f"no parameter's path has {layers!r} in it, so there is nothing to adapt")
    if rank < 1:
        raise ValueError(f"the rank of adapters is {rank}: it is 1 or more")
    adapters = {}
    for path, draw in zip(sorted(kernels), jax.random.split(key, len(kernels)), strict=True):
        if len(kernels[path].shape) != 2:
            raise ValueError(f"{'/'.join(path)} has the shape {kernels[path].shape}: adapters are of matrices")
        inputs, outputs = kernels[path].shape
        adapters[(*path[:-1], "a")] = jax.random.normal(draw, (inputs, rank), dtype) / rank
        adapters[(*path[:-1], "b")] = jnp.zeros((rank, outputs), dtype)
    return unflatten_dict(adapters)


def apply_lora(params: PyTree, adapters: PyTree, alpha: float) -> PyTree:
    """`params` with alpha / rank * A B added to the kernels that have adapters; other leaves are the same arrays.

    Gradients with respect to `adapters` train them alone, while `params` stay as they are. The sum is taken in the
    adapters' dtype and rounded to the kernel's, so keep float32 kernels where a small change must not be lost, and let
    the network's own dtype decide how it computes.

    Raises:
      ValueError: adapters of a kernel that `params` does not have.
    """
    merged, given = flatten_dict(params), flatten_dict(adapters)
    for path, a in given.items():
        if path[-1] != "a":
            continue
        kernel = (*path[:-1], "kernel")
        if kernel not in merged:
            raise ValueError(f"adapters of {'/'.join(kernel)}, which the network does not have")
        delta = alpha / a.shape[1] * (a @ given[(*path[:-1], "b")])
        merged[kernel] = (merged[kernel].astype(delta.dtype) + delta).astype(merged[kernel].dtype)
    return unflatten_dict(merged)
