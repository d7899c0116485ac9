"""Images sampled and trained on a second by a latent consistency model's U-Net; a suite of benchmark.py, which see."""

import itertools
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from absl import logging
from ml_collections import ConfigDict

from experiments import peers
from experiments.peers import Variant
from rl_jax.generative import fine_tuning
from rl_jax.generative.diffusion import latent_consistency, lcm_timesteps, noise_levels, scaled_linear_alphas
from rl_jax.generative.policy import Sampler, Trajectory, consistency_sampler, sample
from rl_jax.generative.pretrained import UNET
from rl_jax.generative.unet import UNet, UNetConfig, guidance_embedding

MODEL_CALLS = 8  # of a sampler
# By size: the U-Net, images a batch, and tokens of a prompt.
UNETS = {
    "small": (
        UNetConfig(
            sample_size=32, in_channels=3, out_channels=3, block_out_channels=(64, 96, 128), layers_per_block=1,
            down_block_types=("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
            up_block_types=("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"), cross_attention_dim=128,
        ), 8, 16,
    ),
    "sd15": (UNetConfig(time_cond_proj_dim=256, dtype=jnp.bfloat16), 8, 77),
}

Rates = Callable[[dict[str, Variant]], dict[str, float]]  # variants -> what each does a second


class Diffusion(NamedTuple):
    """A latent consistency model with random weights, and its sampler.

    Attributes:
      sampler: of conditions [B, L, D].
      timesteps: of its calls.
      params: of its U-Net.
      drawn: (params, conditions, key) -> Trajectory, jitted.
      images: B -> (the shape of B images, their conditions).
    """

    sampler: Sampler
    timesteps: np.ndarray
    params: Any
    drawn: Callable[..., Trajectory]
    images: Callable[[int], tuple[tuple[int, ...], jax.Array]]


def diffusion(config: UNetConfig, tokens: int) -> Diffusion:
    module, alphas, timesteps = UNet(config), scaled_linear_alphas(), lcm_timesteps(MODEL_CALLS)

    def network(params: Any, x: jax.Array, times: jax.Array, context: jax.Array) -> jax.Array:
        told = config.time_cond_proj_dim
        guidance = None if told is None else guidance_embedding(jnp.full(len(x), 7.0), told)
        return module.apply({"params": params}, x, times, context, guidance).astype(jnp.float32)

    sampler = consistency_sampler(latent_consistency(network, alphas), noise_levels(alphas)[timesteps], 0.0)

    @jax.jit
    def init(key: jax.Array) -> Any:
        example = [jnp.zeros(x.shape, x.dtype) for x in UNET.inputs(config)]
        return jax.tree.map(lambda x: x.astype(config.dtype), module.init(key, *example)["params"])

    def images(number: int) -> tuple[tuple[int, ...], jax.Array]:
        context = jax.random.normal(jax.random.key(1), (number, tokens, config.cross_attention_dim))
        return (number, config.sample_size, config.sample_size, config.in_channels), context

    @jax.jit
    def drawn(params: Any, context: jax.Array, key: jax.Array) -> Trajectory:
        return sample(sampler, params, images(len(context))[0], context, key)

    return Diffusion(sampler, timesteps, init(jax.random.key(0)), drawn, images)


def sampling(model: Diffusion, batch_size: int) -> Variant:
    _, context = model.images(batch_size)
    keys = map(jax.random.key, itertools.count(3))

    def run() -> int:
        jax.block_until_ready(model.drawn(model.params, context, next(keys)))
        return batch_size

    return run


def training(model: Diffusion, batch_size: int) -> tuple[Variant, ConfigDict]:
    """A policy-gradient update of all parameters over all steps of one sampled batch, and its settings."""
    settings = fine_tuning.default_config()
    settings.chunk_size = batch_size
    trained = fine_tuning.fine_tuning(settings, model.sampler, batch_size)
    context, keys = model.images(batch_size)[1], map(jax.random.key, itertools.count(3))
    rewards = jax.random.normal(jax.random.key(2), (batch_size,))
    drawn = model.drawn(model.params, context, next(keys))
    batch = fine_tuning.Rewarded.of(drawn, jnp.arange(batch_size), context, rewards)
    update = jax.jit(trained.update, donate_argnums=0)
    carry = [trained.init(jax.tree.map(jnp.copy, model.params))]

    def run() -> int:
        carry[0], _ = update(carry[0], batch, next(keys))
        jax.block_until_ready(carry[0])
        return batch_size

    return run, settings


def memory(name: str) -> float | None:
    """Of the first device, in GB: "peak_bytes_in_use" since the start, "bytes_limit"; None on a CPU, which has none."""
    found = jax.devices()[0].memory_stats() or {}
    return found[name] / 1e9 if name in found else None


def in_memory(model: Diffusion, few: int, rates: Rates) -> dict[str, float | None]:
    """What the memory of batches of `few` images, which were sampled before, and of four times as many tells."""
    many, low = 4 * few, memory("peak_bytes_in_use")
    rate = rates({"sample": sampling(model, many)})["sample"]
    high, limit = memory("peak_bytes_in_use"), memory("bytes_limit")
    found = {"peak_memory_gb": low, "larger_batch_size": many, "images_per_s_larger_batch": rate}
    if high is None:
        return found
    most = few + int((limit - low) / ((high - low) / (many - few)))
    return found | {"peak_memory_gb_larger_batch": high, "memory_gb": limit, "most_images": fitting(model, most, many)}


def fitting(model: Diffusion, most: int, least: int) -> int:
    """The images that one batch can have, in steps of 8: what is tried is `most`, then an eighth less, and so on to
    `least`, which is known to fit."""
    while (most := most // 8 * 8) > least:
        try:
            sampling(model, most)()
            return most
        except jax.errors.JaxRuntimeError as error:
            if "RESOURCE_EXHAUSTED" not in str(error):
                raise
            logging.info("%d images do not fit", most)
            most = most * 7 // 8
    return least


def suite(size: str, diffusers_python: str, rates: Rates) -> dict[str, Any]:
    """The figures of a U-Net of UNETS.

    Args:
      diffusers_python: an interpreter that has torch and diffusers, to measure these beside; "" for none.
      rates: of variants, things done a second.

    Raises:
      ValueError: there is no such interpreter.
    """
    python = Path(diffusers_python).expanduser()
    if diffusers_python and not python.is_file():
        raise ValueError(f"--diffusers_python={diffusers_python}: there is no such file, name a Python interpreter")
    config, batch_size, tokens = UNETS[size]
    model = diffusion(config, tokens)
    parameters = sum(x.size for x in jax.tree.leaves(model.params))
    result = {
        "suite": "generative", "device": jax.devices()[0].device_kind, "size": size, "parameters": parameters,
        "calls": MODEL_CALLS, "batch_size": batch_size,
    }
    variants, settings = {"sample": sampling(model, batch_size)}, fine_tuning.default_config()
    if size == "small":
        variants["train"], settings = training(model, batch_size)
    if diffusers_python:
        told = peers.DiffusersSettings(
            config, "cpu" if jax.default_backend() == "cpu" else "cuda", batch_size, tokens, model.timesteps.tolist(),
            model.sampler.levels.tolist(), model.sampler.stds.tolist(), settings.chunk_size, settings.learning_rate,
            settings.clip, settings.max_grad_norm,
        )
        with peers.diffusers_unet(python, told) as (theirs, their_parameters):
            if their_parameters != parameters:
                raise ValueError(f"diffusers' U-Net has {their_parameters} parameters and ours {parameters}")
            rate = rates(variants | {f"diffusers_{name}": theirs[name] for name in variants})
    else:
        logging.info("--diffusers_python is not given: ours is measured alone")
        rate = rates(variants)
    for name, figure in (("sample", "images_per_s"), ("train", "trained_images_per_s")):
        if name in rate:
            result[figure] = rate[name]
        if f"diffusers_{name}" in rate:
            peer = rate[f"diffusers_{name}"]
            result |= {f"diffusers_{figure}": peer, f"ratio_to_diffusers_{figure}": rate[name] / peer}
    if size == "sd15":
        result |= in_memory(model, batch_size, rates)
    return result
