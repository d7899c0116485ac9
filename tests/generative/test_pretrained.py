"""Folders of pretrained models: what is written is read back, published variations load, what does not fit is named."""

import dataclasses
import functools
import json
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax.traverse_util import flatten_dict
from safetensors.numpy import load_file, save_file

from rl_jax.core.mesh import path_name
from rl_jax.generative import pretrained
from rl_jax.generative.clip import TextConfig, VisionConfig
from rl_jax.generative.pretrained import Part, Pipeline, load_pipeline, load_text_encoder, load_unet, load_vae
from rl_jax.generative.tokenizer import BYTE_LETTERS, END, START, Tokenizer
from rl_jax.generative.unet import UNetConfig
from rl_jax.generative.vae import VAEConfig
from tests.golden.weights import weight

TRANSFORMER = {"hidden_size": 4, "intermediate_size": 6, "num_hidden_layers": 1, "num_attention_heads": 2}
UNET_FILE = "unet/diffusion_pytorch_model.safetensors"


def part(network, config):
    shapes = pretrained.parameter_shapes(network, config)
    return Part(config, jax.tree_util.tree_map_with_path(lambda path, x: weight(path_name(path), x.shape), shapes))


@functools.cache
def vision():
    return part(pretrained.VISION, VisionConfig(**TRANSFORMER, image_size=4, patch_size=2, projection_dim=3))


@functools.cache
def pipeline():
    unet = UNetConfig(
        sample_size=4, block_out_channels=(4,), down_block_types=("CrossAttnDownBlock2D",), time_cond_proj_dim=6,
        up_block_types=("CrossAttnUpBlock2D",), layers_per_block=1, attention_head_dim=(2,), cross_attention_dim=4,
        norm_num_groups=2,
    )
    vae = VAEConfig(sample_size=4, block_out_channels=(4,), layers_per_block=1, norm_num_groups=2, scaling_factor=0.5)
    letters = [*BYTE_LETTERS, *(letter + "</w>" for letter in BYTE_LETTERS), "at</w>", START, END]
    return Pipeline(
        unet=part(pretrained.UNET, unet),
        vae=part(pretrained.VAE, vae),
        text_encoder=part(pretrained.TEXT, TextConfig(**TRANSFORMER, vocab_size=515, max_position_embeddings=8)),
        tokenizer=Tokenizer({token: i for i, token in enumerate(letters)}, (("a", "t</w>"),), "!", 8),
        scheduler={"_class_name": "LCMScheduler", "beta_start": 0.00085},
    )


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    path = tmp_path_factory.mktemp("model")
    pretrained.save_pipeline(pipeline(), path)
    pretrained.save_part(vision(), pretrained.VISION, path / "image_encoder")
    return path


@pytest.fixture
def folder(saved, tmp_path):
    """A copy that a test may spoil."""
    return shutil.copytree(saved, tmp_path / "model")


def same(found, expected):
    assert found.config == expected.config
    jax.tree.map(np.testing.assert_array_equal, found.params, expected.params)


def change(file, **settings):
    file.write_text(json.dumps({**json.loads(file.read_text()), **settings}))


def rewrite(file, change):
    save_file({name: np.ascontiguousarray(x) for name, x in change(load_file(file)).items()}, file)


def test_what_is_written_is_read_back(saved):
    found = load_pipeline(saved)
    for name in ("unet", "vae", "text_encoder"):
        same(getattr(found, name), getattr(pipeline(), name))
    same(pretrained.load_vision_encoder(saved / "image_encoder"), vision())
    assert dataclasses.replace(found.tokenizer, source="the tokenizer") == pipeline().tokenizer
    assert found.scheduler == pipeline().scheduler


def test_names_and_layouts_are_pytorchs(saved):
    tensors, params = load_file(saved / UNET_FILE), pipeline().unet.params
    kernel = params["down_blocks_0"]["resnets_0"]["conv1"]["kernel"]
    np.testing.assert_array_equal(tensors["down_blocks.0.resnets.0.conv1.weight"], kernel.transpose(3, 2, 0, 1))
    attention = params["mid_block"]["attentions_0"]["transformer_blocks_0"]
    name = "mid_block.attentions.0.transformer_blocks.0"
    np.testing.assert_array_equal(tensors[f"{name}.attn2.to_k.weight"], attention["attn2"]["to_k"]["kernel"].T)
    others = {f"{name}.attn1.to_out.0.bias", f"{name}.ff.net.0.proj.weight", "time_embedding.linear_1.bias"}
    assert others < set(tensors)
    text = load_file(saved / "text_encoder" / "model.safetensors")
    embedding = pipeline().text_encoder.params["embeddings"]["token_embedding"]["embedding"]
    np.testing.assert_array_equal(text["text_model.embeddings.token_embedding.weight"], embedding)


