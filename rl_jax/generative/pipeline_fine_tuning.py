"""Reinforcement learning of a pretrained text-to-image pipeline: a latent consistency model by RLCM, Stable Diffusion
by DDPO.

Low-rank adapters of the U-Net's attention train; they alone are in the train state and its checkpoints. The frozen
weights and the prompts' contexts are the program's resident, which `RESIDENT_RULES` lay on the mesh.
"""

import dataclasses
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from absl import logging
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P
from ml_collections import ConfigDict

from rl_jax.core import sweep
from rl_jax.core.config import unknown
from rl_jax.core.files import read_lines
from rl_jax.core.fused import in_mesh
from rl_jax.core.mesh import REPLICATE, Rule, make_mesh, shard_batch
from rl_jax.core.program import Evaluation, Key, Metrics, Program, PyTree, TrainState, scored
from rl_jax.generative.clip import TextEncoder
from rl_jax.generative.denoising import Network
from rl_jax.generative.diffusion import (
    TIMESTEP_SCALING,
    ddim_timesteps,
    from_noise_prediction,
    guided,
    latent_consistency,
    lcm_timesteps,
    noise_levels,
    scaled_linear_alphas,
)
from rl_jax.generative.fine_tuning import Rewarded, fine_tuning
from rl_jax.generative.policy import Sampler, Trajectory, ancestral_sampler, consistency_sampler, random_calls, sample
from rl_jax.generative.pretrained import Pipeline
from rl_jax.generative.rewards import Reward, to_bytes
from rl_jax.generative.unet import ATTENTION_KERNELS, SHARDING_RULES, UNet, UNetConfig, guidance_embedding
from rl_jax.generative.vae import AutoencoderKL, VAEConfig
from rl_jax.networks.lora import apply_lora, init_lora

DTYPES = ("float32", "bfloat16")
ENCODED = 16  # prompts that the text encoder reads at once
DECODED = 4  # latents that a device decodes at once
# Fields of a scheduler's file that the samplers here follow, with the least and the largest value.
FOLLOWED = {
    "num_train_timesteps": (1, 1_000_000), "beta_start": (1e-9, 0.999), "beta_end": (1e-9, 0.999),
    "original_inference_steps": (1, 1_000_000), "steps_offset": (0, 1_000_000),
}
# Values that they need, where the file gives them: of all others they would sample something else.
NEEDED = {
    "prediction_type": "epsilon", "beta_schedule": "scaled_linear", "trained_betas": None,
    "rescale_betas_zero_snr": False, "timestep_spacing": "leading", "timestep_scaling": TIMESTEP_SCALING,
    "thresholding": False, "clip_sample": False,
}
# Fields without effect here: of what is off above; of the last step, which here ends at the clean image; of PNDM.
WITHOUT_EFFECT = (
    "clip_sample_range", "sample_max_value", "dynamic_thresholding_ratio", "set_alpha_to_one", "skip_prk_steps",
)
# The decoder is small and sees a device's own latents; the U-Net's kernels are spread.
RESIDENT_RULES: tuple[Rule, ...] = (("^vae/", REPLICATE), *SHARDING_RULES)


def default_config() -> ConfigDict:
    """The settings of a pipeline for RLCM, without its files."""
    return ConfigDict(
        {
            "folder": "",  # of a latent consistency model or Stable Diffusion, see pretrained.load_pipeline
            "variant": "",  # of the weight files, such as "fp16" for diffusion_pytorch_model.fp16.safetensors
            "prompts": "",  # a text file with a prompt on each line
            "height": 512,
            "width": 512,
            "guidance": 8.0,  # its scale: an input of RLCM's U-Net; DDPO's U-Net computes two batches in each call
            "lora_rank": 8,  # of the adapters; the authors have rank 8 and alpha 8, or 16 and 32
            "lora_alpha": 8.0,
            # Of the U-Net's computation, or "float32". Adapters and frozen weights are float32, so that small changes
            # of the kernels are not lost.
            "dtype": "bfloat16",
        }
    )


def pipeline_resident(pipeline: Pipeline, prompts: tuple[str, ...]) -> dict[str, PyTree]:
    """Returns what never trains: "unet", the "contexts" of the prompts, and "vae", the decoder's part.

    Raises:
      ValueError: a prompt is longer than the text encoder reads.
    """
    decoder = {name: pipeline.vae.params[name] for name in ("post_quant_conv", "decoder")}
    return {"unet": pipeline.unet.params, "contexts": contexts_of(pipeline, prompts), "vae": decoder}


