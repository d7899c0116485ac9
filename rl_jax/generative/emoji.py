"""Emoji of animals, 32x32 pixels, whose prompts are their names: a latent diffusion model in miniature.

A text encoder and a U-Net generate the latents of an autoencoder; a small CLIP measures how well an image matches a
prompt, and a convolutional classifier judges independently of it.
"""

import dataclasses
import functools
from pathlib import Path
from typing import NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from rl_jax.core.program import Key, PyTree
from rl_jax.data.captioned_images import load_captioned_images
from rl_jax.generative.clip import CLIP, CLIPConfig, TextConfig, VisionConfig, pixels, unit
from rl_jax.generative.consistency import SIGMA_DATA
from rl_jax.generative.domain import Domain
from rl_jax.generative.rewards import to_bytes
from rl_jax.generative.text_to_image import TextToImage
from rl_jax.generative.tokenizer import END, Tokenizer, learn_tokenizer
from rl_jax.generative.unet import UNetConfig
from rl_jax.generative.vae import AutoencoderKL, VAEConfig
from rl_jax.networks.convolution import Conv
from rl_jax.networks.model_file import load_model

SHIFT = 1  # pixels by which augmentation moves an image
CONTEXT = 8  # tokens of a caption, with its start and its end
PARTS = ("autoencoder", "similarity", "judge")  # the networks beside the generator
AUTOENCODER = AutoencoderKL(
    VAEConfig(
        sample_size=32, block_out_channels=(16, 32, 64), layers_per_block=1, norm_num_groups=8, scaling_factor=1.0
    )
)


class Emoji(NamedTuple):
    """Attributes:
    pixels: float32 [N, 32, 32, 3] in [-1, 1]; two styles of each animal.
    prompts: int32 [N], indices of names.
    names: P of them.
    tokens: int32 [P, CONTEXT], of the names.
    tokenizer: learnt from the names.
    """

    pixels: np.ndarray
    prompts: np.ndarray
    names: tuple[str, ...]
    tokens: np.ndarray
    tokenizer: Tokenizer


class Judge(nn.Module):
    """Logits [B, num_prompts] of images [B, 32, 32, 3] in [-1, 1], by four convolutions of stride 2."""

    num_prompts: int

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        for features in (32, 64, 128, 128):
            x = nn.relu(nn.GroupNorm(8)(Conv(features, (3, 3), 2)(x)))
        return nn.Dense(self.num_prompts)(x.reshape(len(x), -1))


@functools.cache
def load_emoji(path: Path) -> Emoji:
    """Reads a file of captioned images; errors: see `load_captioned_images`."""
    found = load_captioned_images(path)
    names = tuple(dict.fromkeys(found.captions))
    tokenizer = learn_tokenizer(names, CONTEXT)
    prompts = np.array([names.index(caption) for caption in found.captions], np.int32)
    return Emoji(found.images.astype(np.float32) / 127.5 - 1.0, prompts, names, tokenizer.encode(names), tokenizer)


@functools.cache
def emoji_domain(path: Path, checkpoints: Path) -> Domain:
    """The domain of a file of emoji, with the networks `emoji_<part>.npz` of a folder; it encodes all images."""
    data = load_emoji(path)
    frozen = {
        part: load_model(checkpoints / f"emoji_{part}.npz", part, "emoji", functools.partial(init_part, data, part))
        for part in PARTS
    }
    latents, prompts = encode(frozen["autoencoder"], data)
    mean, scale = float(latents.mean()), float(latents.std()) / SIGMA_DATA

    def decode(frozen: PyTree, x: jax.Array) -> jax.Array:
        """Images [B, 32, 32, 3], nominally in [-1, 1], of generated latents [B, 8, 8, 4]."""
        return AUTOENCODER.apply(frozen["autoencoder"], scale * x + mean, method="decode")

    return Domain(
        (latents - mean) / scale, prompts, data.names, data.tokens, generator(data.tokenizer), frozen,
        decode=lambda frozen, x: decode(frozen, x) / 2.0 + 0.5,
        render=lambda pixels: to_bytes(pixels, 1.0, 0.0),
        similarity=lambda frozen, x: prompt_similarity(frozen["similarity"], data, decode(frozen, x)),
        judge=lambda frozen, x: jax.nn.log_softmax(Judge(len(data.names)).apply(frozen["judge"], decode(frozen, x))),
    )


def init_part(data: Emoji, part: str, key: Key) -> PyTree:
    """Returns fresh parameters of one of PARTS."""
    if part == "similarity":
        return CLIP(clip_config(data)).init(key, jnp.asarray(data.tokens[:1]), jnp.zeros((1, 32, 32, 3)))
    module = AUTOENCODER if part == "autoencoder" else Judge(len(data.names))
    return module.init(key, data.pixels[:1])


def generator(tokenizer: Tokenizer) -> nn.Module:
    """Returns the text-conditioned U-Net of latents [B, 8, 8, 4]."""
    unet = UNetConfig(
        sample_size=8, block_out_channels=(64, 96), down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"), layers_per_block=1, attention_head_dim=4,
        norm_num_groups=8,
    )
    return TextToImage(unet, text_config(tokenizer))


def text_config(tokenizer: Tokenizer) -> TextConfig:
    """Returns the shape of the text encoder of the generator, which is also that of the similarity model."""
    return TextConfig(
        hidden_size=64, intermediate_size=256, num_hidden_layers=2, num_attention_heads=4,
        vocab_size=len(tokenizer.vocab), max_position_embeddings=CONTEXT,
    )


def clip_config(data: Emoji) -> CLIPConfig:
    """Returns the shape of the similarity model."""
    vision = VisionConfig(
        hidden_size=96, intermediate_size=384, num_hidden_layers=3, num_attention_heads=4, image_size=32, patch_size=8,
        projection_dim=64,
    )
    end = data.tokenizer.vocab[END]
    return CLIPConfig(dataclasses.replace(text_config(data.tokenizer), eos_token_id=end), vision)


def prompt_similarity(params: PyTree, data: Emoji, images: jax.Array) -> jax.Array:
    """Returns cosines [B, P] of images [B, 32, 32, 3] in [-1, 1] and all prompts, by the similarity model."""
    tokens = jnp.asarray(data.tokens)
    of_images, of_prompts, _ = CLIP(clip_config(data)).apply(params, tokens, pixels(images / 2.0 + 0.5, 32))
    return unit(of_images) @ unit(of_prompts).T


def encode(autoencoder: PyTree, data: Emoji) -> tuple[np.ndarray, np.ndarray]:
    """Returns latents float32 [10 N, 8, 8, 4] and prompts int32 [10 N] of all images and their mirror images.

    Each is encoded as it is and moved by SHIFT to the four sides.
    """
    images = np.concatenate([data.pixels, data.pixels[:, :, ::-1]])
    moves = ((0, 0), (0, SHIFT), (0, -SHIFT), (SHIFT, 0), (-SHIFT, 0))
    means = jax.jit(lambda params, x: AUTOENCODER.apply(params, x, method="encode")[0])
    latents = np.concatenate([np.asarray(means(autoencoder, np.roll(images, move, (1, 2)))) for move in moves])
    return latents, np.tile(data.prompts, 2 * len(moves))
