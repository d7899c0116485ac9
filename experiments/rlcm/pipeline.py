"""Fine-tuning of a pretrained text-to-image pipeline: a latent consistency model by RLCM, Stable Diffusion by DDPO.

What trains are low-rank adapters of the U-Net's attention; they alone are in the train state and its checkpoints. The
U-Net's own weights and the prompts' contexts lie on the devices from the start, kernels along `data`, and every batch
of the Feed brings these same arrays, so that the compiled step gets them as arguments. They are not the source's data:
a `Resident` has no host between two steps. Nor are they in the state, which is copied, donated and saved.
"""

import dataclasses
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P
from ml_collections import ConfigDict

from rl_jax.core import sweep
from rl_jax.core.config import unknown
from rl_jax.core.fused import in_mesh
from rl_jax.core.mesh import make_mesh, replicate, shard_batch, state_shardings
from rl_jax.core.program import Key, Metrics, Program, PyTree, TrainState, in_turn, overlapped
from rl_jax.data.cache import files_checksum
from rl_jax.generative.clip import TextEncoder
from rl_jax.generative.denoising import Network
from rl_jax.generative.diffusion import (
    ddim_timesteps,
    from_noise_prediction,
    guided,
    latent_consistency,
    lcm_timesteps,
    noise_levels,
    scaled_linear_alphas,
)
from rl_jax.generative.fine_tuning import FineTuning, Rewarded, fine_tuning
from rl_jax.generative.lora import apply_lora, init_lora
from rl_jax.generative.policy import Sampler, Trajectory, ancestral_sampler, consistency_sampler, sample
from rl_jax.generative.pretrained import Part, Pipeline, load_pipeline
from rl_jax.generative.rewards import Reward, reward, to_bytes
from rl_jax.generative.unet import SHARDING_RULES, UNet, UNetConfig, guidance_embedding
from rl_jax.generative.vae import AutoencoderKL

DTYPES = ("float32", "bfloat16")
ENCODED = 16  # prompts that the text encoder reads at once
DECODED = 4  # latents of a device that are decoded at once
# What a scheduler's file must say where it says anything: the samplers here know no other.
SCHEDULE = {"prediction_type": "epsilon", "beta_schedule": "scaled_linear", "rescale_betas_zero_snr": False}