def pipeline_fine_tuning(
    config: ConfigDict, pipeline: Pipeline, resident: PyTree, prompts: tuple[str, ...], score: Reward
) -> Program:
    """Each step samples `config.batch_size` images of random prompts, rewards them and makes an update; one run.

    Of `config.model` the fields kind ("consistency" or "diffusion", as the pipeline is), num_calls, fewest_calls,
    last_step and reduction count. Outcome of an evaluation: reward [1, E], of `config.evaluation_images` images of the
    prompts in turn, in whole batches. The metric `eval/pixel_std`, the standard deviation of a pixel among these
    images, falls where all images become alike.

    Args:
      pipeline: only its configurations are used.
      resident: see `pipeline_resident`.
    """
    mesh, settings, unet = make_mesh(**config.mesh), config.pipeline, pipeline.unet.config
    latent_shape = latent_size(config, pipeline)
    shapes = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype), resident["unet"])
    decode = decoder(pipeline.vae.config, mesh)

    def sampler_of(frozen: PyTree | None) -> Sampler:
        return pipeline_sampler(config, unet, pipeline.scheduler, frozen)

    calls_of = random_calls(sampler_of(None), config.model.fewest_calls)
    all_calls = jnp.full(config.batch_size, len(sampler_of(None).levels))

    def init(key: Key, resident: PyTree) -> TrainState:
        del resident
        adapters = init_lora(key, shapes, settings.lora_rank, ATTENTION_KERNELS)
        return fine_tuning(config.tuning, sampler_of(None), len(prompts)).init(adapters)

    def step(state: TrainState, resident: PyTree, batch: PyTree, key: Key) -> tuple[TrainState, Metrics]:
        # Adapters of 0 are the pretrained model.
        reference = jax.tree.map(jnp.zeros_like, state.params["model"]) if config.tuning.kl_coefficient else None
        tuning = fine_tuning(config.tuning, sampler_of(resident), len(prompts))
        return tuning.update(state, Rewarded(**batch), key, reference)

    @jax.jit
    def latents_of(adapters: PyTree, resident: PyTree, rows: jax.Array, key: Key, calls: jax.Array) -> Trajectory:
        adapters = jax.tree.map(lambda x: x[0], adapters)
        return sample(sampler_of(resident), adapters, (len(rows), *latent_shape), rows, key, calls)

    def images_of(
        state: TrainState, resident: PyTree, rows: np.ndarray, key: Key, calls: jax.Array
    ) -> tuple[Trajectory, np.ndarray]:
        # The arrays lie in one place in every call, so that one compiled function serves all.
        rows, calls = jax.device_put((rows, calls), NamedSharding(mesh, P("data")))
        key = jax.device_put(key, NamedSharding(mesh, P()))
        with jax.set_mesh(mesh):
            trajectory = jax.device_get(latents_of(state.params["model"], resident, rows, key, calls))
        return trajectory, decode(resident["vae"], trajectory.final)

    def scores_of(images: np.ndarray, rows: np.ndarray) -> np.ndarray:
        return score(images, [prompts[row] for row in rows])

    def draw(
        state: TrainState, resident: PyTree, keys: Key, step: int
    ) -> tuple[Trajectory, np.ndarray, np.ndarray]:
        del step
        row_key, key = jax.random.split(keys[0])
        rows = np.asarray(jax.random.randint(row_key, (config.batch_size,), 0, len(prompts)))
        return *images_of(state, resident, rows, key, calls_of(jax.random.fold_in(row_key, 1), len(rows))), rows

    def rewarded(drawn: tuple[Trajectory, np.ndarray, np.ndarray]) -> tuple[PyTree, dict[str, float]]:
        """Returns the batch as a dictionary, which a checkpoint can hold, with the leading axis of one run."""
        trajectory, images, rows = drawn
        batch = Rewarded.of(trajectory, rows, rows, scores_of(images, rows))._asdict()
        return {name: x[None] for name, x in batch.items()}, {}

    def evaluate(state: TrainState, resident: PyTree, key: Key) -> Evaluation:
        scores, images = [], []
        for number in range(max(1, config.evaluation_images // config.batch_size)):
            rows = (number * config.batch_size + np.arange(config.batch_size)) % len(prompts)
            images.append(images_of(state, resident, rows, jax.random.fold_in(key, number), all_calls)[1])
            scores.append(scores_of(images[-1], rows))
        spread = np.concatenate(images).astype(np.float32).std(0)
        return Evaluation({"eval/pixel_std": float(spread.mean())}, {"reward": np.concatenate(scores)[None]})

    return Program(init, step, evaluate, resident, scored(draw, rewarded, config.overlap))


def read_prompts(path: Path) -> tuple[str, ...]:
    """Reads the lines of a text file that are not blank.

    Raises:
      FileNotFoundError: there is no such file.
      ValueError: there is no prompt in it, or it is no text.
    """
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such file: config.pipeline.prompts is a text file, a prompt on each line")
    lines = map(str.strip, read_lines(path))
    prompts = tuple(line for line in lines if line)
    if not prompts:
        raise ValueError(f"{path} has no prompt in it: write one on each line")
    return prompts


def contexts_of(pipeline: Pipeline, prompts: tuple[str, ...]) -> np.ndarray:
    """Encodes the prompts and, last, an empty one: float32 [len(prompts) + 1, L, D].

    Raises:
      ValueError: a prompt is longer than the encoder reads; the message has the prompt.
    """
    tokens, encoder = pipeline.tokenizer.encode([*prompts, ""]), TextEncoder(pipeline.text_encoder.config)

    @jax.jit
    def encode(params: PyTree, tokens: jax.Array) -> jax.Array:
        one = lambda row: encoder.apply({"params": params}, row[None])[0]  # noqa: E731
        return jax.lax.map(one, tokens, batch_size=ENCODED)

    return np.asarray(encode(pipeline.text_encoder.params, tokens), np.float32)


def pipeline_sampler(
    config: ConfigDict, unet: UNetConfig, scheduler: Mapping[str, Any], frozen: PyTree | None
) -> Sampler:
    """Makes RLCM's sampler or DDPO's; its parameters are adapters, its conditions indices of the prompts, int32 [B].

    Args:
      scheduler: the settings of the pipeline's file.
      frozen: see `pipeline_resident`; None where the model is not called.

    Raises:
      ValueError: see `check_scheduler`.
    """
    check_scheduler(scheduler, config.pipeline.folder)
    model = config.model
    alphas = scaled_linear_alphas(
        scheduler.get("num_train_timesteps", 1000), scheduler.get("beta_start", 0.00085),
        scheduler.get("beta_end", 0.012),
    )
    levels, network = noise_levels(alphas), _network(config, unet, frozen)
    if model.kind == "consistency":
        timesteps = lcm_timesteps(model.num_calls, len(alphas), scheduler.get("original_inference_steps", 50))
        return consistency_sampler(
            latent_consistency(network, alphas), levels[timesteps], 0.0,
            last_step=model.last_step, reduction=model.reduction,
        )
    timesteps = ddim_timesteps(model.num_calls, len(alphas), scheduler.get("steps_offset", 1))
    if frozen is not None:
        empty = jnp.array([len(frozen["contexts"]) - 1])
        network = guided(network, empty, config.pipeline.guidance)
    return ancestral_sampler(from_noise_prediction(network, alphas), levels[timesteps], reduction=model.reduction)


def check_scheduler(scheduler: Mapping[str, Any], folder: str) -> None:
    """Raises ValueError where a scheduler's file says what the samplers here do not do; file and field are named."""
    where = f"{folder}/scheduler/scheduler_config.json"
    for name, needed in NEEDED.items():
        found = scheduler.get(name, needed)
        if found != needed:
            found = f"a list of {len(found)}" if isinstance(found, list) else repr(found)
            raise ValueError(
                f"{where}: {name} is {found}, and the samplers here need {needed!r}: give a model made for it"
            )
    for name, (low, high) in FOLLOWED.items():
        found = scheduler.get(name, low)
        if type(found) not in (int, type(low)) or not low <= found <= high:
            kind = "a whole number" if type(low) is int else "a number"
            raise ValueError(f"{where}: {name} is {found!r}: it is {kind} from {low} to {high}")


def _network(config: ConfigDict, unet: UNetConfig, frozen: PyTree | None) -> Network:
    """The U-Net with adapters; the backward pass computes its blocks again rather than keeping them."""
    settings, guidance_size = config.pipeline, unet.time_cond_proj_dim
    module = UNet(dataclasses.replace(unet, dtype=jnp.dtype(settings.dtype), remat=True))

    def network(adapters: PyTree, x: jax.Array, timesteps: jax.Array, rows: jax.Array) -> jax.Array:
        x, timesteps, rows = shard_batch((x, timesteps, rows))
        params = apply_lora(frozen["unet"], adapters, settings.lora_alpha)
        if in_mesh():
            # Kernels are gathered for the call, and each device computes its share of the rows. Without this the
            # compiler splits channels in the backward pass and moves all rows between devices.
            params = jax.lax.with_sharding_constraint(params, P())
        guidance = None
        if guidance_size is not None:
            guidance = guidance_embedding(jnp.full(len(x), settings.guidance - 1.0), guidance_size)
        return module.apply({"params": params}, x, timesteps, frozen["contexts"][rows], guidance).astype(jnp.float32)

    return network


def decoder(config: VAEConfig, mesh: Mesh) -> Callable[[PyTree, np.ndarray], np.ndarray]:
    """Returns the function (decoder's parameters, latents [B, h, w, C]) -> uint8 images [B, H, W, 3].

    It decodes DECODED latents on each device of `data` at a time, and raises ValueError where an image is not finite.
    """
    module, along_data = AutoencoderKL(config), NamedSharding(mesh, P("data"))
    chunk = DECODED * mesh.shape["data"]
    decode = jax.jit(lambda params, latents: module.apply({"params": params}, latents, method="decode"))

    def images_of(params: PyTree, latents: np.ndarray) -> np.ndarray:
        parts = [jax.device_put(latents[at : at + chunk], along_data) for at in range(0, len(latents), chunk)]
        return np.concatenate([to_bytes(np.asarray(decode(params, part)), 0.5, 0.5) for part in parts])

    return images_of


def latent_size(config: ConfigDict, pipeline: Pipeline) -> tuple[int, int, int]:
    """Returns the shape of a latent (h, w, C).

    Raises:
      ValueError: the configuration does not fit the pipeline or the devices.
    """
    settings, unet, vae = config.pipeline, pipeline.unet.config, pipeline.vae.config
    if settings.dtype not in DTYPES:
        raise ValueError(unknown("config.pipeline.dtype", settings.dtype, DTYPES))
    if jax.process_count() > 1:
        raise ValueError(f"{jax.process_count()} processes: a pipeline is fine-tuned by one, on all of its devices")
    if config.num_seeds != 1 or config.sweep and len(sweep.side_by_side(config)) > 1:
        raise ValueError("several runs of a pipeline in one program: set --config.num_seeds=1, start them one by one")
    kind = "diffusion" if unet.time_cond_proj_dim is None else "consistency"
    if config.model.kind != kind:
        raise ValueError(
            f"{settings.folder} holds a {kind} model (its U-Net has {'no' if kind == 'diffusion' else 'an'} input for "
            f"the guidance) and config.model.kind is {config.model.kind!r}: give the other folder or the other preset"
        )
    check_scheduler(pipeline.scheduler, settings.folder)
    unknown_fields = pipeline.scheduler.keys() - FOLLOWED.keys() - NEEDED.keys() - set(WITHOUT_EFFECT)
    if strange := sorted(name for name in unknown_fields if not name.startswith("_")):
        logging.warning("%s/scheduler: the samplers here do not follow %s", settings.folder, ", ".join(strange))
    shrink = 2 ** (len(vae.block_out_channels) - 1)
    multiple = shrink * 2 ** (len(unet.block_out_channels) - 1)
    for name in ("height", "width"):
        if settings[name] < multiple or settings[name] % multiple:
            raise ValueError(f"config.pipeline.{name}={settings[name]}: this pipeline takes multiples of {multiple}")
    devices = make_mesh(**config.mesh).shape["data"]
    for name, size in (("batch_size", config.batch_size), ("tuning.chunk_size", config.tuning.chunk_size)):
        if size < 1 or size % devices:
            raise ValueError(f"config.{name}={size} does not divide over the {devices} devices of config.mesh.data")
    return settings.height // shrink, settings.width // shrink, vae.latent_channels
