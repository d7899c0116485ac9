"""Fine-tuning of a tiny random pipeline: adapters alone train, a stopped run goes on, bad input is named."""

import functools
import json
import re
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax.traverse_util import flatten_dict

from configs.rlcm import get_config
from experiments.rlcm.experiment import experiment
from rl_jax.core import loop
from rl_jax.core.fused import run_keys
from rl_jax.core.mesh import make_mesh, path_name, resident_shardings, upload
from rl_jax.core.outcomes import read_outcomes
from rl_jax.generative import pretrained
from rl_jax.generative.clip import TextConfig
from rl_jax.generative.fine_tuning import Rewarded
from rl_jax.generative.pipeline_fine_tuning import (
    RESIDENT_RULES,
    contexts_of,
    decoder,
    latent_size,
    pipeline_fine_tuning,
    pipeline_resident,
    pipeline_sampler,
    read_prompts,
)
from rl_jax.generative.pretrained import Part, Pipeline
from rl_jax.generative.tokenizer import BYTE_LETTERS, END, START, Tokenizer
from rl_jax.generative.unet import ATTENTION_KERNELS, UNet, UNetConfig, guidance_embedding
from rl_jax.generative.vae import AutoencoderKL, VAEConfig
from rl_jax.networks.lora import init_lora
from tests.golden.weights import weight

pytest.importorskip("PIL.Image")
PROMPTS = ("a cat", "a dog", "an ox")
KINDS = {"lcm": "consistency", "sd": "diffusion"}


def part(network, config):
    shapes = pretrained.parameter_shapes(network, config)
    return Part(config, jax.tree_util.tree_map_with_path(lambda path, x: weight(path_name(path), x.shape), shapes))


@functools.cache
def pipeline(name):
    unet = UNetConfig(
        sample_size=4, block_out_channels=(8,), down_block_types=("DownBlock2D",), up_block_types=("UpBlock2D",),
        cross_attention_dim=4, layers_per_block=1, attention_head_dim=2, norm_num_groups=2,
        time_cond_proj_dim=6 if name == "lcm" else None,
    )
    vae = VAEConfig(sample_size=8, block_out_channels=(4, 4), layers_per_block=1, norm_num_groups=2)
    text = TextConfig(
        hidden_size=4, intermediate_size=6, num_hidden_layers=1, num_attention_heads=2, vocab_size=514,
        max_position_embeddings=10,
    )
    letters = [*BYTE_LETTERS, *(letter + "</w>" for letter in BYTE_LETTERS), START, END]
    return Pipeline(
        unet=part(pretrained.UNET, unet),
        vae=part(pretrained.VAE, vae),
        text_encoder=part(pretrained.TEXT, text),
        tokenizer=Tokenizer({token: i for i, token in enumerate(letters)}, (), END, 10),
        scheduler={"beta_start": 0.00085, "prediction_type": "epsilon"},
    )


@pytest.fixture(scope="module", autouse=True)
def quick():
    """Compiling is most of the time here."""
    jax.config.update("jax_disable_most_optimizations", True)
    yield
    jax.config.update("jax_disable_most_optimizations", False)


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """The folders of both models, and a file of prompts."""
    path = tmp_path_factory.mktemp("pipelines")
    for name in KINDS:
        pretrained.save_pipeline(pipeline(name), path / name)
    (path / "prompts.txt").write_text("\n".join([*PROMPTS, "", ""]))
    return path


@pytest.fixture
def one_device(monkeypatch):
    devices = jax.devices()[:1]
    monkeypatch.setattr(jax, "devices", lambda: devices)


def config_of(folders, name, **fields):
    config = get_config("pipeline-compress" if name == "lcm" else "pipeline-ddpo-compress")
    config.pipeline.update({"folder": str(folders / name), "prompts": str(folders / "prompts.txt")})
    config.pipeline.update({"height": 8, "width": 16, "lora_rank": 2, "lora_alpha": 4.0, "dtype": "float32"})
    config.update_from_flattened_dict(
        {
            "num_steps": 2, "batch_size": 8, "evaluation_images": 8, "checkpoint.every": 1, "overlap": 0,
            "tuning.chunk_size": 8, "tuning.learning_rate": 0.01, "tuning.tracker_min_count": 4, "tuning.clip": 1e-6,
            "model.num_calls": 3, "loop.log_every": 1, "loop.eval_at_start": False,
        } | fields
    )
    return config