def pipeline_program(config: ConfigDict, workdir: Path) -> tuple[Program, dict[str, Any]]:
    """(Program, inputs for the provenance) of a configuration; one run, on the mesh of `config.mesh`.

    Each step samples `config.batch_size` images of prompts drawn at random, rewards them by `config.reward` with what
    `config.reward_options` give it, and makes an update. Of `config.model` the fields kind ("consistency" or
    "diffusion", which the folder has to be), num_calls, last_step and reduction count. `config.pipeline`:
      folder: of a latent consistency model or of Stable Diffusion, see `pretrained.load_pipeline`.
      prompts: a text file with a prompt on each line.
      height, width: of the images.
      guidance: its scale: 8 for RLCM, whose U-Net is told it; 5 for DDPO, each call of which computes two batches.
      lora_rank, lora_alpha: of the adapters; the paper has 8 and 8, or 16 and 32.
      dtype: of the U-Net's computation, "float32" or "bfloat16"; adapters and frozen weights are float32, so that small
        changes of the kernels are not lost.

    An evaluation's `eval/reward` is the mean over `config.evaluation_images` images of the prompts in turn, in whole
    batches; `eval/pixel_std` is how much a pixel differs between them, which says whether they all became alike.

    Raises:
      FileNotFoundError: the folder, one of its parts or the file of prompts is missing.
      ValueError: a part does not fit the configuration or the others; a prompt is too long; sizes do not divide.
    """
    del workdir
    settings, mesh = config.pipeline, make_mesh(**config.mesh)
    prompts = read_prompts(Path(settings.prompts).expanduser())
    folder = Path(settings.folder).expanduser()
    pipeline = load_pipeline(folder)
    latent_shape = _checked(config, pipeline, mesh)
    frozen = _laid({"unet": pipeline.unet.params, "contexts": contexts_of(pipeline, prompts)}, mesh)
    decode = decoder(pipeline.vae, mesh)
    score = reward_of(config)
    # Nothing below holds on to the host's copies of the weights.
    unet, scheduler = pipeline.unet.config, pipeline.scheduler
    shapes = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype), pipeline.unet.params)

    def tuning(frozen: PyTree | None) -> FineTuning:
        return fine_tuning(config.tuning, pipeline_sampler(config, unet, scheduler, frozen), len(prompts))

    def init(key: Key) -> TrainState:
        return tuning(None).init(init_lora(key, shapes, settings.lora_rank))

    def step(state: TrainState, data: PyTree, key: Key) -> tuple[TrainState, Metrics]:
        return tuning(data["frozen"]).update(state, Rewarded(**data["batch"]), key)

    @jax.jit
    def latents_of(adapters: PyTree, frozen: PyTree, rows: jax.Array, key: Key) -> Trajectory:
        adapters, frozen = jax.tree.map(lambda x: x[0], (adapters, frozen))
        sampler = pipeline_sampler(config, unet, scheduler, frozen)
        return sample(sampler, adapters, (len(rows), *latent_shape), rows, key)

    def images_of(state: TrainState, rows: np.ndarray, key: Key) -> tuple[Trajectory, np.ndarray]:
        # Both where every call has them, so that one program serves all.
        rows = jax.device_put(rows, NamedSharding(mesh, P("data")))
        key = jax.device_put(key, NamedSharding(mesh, P()))
        with jax.set_mesh(mesh):
            drawn = jax.device_get(latents_of(state.params["model"], frozen, rows, key))
        return drawn, decode(drawn.final)

    def scores_of(images: np.ndarray, rows: np.ndarray) -> np.ndarray:
        return score(images, [prompts[row] for row in rows])

    def draw(state: TrainState, keys: Key, step: int) -> tuple[Trajectory, np.ndarray, np.ndarray]:
        del step
        row_key, key = jax.random.split(keys[0])
        rows = np.asarray(jax.random.randint(row_key, (config.batch_size,), 0, len(prompts)))
        return *images_of(state, rows, key), rows

    def rewarded(drawn: tuple[Trajectory, np.ndarray, np.ndarray]) -> tuple[PyTree, dict[str, float]]:
        """The batch as a dictionary, which a checkpoint can hold, with the leading axis of one run."""
        trajectory, images, rows = drawn
        batch = Rewarded.of(trajectory, rows, rows, scores_of(images, rows))._asdict()
        return {name: x[None] for name, x in batch.items()}, {}

    feed = (overlapped if config.overlap else in_turn)(draw, rewarded)

    def with_frozen(state: TrainState, keys: Key, step: int) -> tuple[PyTree, dict[str, float]]:
        batch, metrics = feed.collect(state, keys, step)
        return {"batch": batch, "frozen": frozen}, metrics

    def evaluate(state: TrainState, key: Key) -> dict[str, Any]:
        scores, images = [], []
        for number in range(max(1, config.evaluation_images // config.batch_size)):
            rows = (number * config.batch_size + np.arange(config.batch_size)) % len(prompts)
            images.append(images_of(state, rows, jax.random.fold_in(key, number))[1])
            scores.append(scores_of(images[-1], rows))
        spread = np.concatenate(images).astype(np.float32).std(0)
        return {"eval/reward": float(np.mean(scores)), "eval/pixel_std": float(spread.mean())}

    inputs = {
        "pipeline": folder.name, "unet_checksum": files_checksum(folder / "unet"),
        "prompts_checksum": files_checksum(Path(settings.prompts).expanduser()),
    }
    return Program(init, step, feed._replace(collect=with_frozen), evaluate), inputs


def reward_of(config: ConfigDict) -> Reward:
    """`config.reward`, with what `config.reward_options` give it."""
    return reward(config.reward, **{name: x for name, x in config.reward_options.items() if x})


def read_prompts(path: Path) -> tuple[str, ...]:
    """The lines of a text file that are not blank.

    Raises:
      FileNotFoundError: there is no such file.
      ValueError: there is no prompt in it.
    """
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such file: config.pipeline.prompts is a text file, a prompt on each line")
    lines = (line.strip() for line in path.read_text(encoding="utf-8").splitlines())
    prompts = tuple(line for line in lines if line)
    if not prompts:
        raise ValueError(f"{path} has no prompt in it: write one on each line")
    return prompts


def contexts_of(pipeline: Pipeline, prompts: tuple[str, ...]) -> np.ndarray:
    """What the text encoder makes of the prompts and, last, of an empty one: float32 [len(prompts) + 1, L, D].

    Raises:
      ValueError: a prompt is longer than what the encoder reads; the message has the prompt.
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
    """RLCM's sampler or DDPO's; its parameters are adapters, its conditions the prompts' numbers, int32 [B].

    Args:
      scheduler: the numbers of the pipeline's file.
      frozen: "unet", the U-Net's parameters, and "contexts", as `contexts_of`; None where no call is made.
    """
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


def _network(config: ConfigDict, unet: UNetConfig, frozen: PyTree | None) -> Network:
    """The U-Net with adapters; computed again in the backward pass rather than kept."""
    settings, told = config.pipeline, unet.time_cond_proj_dim
    module = UNet(dataclasses.replace(unet, dtype=jnp.dtype(settings.dtype), remat=True))

    def network(adapters: PyTree, x: jax.Array, timesteps: jax.Array, rows: jax.Array) -> jax.Array:
        x, timesteps, rows = shard_batch((x, timesteps, rows))
        params = apply_lora(frozen["unet"], adapters, settings.lora_alpha)
        if in_mesh():
            # Whole kernels, gathered for the call, and a share of the rows on each device: left to itself the compiler
            # shares out channels in the backward pass and moves all rows about.
            params = jax.lax.with_sharding_constraint(params, P())
        guidance = None if told is None else guidance_embedding(jnp.full(len(x), settings.guidance - 1.0), told)
        return module.apply({"params": params}, x, timesteps, frozen["contexts"][rows], guidance).astype(jnp.float32)

    return network


def decoder(vae: Part, mesh: Mesh) -> Callable[[np.ndarray], np.ndarray]:
    """The function latents [B, h, w, C] -> uint8 images [B, H, W, 3]; it decodes some of the latents at a time.

    Its latents divide over the devices of `data`. ValueError where an image is not finite.
    """
    params = replicate({name: vae.params[name] for name in ("post_quant_conv", "decoder")}, mesh)
    module, along_data = AutoencoderKL(vae.config), NamedSharding(mesh, P("data"))
    chunk = DECODED * mesh.shape["data"]
    decode = jax.jit(lambda params, latents: module.apply({"params": params}, latents, method="decode"))

    def images_of(latents: np.ndarray) -> np.ndarray:
        parts = [jax.device_put(latents[at : at + chunk], along_data) for at in range(0, len(latents), chunk)]
        return np.concatenate([to_bytes(np.asarray(decode(params, part)), 0.5, 0.5) for part in parts])

    return images_of


def _laid(tree: PyTree, mesh: Mesh) -> PyTree:
    """Arrays on the devices, kernels along `data`, with the leading axis of one run that a Feed's batch has."""
    stacked = jax.tree.map(lambda x: x[None], tree)
    return jax.device_put(stacked, state_shardings(stacked, SHARDING_RULES, mesh))


def _checked(config: ConfigDict, pipeline: Pipeline, mesh: Mesh) -> tuple[int, int, int]:
    """The shape of a latent, or ValueError for what cannot work."""
    settings, unet, vae = config.pipeline, pipeline.unet.config, pipeline.vae.config
    if settings.dtype not in DTYPES:
        raise ValueError(unknown("config.pipeline.dtype", settings.dtype, DTYPES))
    if jax.process_count() > 1:
        raise ValueError(f"{jax.process_count()} processes: a pipeline is fine-tuned by one, on all of its devices")
    runs = sweep.num_runs(config)
    if runs != 1:
        raise ValueError(f"{runs} runs of a pipeline in one program: set --config.num_seeds=1, start one after another")
    kind = "diffusion" if unet.time_cond_proj_dim is None else "consistency"
    if config.model.kind != kind:
        raise ValueError(
            f"{settings.folder} holds a {kind} model (its U-Net is {'not ' if kind == 'diffusion' else ''}told the "
            f"guidance) and config.model.kind is {config.model.kind!r}: give the other folder or the other preset"
        )
    for name, wanted in SCHEDULE.items():
        found = pipeline.scheduler.get(name, wanted)
        if found != wanted:
            raise ValueError(f"{settings.folder}/scheduler: {name} is {found!r}, and the samplers here need {wanted!r}")
    shrink = 2 ** (len(vae.block_out_channels) - 1)
    multiple = shrink * 2 ** (len(unet.block_out_channels) - 1)
    for name in ("height", "width"):
        if settings[name] < multiple or settings[name] % multiple:
            raise ValueError(f"config.pipeline.{name}={settings[name]}: this pipeline takes multiples of {multiple}")
    devices = mesh.shape["data"]
    for name, size in (("batch_size", config.batch_size), ("tuning.chunk_size", config.tuning.chunk_size)):
        if size < 1 or size % devices:
            raise ValueError(f"config.{name}={size} does not divide over the {devices} devices of config.mesh.data")
    return settings.height // shrink, settings.width // shrink, vae.latent_channels
