"""diffusers' U-Net, in PyTorch: a process in another Python that is told what to do next (diffusers_process.py).

Its shape, sampler, levels, loss, chunks and optimiser are set to ours.
"""

import dataclasses
from contextlib import AbstractContextManager
from pathlib import Path
from typing import NamedTuple

import jax.numpy as jnp

from experiments.benchmark.measuring import Variant
from experiments.benchmark.peers.other_python import process
from rl_jax.generative.unet import UNetConfig


class DiffusersSettings(NamedTuple):
    """What diffusers' process is told.

    Attributes:
      unet: of a U-Net, whose dtype the peer's has too.
      device: "cpu" or "cuda".
      batch_size: images that are sampled, and trained on, at once.
      tokens: L of the context.
      timesteps, levels, stds: of the sampler, one a call.
      chunk_size: steps of images whose gradient is computed at once; it divides batch_size times calls.
      learning_rate, clip, max_grad_norm: of the update.
    """

    unet: UNetConfig
    device: str
    batch_size: int
    tokens: int
    timesteps: list[int]
    levels: list[float]
    stds: list[float]
    chunk_size: int
    learning_rate: float
    clip: float
    max_grad_norm: float


def diffusers_unet(
    python: Path, settings: DiffusersSettings, parameters: int
) -> AbstractContextManager[dict[str, Variant]]:
    """What samples and what trains on a batch, counting its images, by "sample" and "train" (other_python.process).

    Args:
      parameters: of our U-Net.
    """
    fields = {name: x for name, x in dataclasses.asdict(settings.unet).items() if name not in ("dtype", "remat")}
    told = settings._asdict() | {"unet": fields, "dtype": jnp.dtype(settings.unet.dtype).name}
    return process("diffusers_python", python, "diffusers_process.py", told, parameters, ("sample", "train"))
