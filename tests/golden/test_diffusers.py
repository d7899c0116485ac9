"""The networks of latent diffusion against the numbers of diffusers and transformers (PROVENANCE.md)."""

import functools
import json
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax.traverse_util import flatten_dict, unflatten_dict

from rl_jax.generative import pretrained
from rl_jax.generative.clip import CLIP, CLIPConfig, TextConfig, TextEncoder, VisionConfig, VisionEncoder, unit
from rl_jax.generative.contrastive import contrastive_loss
from rl_jax.generative.tokenizer import Tokenizer
from rl_jax.generative.unet import UNet, UNetConfig, guidance_embedding
from rl_jax.generative.vae import AutoencoderKL, VAEConfig
from tests.golden.make_diffusers import ENDS, TEXTS, TOKENS, UNETS, VAE, VISION
from tests.golden.weights import numbers, weight

HERE = Path(__file__).parent
TOKENIZER = json.loads((HERE / "clip_tokens.json").read_text(encoding="utf-8"))
with np.load(HERE / "diffusers.npz", allow_pickle=False) as file:
    ARRAYS = dict(file)


def config_of(kind, settings):
    return kind(**{name: tuple(x) if isinstance(x, list) else x for name, x in settings.items()})


def given_params(network, config):
    """Our tree with the weights that PyTorch's parameters of the same names had."""

    def leaf(keys, x):
        axes = pretrained.torch_axes(keys, len(x.shape))
        name = pretrained.published_name(network, keys).removeprefix("text_model.").removeprefix("vision_model.")
        there = weight(name, tuple(x.shape[axis] for axis in axes))
        return np.transpose(there, np.argsort(axes))

    shapes = flatten_dict(pretrained.parameter_shapes(network, config))
    return unflatten_dict({keys: leaf(keys, x) for keys, x in shapes.items()})


@functools.partial(
    jax.jit, static_argnums=0, static_argnames="method", compiler_options={"xla_backend_optimization_level": 0}
)
def run(model, params, *inputs, method=None):
    """Compiled fast: unoptimised, and with the weights as arguments, which as constants would be folded."""
    return model.apply({"params": params}, *inputs, method=method)


def check(name, x):
    np.testing.assert_allclose(x, ARRAYS[name], rtol=1e-4, atol=1e-4, err_msg=name)


@pytest.mark.parametrize("name", UNETS)
def test_unet(name):
    config = config_of(UNetConfig, UNETS[name])
    params = given_params(pretrained.UNET, config)
    guidance = None
    if config.time_cond_proj_dim is not None:
        guidance = numbers("guidance", 2, config.time_cond_proj_dim)
    images, context = numbers("images", 2, 8, 8, config.in_channels), numbers("context", 2, 5, 6)

    def masked(mask):
        return run(UNet(config), params, images, jnp.asarray([999, 19]), context, guidance, jnp.asarray(mask))

    check(f"unet/{name}", masked([[1, 1, 1, 1, 1], [1, 1, 1, 1, 1]]))
    check(f"unet/{name}/masked", masked([[1, 1, 1, 0, 0], [1, 1, 1, 1, 1]]))


def test_guidance_embedding():
    check("guidance", guidance_embedding(jnp.asarray([0.0, 0.5, 7.0]), 10))


def test_autoencoder():
    config = config_of(VAEConfig, VAE)
    model, params = AutoencoderKL(config), given_params(pretrained.VAE, config)
    mean, deviation = run(model, params, numbers("images", 2, 16, 16, 3), method="encode")
    check("vae/mean", mean / config.scaling_factor)
    check("vae/deviation", deviation / config.scaling_factor)
    latents = config.scaling_factor * numbers("latents", 2, 8, 8, 4)
    check("vae/decoded", run(model, params, latents, method="decode"))


@pytest.mark.parametrize("name", TEXTS)
def test_text_encoder(name):
    config = TextConfig(**TEXTS[name])
    check(f"text/{name}", run(TextEncoder(config), given_params(pretrained.TEXT, config), np.asarray(TOKENS)))


def test_vision_encoder():
    config = VisionConfig(**VISION)
    params = given_params(pretrained.VISION, config)
    check("vision", run(VisionEncoder(config), params, numbers("images", 2, 8, 8, 3)))


@pytest.mark.parametrize("end", ENDS)
def test_whole_clip_and_its_loss(end):
    config = CLIPConfig(TextConfig(**TEXTS["quick_gelu"], eos_token_id=end), VisionConfig(**VISION))
    params = given_params(pretrained.CLIP_MODEL, config)
    images, texts, logit_scale = run(CLIP(config), params, np.asarray(TOKENS), numbers("images", 2, 8, 8, 3))
    check(f"clip/{end}/images", images)
    check(f"clip/{end}/texts", texts)
    check(f"clip/{end}/logits", np.exp(logit_scale) * np.sum(unit(images) * unit(texts), -1))
    check(f"clip/{end}/loss", contrastive_loss(images, texts, logit_scale)[0])


def test_tokenizer():
    tokenizer = Tokenizer(TOKENIZER["vocab"], tuple(map(tuple, TOKENIZER["merges"])))
    ids = tokenizer.encode(TOKENIZER["prompts"])
    for row, expected, prompt in zip(ids, TOKENIZER["ids"], TOKENIZER["prompts"], strict=True):
        assert row[: len(expected)].tolist() == expected, prompt
        assert set(row[len(expected) :].tolist()) <= {TOKENIZER["vocab"]["<|endoftext|>"]}
