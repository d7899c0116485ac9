"""Low-rank adapters (LoRA), which fine-tune a large network by training few parameters.

Hu et al. 2021, arXiv 2106.09685. The initial values are those in the code of RLCM (Oertell et al. 2024, arXiv
2404.03673).
"""

import re
from typing import Any

import jax
import jax.numpy as jnp
from flax.traverse_util import flatten_dict, unflatten_dict

from rl_jax.core.program import PyTree


def init_lora(key: jax.Array, params: PyTree, rank: int, layers: str, dtype: Any = jnp.float32) -> PyTree:
    """Creates adapters {..., "to_q": {"a": [D, rank], "b": [rank, F]}} of the kernels [D, F] that `layers` matches.

    Kernels of stacked layers, [L, D, F], get stacked adapters. A is normal with standard deviation 1 / rank and B is 0,
    so fresh adapters change nothing, as adapters of zeros do: a fine-tuned network has its reference in itself.

    Args:
      params: arrays or shapes of the network.
      layers: a regex that is searched in paths such as `mid_block/attentions_0/transformer_blocks_0/attn1/to_q/kernel`.

    Raises:
      ValueError: no path matches, a matching parameter is no matrix and no stack of them, or the rank is not positive.
    """
    kernels = {path: x for path, x in flatten_dict(params).items() if re.search(layers, "/".join(path))}
    if not kernels:
        raise ValueError(f"no parameter's path matches {layers!r}, so there is nothing to adapt")
    if rank < 1:
        raise ValueError(f"the rank of adapters is {rank}: it is 1 or more")
    adapters = {}
    for path, draw in zip(sorted(kernels), jax.random.split(key, len(kernels)), strict=True):
        if len(kernels[path].shape) not in (2, 3):
            raise ValueError(f"{'/'.join(path)} has the shape {kernels[path].shape}: adapters are of matrices")
        *stack, inputs, outputs = kernels[path].shape
        adapters[(*path[:-1], "a")] = jax.random.normal(draw, (*stack, inputs, rank), dtype) / rank
        adapters[(*path[:-1], "b")] = jnp.zeros((*stack, rank, outputs), dtype)
    return unflatten_dict(adapters)


def apply_lora(params: PyTree, adapters: PyTree, alpha: float) -> PyTree:
    """Returns `params` with alpha / rank * A B added to each adapted kernel; other leaves are the same arrays.

    Differentiate with respect to `adapters` to train them alone; map over a leading axis of theirs to run several. The
    sum is computed in the adapters' dtype and rounded to the kernel's: keep kernels in float32 where a small change must
    not be lost, and let the network's own dtype decide how it computes.

    Raises:
      ValueError: `adapters` holds a kernel that `params` does not have.
    """
    merged, given = flatten_dict(params), flatten_dict(adapters)
    for path, a in given.items():
        if path[-1] != "a":
            continue
        kernel = (*path[:-1], "kernel")
        if kernel not in merged:
            raise ValueError(f"adapters of {'/'.join(kernel)}, which the network does not have")
        delta = alpha / a.shape[-1] * (a @ given[(*path[:-1], "b")])
        merged[kernel] = (merged[kernel].astype(delta.dtype) + delta).astype(merged[kernel].dtype)
    return unflatten_dict(merged)
