"""Images per second that a latent consistency model's U-Net samples and trains on."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from absl import logging
from ml_collections import ConfigDict

from experiments.benchmark.measuring import Measure, Variant, queued
from experiments.benchmark.peers.diffusers_peer import DiffusersSettings, diffusers_unet
from experiments.benchmark.peers.other_python import interpreter
from rl_jax.core.program import TrainState
from rl_jax.generative import fine_tuning
from rl_jax.generative.diffusion import latent_consistency, lcm_timesteps, noise_levels, scaled_linear_alphas
from rl_jax.generative.policy import Sampler, Trajectory, consistency_sampler, sample
from rl_jax.generative.pretrained import UNET
from rl_jax.generative.unet import UNet, UNetConfig, guidance_embedding

MODEL_CALLS = 8  # of a sampler
# By size: the U-Net, images a batch, and tokens of a prompt.
UNETS = {
    "tiny": (
        UNetConfig(
            sample_size=8, in_channels=3, out_channels=3, block_out_channels=(8,), layers_per_block=1,
            norm_num_groups=4, down_block_types=("CrossAttnDownBlock2D",), up_block_types=("CrossAttnUpBlock2D",),
            cross_attention_dim=8, attention_head_dim=2,
        ), 2, 4,
    ),
    "small": (
        UNetConfig(
            sample_size=32, in_channels=3, out_channels=3, block_out_channels=(64, 96, 128), layers_per_block=1,
            down_block_types=("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
            up_block_types=("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"), cross_attention_dim=128,
        ), 8, 16,
    ),
    "sd15": (UNetConfig(time_cond_proj_dim=256, dtype=jnp.bfloat16), 8, 77),
}


def suite(measure: Measure, size: str = "small", diffusers_python: str = "") -> dict[str, Any]:
    """The figures of a U-Net of UNETS.

    Args:
      diffusers_python: an interpreter that has torch and diffusers, to measure these beside; "" for none.

    Raises:
      ValueError: there is no such interpreter, or what it runs is not our U-Net.
    """
    python = interpreter("diffusers_python", diffusers_python)
    config, batch_size, tokens = UNETS[size]
    model = diffusion(config, tokens)
    parameters = sum(x.size for x in jax.tree.leaves(model.params))
    settings = fine_tuning.default_config()
    variants = {"sample": sampling(model, batch_size)}
    if size == "small":
        settings.chunk_size = batch_size
        variants["train"] = training(model, batch_size, settings)
    if python:
        told = DiffusersSettings(
            config, "cpu" if jax.default_backend() == "cpu" else "cuda", batch_size, tokens, model.timesteps.tolist(),
            model.sampler.levels.tolist(), model.sampler.stds.tolist(), settings.chunk_size, settings.learning_rate,
            settings.clip, settings.max_grad_norm,
        )
        with diffusers_unet(python, told, parameters) as theirs:
            rate = measure(variants | {f"diffusers_{name}": theirs[name] for name in variants})
    else:
        logging.info("--diffusers_python is not given: ours is measured alone")
        rate = measure(variants)
    result = {
        "suite": "generative", "device": jax.devices()[0].device_kind, "size": size, "parameters": parameters,
        "calls": MODEL_CALLS, "batch_size": batch_size,
    }
    for name, figure in (("sample", "images_per_s"), ("train", "trained_images_per_s")):
        if name in rate:
            result[figure] = rate[name]
        if f"diffusers_{name}" in rate:
            peer = rate[f"diffusers_{name}"]
            result |= {f"diffusers_{figure}": peer, f"ratio_to_diffusers_{figure}": rate[name] / peer}
    if size == "sd15":
        result |= in_memory(model, batch_size, measure)
    return result


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
    """What samples a batch; it counts images."""
    _, context = model.images(batch_size)

    def step(_: Any, key: jax.Array) -> jax.Array:
        return model.drawn(model.params, context, key).final

    return queued(step, None, fused=batch_size, calls=1)


def training(model: Diffusion, batch_size: int, settings: ConfigDict) -> Variant:
    """A policy-gradient update of all parameters over all steps of one sampled batch; it counts images."""
    trainer = fine_tuning.fine_tuning(settings, model.sampler, batch_size)
    _, context = model.images(batch_size)
    rewards = jax.random.normal(jax.random.key(2), (batch_size,))
    drawn = model.drawn(model.params, context, jax.random.PRNGKey(3))
    batch = fine_tuning.Rewarded.of(drawn, jnp.arange(batch_size), context, rewards)
    update = jax.jit(trainer.update, donate_argnums=0)

    def step(state: TrainState, key: jax.Array) -> TrainState:
        return update(state, batch, key)[0]

    return queued(step, jax.jit(trainer.init)(model.params), fused=batch_size, calls=1)


def memory(name: str) -> float | None:
    """Of the first device, in GB: "peak_bytes_in_use" since the start, "bytes_limit"; None on a CPU, which has none."""
    found = jax.devices()[0].memory_stats() or {}
    return found[name] / 1e9 if name in found else None


def in_memory(model: Diffusion, few: int, measure: Measure) -> dict[str, float | None]:
    """What the memory of batches of `few` images, which were sampled before, and of four times as many tells."""
    many, low = 4 * few, memory("peak_bytes_in_use")
    rate = measure({"sample": sampling(model, many)})["sample"]
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
            sampling(model, most).run()
            return most
        except jax.errors.JaxRuntimeError as error:
            if "RESOURCE_EXHAUSTED" not in str(error):
                raise
            logging.info("%d images do not fit", most)
            most = most * 7 // 8
    return least