def program_of(config, name="lcm"):
    """The program of a random pipeline; the reward is the mean of the pixels."""
    own = pipeline(name)
    resident = pipeline_resident(own, PROMPTS)
    return pipeline_fine_tuning(config, own, resident, PROMPTS, lambda images, prompts: images.mean((1, 2, 3)))


def one_run(tree):
    return jax.tree.map(lambda x: x[0], tree)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["lcm", "sd"])
def test_two_updates_train_adapters_and_nothing_else_and_go_on_after_a_stop(name, folders, tmp_path, one_device):
    config = config_of(folders, name, overlap=int(name == "sd"))
    made = experiment(config)
    assert made.inputs["pipeline"] == name and len(made.inputs["unet"]) == 64
    result = loop.run(made, config, tmp_path)
    assert result.step == 2 and (read_outcomes(tmp_path / "outcomes.npz").values["reward"] < 0.0).all()
    lines = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    # What the first update trains on was just sampled: no ratio is outside of 1 +- 1e-6.
    clipped = [line["actor/clip_fraction"] for line in lines if "actor/clip_fraction" in line]
    assert clipped[0] == 0.0 and (clipped[1] > 0.0) == bool(config.overlap)

    adapters = flatten_dict(one_run(result.state.params["model"]))
    assert len(adapters) == 2 * 4 * 2 and {path[-1] for path in adapters} == {"a", "b"}
    sizes = [len(jax.tree.leaves(tree)) for tree in (result.state.params, result.state.opt_state)]
    assert sizes[1] <= 2 * sizes[0] + 2  # Adam's two moments
    jax.tree.map(np.testing.assert_array_equal, result.resident["unet"], pipeline(name).unet.params)

    if name == "sd":
        shutil.rmtree(tmp_path / "checkpoints" / "2")
        again = loop.run(made, config, tmp_path)
        assert again.trained_steps == 1
        jax.tree.map(np.testing.assert_array_equal, *map(jax.device_get, (again.state, result.state)))


@pytest.mark.slow
def test_eight_devices_compute_what_one_does(folders, monkeypatch):
    config, ends, devices = config_of(folders, "lcm"), [], jax.devices()
    for number in (8, 1):
        monkeypatch.setattr(jax, "devices", lambda number=number: devices[:number])
        program, mesh = program_of(config), make_mesh()
        resident = upload(program.resident, resident_shardings(program.resident, RESIDENT_RULES, mesh))
        kernel = resident["unet"]["mid_block"]["resnets_0"]["conv1"]["kernel"]
        assert {shard.data.size for shard in kernel.addressable_shards} == {kernel.size // number}
        decoder_kernel = resident["vae"]["post_quant_conv"]["kernel"]
        assert {shard.data.size for shard in decoder_kernel.addressable_shards} == {decoder_kernel.size}
        state = jax.tree.map(lambda x: x[None], program.init(jax.random.key(0), resident))
        batch, _ = program.feed.collect(state, resident, run_keys("collect", 0, 1), 0)
        arguments = one_run(state), resident, one_run(batch), jax.random.key(0)
        with jax.set_mesh(mesh):
            step = jax.jit(program.step).lower(*arguments).compile()
            new, metrics = step(*arguments)
        # Forward and backward, a device has its share of a chunk's rows and no part of another's.
        rows = re.findall(r"= f32\[(\d+),[\d,]+\]\S* convolution\(", step.as_text())
        assert len(rows) > 20 and set(rows) == {str(8 // number)}
        ends.append(jax.device_get((one_run(batch), new.params, metrics)))
    jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, rtol=1e-3, atol=2e-4), *ends)


@pytest.mark.parametrize("kl_coefficient", [0.0, 0.1])
def test_frozen_weights_are_arguments_of_the_step(folders, one_device, kl_coefficient):
    """What the step holds for itself are the tables of noise levels and not an array of the U-Net's shapes."""
    config = config_of(folders, "lcm", **{"tuning.kl_coefficient": kl_coefficient})
    program = program_of(config)
    state = jax.eval_shape(program.init, jax.random.key(0), program.resident)
    resident = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype), program.resident)
    arguments = state, resident, batch_shapes(config), jax.random.key(0)
    jaxpr, (after, metrics) = jax.make_jaxpr(program.step, return_shape=True)(*arguments)
    held = {np.shape(x) for x in jaxpr.consts if np.size(x) > 8}
    assert held and not held & {x.shape for x in jax.tree.leaves(resident)}
    assert not after.target_params and ("actor/kl" in metrics) == (kl_coefficient > 0.0)


