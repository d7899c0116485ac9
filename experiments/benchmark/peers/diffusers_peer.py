"""diffusers' U-Net, in PyTorch: a process in another Python that is told what to do next (diffusers_process.py).

Its shape, sampler, levels, loss, chunks and optimiser are set to ours.
"""

import contextlib
import dataclasses
import functools
import json
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import jax.numpy as jnp

from experiments.benchmark.measuring import Variant
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


def interpreter(python: str) -> Path | None:
    """The file that --diffusers_python names; None where it is not given.

    Raises:
      ValueError: there is no such file.
    """
    path = Path(python).expanduser()
    if python and not path.is_file():
        raise ValueError(f"--diffusers_python={python}: there is no such file, name a Python interpreter")
    return path if python else None


@contextlib.contextmanager
def diffusers_unet(python: Path, settings: DiffusersSettings, parameters: int) -> Iterator[dict[str, Variant]]:
    """What samples and what trains on a batch, counting its images, by "sample" and "train".

    Args:
      parameters: of our U-Net.

    Raises:
      ValueError: `python` does not run or lacks torch or diffusers, or theirs has another number of parameters.
    """
    fields = {name: x for name, x in dataclasses.asdict(settings.unet).items() if name not in ("dtype", "remat")}
    told = settings._asdict() | {"unet": fields, "dtype": jnp.dtype(settings.unet.dtype).name}
    command = [python, Path(__file__).with_name("diffusers_process.py"), json.dumps(told)]
    try:
        process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    except OSError as error:
        raise ValueError(f"--diffusers_python={python} does not run: {error.strerror}") from None

    def answer() -> str:
        line = process.stdout.readline()
        if not line:
            raise ValueError(f"--diffusers_python={python} ended ({process.wait()}); its own message stands above")
        return line

    def ask(what: str) -> int:
        process.stdin.write(f"{what}\n")
        process.stdin.flush()
        return int(answer())

    with process:
        theirs = json.loads(answer())["parameters"]
        if theirs != parameters:
            raise ValueError(f"diffusers' U-Net has {theirs} parameters and ours {parameters}")
        yield {what: Variant(functools.partial(ask, what)) for what in ("sample", "train")}
        process.stdin.close()