def test_half_precision_is_read_and_made(folder):
    rewrite(folder / UNET_FILE, lambda tensors: {name: x.astype(np.float16) for name, x in tensors.items()})
    expected = jax.tree.map(lambda x: x.astype(np.float16).astype(np.float32), pipeline().unet.params)
    same(load_unet(folder / "unet"), Part(pipeline().unet.config, expected))
    found = load_unet(folder / "unet", jnp.bfloat16)
    assert found.config.dtype == jnp.bfloat16
    assert {x.dtype for x in jax.tree.leaves(found.params)} == {np.dtype(jnp.bfloat16)}
    rewrite(folder / UNET_FILE, lambda tensors: {name: x.astype(jnp.bfloat16) for name, x in tensors.items()})
    again = load_unet(folder / "unet", jnp.bfloat16)
    for x, y in zip(jax.tree.leaves(again.params), jax.tree.leaves(found.params), strict=True):
        np.testing.assert_allclose(x.astype(np.float32), y.astype(np.float32), rtol=1e-2)


def test_shards_and_variants(folder):
    tensors, unet = load_file(folder / UNET_FILE), folder / "unet"
    (folder / UNET_FILE).unlink()
    shards = {name: f"part-{i % 2}.safetensors" for i, name in enumerate(sorted(tensors))}
    for shard in set(shards.values()):
        save_file({name: tensors[name] for name in tensors if shards[name] == shard}, unet / shard)
    index = unet / "diffusion_pytorch_model.safetensors.index.json"
    index.write_text(json.dumps({"weight_map": shards}))
    same(load_unet(unet), pipeline().unet)
    for weights in ({"a": "../part-0.safetensors"}, {"a": 3}, "part-0.safetensors"):
        index.write_text(json.dumps({"weight_map": weights}))
        with pytest.raises(ValueError, match="index.json: weight_map names .*, not a file beside it"):
            load_unet(unet)
    index.write_text(json.dumps({"weight_map": shards}))
    (unet / "part-1.safetensors").unlink()
    with pytest.raises(FileNotFoundError, match="index.json names part-1.safetensors, which are missing"):
        load_unet(unet)
    save_file(tensors, unet / "part-0.safetensors")
    index.rename(unet / "diffusion_pytorch_model.safetensors.index.fp16.json")
    index = unet / "diffusion_pytorch_model.safetensors.index.fp16.json"
    index.write_text(json.dumps({"weight_map": dict.fromkeys(tensors, "part-0.safetensors")}))
    same(load_unet(unet, variant="fp16"), pipeline().unet)
    index.unlink()
    save_file(tensors, unet / "diffusion_pytorch_model.fp16.safetensors")
    same(load_unet(unet, variant="fp16"), pipeline().unet)
    message = "there: diffusion_pytorch_model.fp16.safetensors.*--config.pipeline.variant=fp16"
    with pytest.raises(FileNotFoundError, match=message):
        load_unet(unet)


def test_older_names_and_a_whole_clip_model(folder):
    older = {".to_q.": ".query.", ".to_k.": ".key.", ".to_v.": ".value.", ".to_out.0.": ".proj_attn."}

    def rename(name):
        return functools.reduce(lambda name, pair: name.replace(*pair), older.items(), name)

    file = folder / "vae" / "diffusion_pytorch_model.safetensors"
    rewrite(file, lambda tensors: {rename(name): x for name, x in tensors.items()})
    same(load_vae(folder / "vae"), pipeline().vae)

    text, image = folder / "text_encoder", folder / "image_encoder"
    more = load_file(image / "model.safetensors")
    more |= {"logit_scale": np.ones(1), "text_model.embeddings.position_ids": np.arange(8)[None]}
    whole = {"text_config": json.loads((text / "config.json").read_text())}
    whole["vision_config"] = json.loads((image / "config.json").read_text())
    rewrite(text / "model.safetensors", lambda tensors: {**tensors, **more})
    (text / "config.json").write_text(json.dumps(whole))
    same(load_text_encoder(text), pipeline().text_encoder)
    same(pretrained.load_vision_encoder(text), vision())
    rewrite(text / "model.safetensors", lambda x: {name.removeprefix("text_model."): y for name, y in x.items()})
    same(load_text_encoder(text), pipeline().text_encoder)