def batch_shapes(config):
    """The batch of one run, as shapes."""
    size, calls = config.batch_size, config.model.num_calls
    images, numbers = (jax.ShapeDtypeStruct((size, calls, *shape), np.float32) for shape in ((4, 8, 4), ()))
    rows, rewards = (jax.ShapeDtypeStruct((size,), dtype) for dtype in (np.int32, np.float32))
    return Rewarded(images, images, numbers, rows, rows, rows, rewards)._asdict()


def test_contexts_are_the_text_encoders():
    lcm = pipeline("lcm")
    found = contexts_of(lcm, PROMPTS)
    assert found.shape == (4, 10, 4) and found.dtype == np.float32
    encode = jax.jit(pretrained.TEXT.module(lcm.text_encoder.config).apply)
    for prompt, context in zip([*PROMPTS, ""], found, strict=True):
        wanted = encode({"params": lcm.text_encoder.params}, lcm.tokenizer.encode([prompt]))[0]
        np.testing.assert_allclose(context, wanted, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("name", KINDS)
def test_a_fresh_sampler_calls_the_networks_as_their_makers_do(name, folders):
    """RLCM: one call, told guidance - 1; DDPO: a call of the prompt and one of nothing, at guidance 5."""
    config, own = config_of(folders, name), pipeline(name)
    frozen = {"unet": own.unet.params, "contexts": jnp.asarray(contexts_of(own, PROMPTS))}
    sampler = pipeline_sampler(config, own.unet.config, own.scheduler, frozen)
    adapters, rows = init_lora(jax.random.key(0), own.unet.params, 2, ATTENTION_KERNELS), jnp.array([1, 2])
    x, level = jnp.asarray(np.random.default_rng(0).normal(size=(2, 4, 4, 4)), jnp.float32), sampler.levels[1]
    found = jax.jit(sampler.denoise)(adapters, x, jnp.full(2, level), rows)

    timestep = {"lcm": 679, "sd": 334}[name]  # the second of three: 999, 679, 359 and 667, 334, 1
    noisy = x / np.sqrt(1 + level**2)

    @jax.jit
    def noise_of(rows, guidance):
        unet = UNet(own.unet.config)
        return unet.apply({"params": own.unet.params}, noisy, jnp.full(2, timestep), frozen["contexts"][rows], guidance)

    if name == "lcm":
        noise = noise_of(rows, guidance_embedding(jnp.full(2, 7.0), 6))
    else:
        nothing = noise_of(jnp.array([3, 3]), None)
        noise = nothing + 5.0 * (noise_of(rows, None) - nothing)
    np.testing.assert_allclose(found, x - level * noise, rtol=1e-3, atol=1e-3)


@pytest.mark.slow
def test_a_unet_in_bfloat16_says_nearly_the_same(folders):
    own, found = pipeline("lcm"), {}
    frozen = {"unet": own.unet.params, "contexts": jnp.asarray(contexts_of(own, PROMPTS))}
    adapters, rows = init_lora(jax.random.key(0), own.unet.params, 2, ATTENTION_KERNELS), jnp.array([1, 2])
    x = jnp.asarray(np.random.default_rng(0).normal(size=(2, 4, 4, 4)), jnp.float32)
    for dtype in ("float32", "bfloat16"):
        config = config_of(folders, "lcm", **{"pipeline.dtype": dtype})
        sampler = pipeline_sampler(config, own.unet.config, own.scheduler, frozen)
        found[dtype] = jax.jit(sampler.denoise)(adapters, x, jnp.full(2, sampler.levels[1]), rows)
    whole, half = found.values()
    assert half.dtype == whole.dtype and 0.0 < np.abs(half - whole).max() < 0.1 * np.abs(whole).max()


def test_latents_become_bytes_as_the_pipeline_does_it():
    vae, latents = pipeline("sd").vae, np.random.default_rng(0).normal(size=(64, 2, 2, 4)).astype(np.float32)
    decode_all = decoder(vae.config, make_mesh())
    images = decode_all(vae.params, latents)
    assert images.shape == (64, 4, 4, 3) and images.dtype == np.uint8
    decode = jax.jit(functools.partial(AutoencoderKL(vae.config).apply, method="decode"))
    wanted = np.clip(np.asarray(decode({"params": vae.params}, latents)) / 2 + 0.5, 0.0, 1.0) * 255
    assert np.abs(images - wanted).max() < 0.51 and images.std() > 0
    with pytest.raises(ValueError, match="the model has diverged"):
        decode_all(vae.params, latents * np.nan)


def test_prompts_that_cannot_be_read_are_named(folders, tmp_path):
    assert read_prompts(folders / "prompts.txt") == PROMPTS
    for content, error, message in (
        (None, FileNotFoundError, "prompts.txt: no such file: config.pipeline.prompts is a text file"),
        ("\n \n", ValueError, "prompts.txt has no prompt in it"),
        ("a cat\na cat washing the dishes", ValueError, "The prompt: 'a cat washing the dishes'"),
    ):
        if content is not None:
            (tmp_path / "prompts.txt").write_text(content)
        config = config_of(folders, "lcm", **{"pipeline.prompts": str(tmp_path / "prompts.txt")})
        with pytest.raises(error, match=message):
            experiment(config)


@pytest.mark.parametrize(
    "fields, message",
    [
        ({"pipeline.height": 12, "pipeline.width": 9}, "config.pipeline.width=9: this pipeline takes multiples of 2"),
        ({"pipeline.dtype": "float16"}, "unknown config.pipeline.dtype 'float16'"),
        ({"model.kind": "diffusion"}, "lcm holds a consistency model .* config.model.kind is 'diffusion'"),
        ({"batch_size": 12}, "config.batch_size=12 does not divide over the 8 devices"),
        ({"tuning.chunk_size": 4}, "config.tuning.chunk_size=4 does not divide over the 8 devices"),
        ({"num_seeds": 2}, "several runs of a pipeline in one program: set --config.num_seeds=1"),
        ({"reward": "compress"}, "unknown reward 'compress'"),
        ({"reward": "alignment"}, "config.reward='alignment'"),
    ],
)
def test_settings_that_cannot_work_are_named(folders, fields, message):
    config = config_of(folders, "lcm", **fields)
    with pytest.raises(ValueError, match=message):
        experiment(config).program(config)


# As folders of Stable Diffusion 1.5 and of latent consistency models have them.
PUBLISHED = {
    "sd": {
        "_class_name": "PNDMScheduler", "_diffusers_version": "0.6.0", "beta_end": 0.012, "beta_start": 0.00085,
        "beta_schedule": "scaled_linear", "num_train_timesteps": 1000, "set_alpha_to_one": False, "steps_offset": 1,
        "skip_prk_steps": True, "trained_betas": None, "clip_sample": False,
    },
    "lcm": {
        "_class_name": "LCMScheduler", "beta_end": 0.012, "beta_start": 0.00085, "beta_schedule": "scaled_linear",
        "clip_sample": False, "clip_sample_range": 1.0, "dynamic_thresholding_ratio": 0.995, "sample_max_value": 1.0,
        "num_train_timesteps": 1000, "original_inference_steps": 50, "prediction_type": "epsilon",
        "rescale_betas_zero_snr": False, "set_alpha_to_one": True, "steps_offset": 1, "thresholding": False,
        "timestep_spacing": "leading", "timestep_scaling": 10.0, "trained_betas": None,
    },
}


@pytest.mark.parametrize("name", KINDS)
def test_published_schedulers_are_followed_and_strange_fields_warned_of(folders, name, caplog):
    own, config = pipeline(name), config_of(folders, name)
    assert latent_size(config, own._replace(scheduler=PUBLISHED[name])) == (4, 8, 4) and not caplog.records
    latent_size(config, own._replace(scheduler=PUBLISHED[name] | {"use_karras_sigmas": True}))
    assert "do not follow use_karras_sigmas" in caplog.text
    short = pipeline_sampler(config, own.unet.config, PUBLISHED[name] | {"num_train_timesteps": 500}, None)
    assert short.levels[0] < pipeline_sampler(config, own.unet.config, PUBLISHED[name], None).levels[0]


@pytest.mark.parametrize("name", KINDS)
@pytest.mark.parametrize(
    "field, value, message",
    [
        ("trained_betas", [0.5] * 1000, "a list of 1000, and the samplers here need None"),
        ("timestep_spacing", "trailing", "'trailing', and the samplers here need 'leading'"),
        ("timestep_scaling", 5.0, "5.0, and the samplers here need 10.0"),
        ("thresholding", True, "True, and the samplers here need False"),
        ("clip_sample", True, "True, and the samplers here need False"),
        ("beta_schedule", "linear", "'linear', and the samplers here need 'scaled_linear'"),
        ("rescale_betas_zero_snr", True, "True, and the samplers here need False"),
        ("num_train_timesteps", 0, "0: it is a whole number from 1"),
        ("num_train_timesteps", "1000", "'1000': it is a whole number"),
        ("beta_start", -1.0, "-1.0: it is a number from"),
        ("beta_end", None, "None: it is a number from"),
        ("steps_offset", True, "True: it is a whole number"),
    ],
)
def test_what_a_scheduler_says_and_is_not_followed_is_named(folders, name, field, value, message):
    own, config = pipeline(name), config_of(folders, name)
    with pytest.raises(ValueError, match=f"{name}/scheduler/scheduler_config.json: {field} is {message}"):
        pipeline_sampler(config, own.unet.config, PUBLISHED[name] | {field: value}, None)


def test_a_folder_of_a_variant_alone_is_read_as_its_error_says(folders, tmp_path):
    folder = shutil.copytree(folders / "lcm", tmp_path / "lcm")
    for file in list(folder.rglob("*.safetensors")):
        file.rename(file.with_suffix(".fp16.safetensors"))
    fields = {"pipeline.prompts": str(folders / "prompts.txt")}
    with pytest.raises(FileNotFoundError, match="--config.pipeline.variant=fp16"):
        experiment(config_of(tmp_path, "lcm", **fields))
    experiment(config_of(tmp_path, "lcm", **fields, **{"pipeline.variant": "fp16"}))


def test_a_prompt_ends_at_a_line_feed_and_has_no_byte_order_mark(tmp_path):
    (tmp_path / "prompts.txt").write_text("\ufeffa cat\r\na\u2028dog\n", encoding="utf-8")
    assert read_prompts(tmp_path / "prompts.txt") == ("a cat", "a\u2028dog")
    (tmp_path / "prompts.txt").write_bytes(b"caf\xe9\n")
    with pytest.raises(ValueError, match="prompts.txt is not text in UTF-8"):
        read_prompts(tmp_path / "prompts.txt")


def test_a_folder_that_is_not_whole_is_named(folders, tmp_path):
    folder = shutil.copytree(folders / "lcm", tmp_path / "lcm")
    config = config_of(tmp_path, "lcm", **{"pipeline.prompts": str(folders / "prompts.txt")})
    scheduler = folder / "scheduler" / "scheduler_config.json"
    scheduler.write_text(json.dumps({"prediction_type": "v_prediction"}))
    with pytest.raises(ValueError, match="prediction_type is 'v_prediction', and the samplers here need 'epsilon'"):
        experiment(config).program(config)
    scheduler.write_text("[]")
    with pytest.raises(ValueError, match="scheduler_config.json holds no object"):
        experiment(config)
    shutil.rmtree(folder / "unet")
    with pytest.raises(FileNotFoundError, match="lcm/unet is no folder"):
        experiment(config)