def test_tensors_that_do_not_fit_are_named_all_at_once(folder):
    def spoil(tensors):
        del tensors["conv_in.bias"]
        return {**tensors, "conv_out.bias": np.zeros(7, np.float32), "add_embedding.weight": np.zeros(1, np.float32)}

    rewrite(folder / UNET_FILE, spoil)
    with pytest.raises(ValueError) as error:
        load_unet(folder / "unet")
    for said in (
        "1 missing: conv_in.bias",
        "1 unexpected: add_embedding.weight (in diffusion_pytorch_model.safetensors)",
        "conv_out.bias (is (7,) in diffusion_pytorch_model.safetensors, (4,) by config.json)",
        "from the same model",
    ):
        assert said in str(error.value)


@pytest.mark.parametrize(
    "settings, message",
    [
        ({"down_block_types": ["AttnDownBlock2D"]}, "down_block_types names 'AttnDownBlock2D'"),
        ({"mid_block_type": "UNetMidBlock2D"}, "mid_block_type is 'UNetMidBlock2D'"),
        ({"addition_embed_type": "text_time"}, "addition_embed_type is 'text_time'"),
        ({"transformer_layers_per_block": [1, 2]}, "transformer_layers_per_block is"),
        ({"_class_name": "UNet3DConditionModel"}, "is of a UNet3DConditionModel"),
        ({"norm_num_groups": "2"}, "describes no UNet2DConditionModel"),
        ({"norm_num_groups": 0}, "describes no UNet2DConditionModel"),
        ({"block_out_channels": 4}, "has no len"),
        ({"layers_per_block": 10**20}, "layers_per_block is 1000"),
    ],
)
def test_a_network_that_we_do_not_have_is_named(folder, settings, message):
    change(folder / "unet" / "config.json", **settings)
    with pytest.raises(ValueError, match=f"config.json.*{message}"):
        load_unet(folder / "unet")


def test_settings_that_change_nothing_are_read_over(folder):
    change(folder / "unet" / "config.json", act_fn="silu", class_embed_type=None, upcast_attention=True, _diffusers="0")
    same(load_unet(folder / "unet"), pipeline().unet)


def test_missing_and_broken_files_are_named(folder):
    with pytest.raises(FileNotFoundError, match="absent is no folder"):
        load_pipeline(folder / "absent")
    change(folder / "model_index.json", unet=["diffusers", "FluxTransformer2DModel"])
    with pytest.raises(ValueError, match="unet is a FluxTransformer2DModel"):
        load_pipeline(folder)
    (folder / UNET_FILE).write_bytes((folder / UNET_FILE).read_bytes()[:-5])
    with pytest.raises(ValueError, match="is not a whole safetensors file"):
        load_unet(folder / "unet")
    config = json.loads((folder / "unet" / "config.json").read_text())
    del config["cross_attention_dim"]
    (folder / "unet" / "config.json").write_text(json.dumps(config))
    with pytest.raises(ValueError, match="does not say cross_attention_dim"):
        load_unet(folder / "unet")
    (folder / "unet" / "config.json").write_text("{")
    with pytest.raises(ValueError, match="unet/config.json is damaged"):
        load_unet(folder / "unet")
    (folder / "unet" / "config.json").write_text("[]")
    with pytest.raises(ValueError, match="unet/config.json holds no object"):
        load_unet(folder / "unet")
    (folder / "vae" / "config.json").unlink()
    with pytest.raises(FileNotFoundError, match="vae/config.json is missing"):
        load_vae(folder / "vae")


def test_every_parameter_has_a_name_of_its_own():
    for network, found in ((pretrained.UNET, pipeline().unet), (pretrained.VAE, pipeline().vae)):
        names = [pretrained.torch_name(keys) for keys in flatten_dict(found.params)]
        assert len(set(names)) == len(names), network.class_name
