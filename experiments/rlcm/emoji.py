"""Emoji of animals with their names as captions, 32x32: the networks that make, encode and judge them, in miniature
what Stable Diffusion is made of."""

import dataclasses
import functools
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax

from rl_jax.core.program import Key, Metrics, PyTree
from rl_jax.data.captioned_images import load_captioned_images
from rl_jax.generative.clip import CLIP, CLIPConfig, TextConfig, VisionConfig, pixels, unit
from rl_jax.generative.contrastive import contrastive_loss
from rl_jax.generative.denoising import Info
from rl_jax.generative.text_to_image import TextToImage
from rl_jax.generative.tokenizer import END, Tokenizer, learn_tokenizer
from rl_jax.generative.unet import UNetConfig
from rl_jax.generative.vae import AutoencoderKL, VAEConfig, autoencoder_loss
from rl_jax.networks.convolution import Conv

DATA = Path(__file__).parent / "data" / "emoji.npz"
SHIFT = 1  # pixels by which images are moved, in training
KL_WEIGHT = 1e-3  # of the autoencoder's latents from a normal distribution
CONTEXT = 8  # tokens of a caption with its start and end
AUTOENCODER = AutoencoderKL(
    VAEConfig(
        sample_size=32, block_out_channels=(16, 32, 64), layers_per_block=1, norm_num_groups=8, scaling_factor=1.0
    )
)


class Emoji(NamedTuple):
    """Attributes:
    pixels: float32 [N, 32, 32, 3] in [-1, 1]; two styles of each animal.
    prompts: int32 [N].
    names: of the prompts.
    tokens: int32 [P, CONTEXT], of the prompts.
    tokenizer: made of the names.
    """

    pixels: np.ndarray
    prompts: np.ndarray
    names: tuple[str, ...]
    tokens: np.ndarray
    tokenizer: Tokenizer


@functools.cache
def load_emoji() -> Emoji:
    found = load_captioned_images(DATA)
    names = tuple(dict.fromkeys(found.captions))
    tokenizer = learn_tokenizer(names, CONTEXT)
    prompts = np.array([names.index(caption) for caption in found.captions], np.int32)
    return Emoji(found.images.astype(np.float32) / 127.5 - 1.0, prompts, names, tokenizer.encode(names), tokenizer)


def generator(tokenizer: Tokenizer) -> nn.Module:
    """The text-conditioned U-Net of latents [B, 8, 8, 4]."""
    attends, not_so = "CrossAttnDownBlock2D", "DownBlock2D"
    unet = UNetConfig(
        sample_size=8, block_out_channels=(64, 96), down_block_types=(not_so, attends),
        up_block_types=(attends.replace("Down", "Up"), not_so.replace("Down", "Up")), layers_per_block=1,
        attention_head_dim=4, norm_num_groups=8,
    )
    return TextToImage(unet, text_config(tokenizer))


def text_config(tokenizer: Tokenizer) -> TextConfig:
    return TextConfig(
        hidden_size=64, intermediate_size=256, num_hidden_layers=2, num_attention_heads=4,
        vocab_size=len(tokenizer.vocab), max_position_embeddings=CONTEXT,
    )


class Part(NamedTuple):
    """A network beside the generator, and how it trains.

    Attributes:
      init: key -> params.
      loss: (params, pixels [B, 32, 32, 3] in [-1, 1], prompts [B], key) -> (loss, info).
      measure: params -> metrics of all images as they are.
    """

    init: Callable[[Key], PyTree]
    loss: Callable[[PyTree, jax.Array, jax.Array, Key], tuple[jax.Array, Info]]
    measure: Callable[[PyTree], Metrics]


def _autoencoder(data: Emoji) -> Part:
    def loss(params: PyTree, pixels: jax.Array, prompts: jax.Array, key: Key) -> tuple[jax.Array, Info]:
        del prompts
        return autoencoder_loss(AUTOENCODER, params, pixels, key, kl_weight=KL_WEIGHT)

    def measure(params: PyTree) -> Metrics:
        error = jnp.mean(jnp.square(AUTOENCODER.apply(params, data.pixels) - data.pixels))
        return {"eval/psnr": 10.0 * jnp.log10(4.0 / error)}  # the range of pixels is 2

    return Part(lambda key: AUTOENCODER.init(key, data.pixels[:1]), loss, measure)


class Judge(nn.Module):
    """Logits [B, num_prompts] of images [B, 32, 32, 3] in [-1, 1]: four convolutions, each halves height and width."""

    num_prompts: int

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        for features in (32, 64, 128, 128):
            x = nn.relu(nn.GroupNorm(8)(Conv(features, (3, 3), 2)(x)))
        return nn.Dense(self.num_prompts)(x.reshape(len(x), -1))


def _judge(data: Emoji) -> Part:
    module = Judge(len(data.names))

    def loss(params: PyTree, pixels: jax.Array, prompts: jax.Array, key: Key) -> tuple[jax.Array, Info]:
        # What a generator makes is blurred and noisy: so is a part of what the judge sees.
        pixels = disturbed(pixels, key)
        logits = module.apply(params, pixels)
        loss = optax.softmax_cross_entropy_with_integer_labels(logits, prompts).mean()
        return loss, {"model/loss": loss, "model/accuracy": jnp.mean(logits.argmax(-1) == prompts)}

    def measure(params: PyTree) -> Metrics:
        return {"eval/accuracy": jnp.mean(module.apply(params, data.pixels).argmax(-1) == data.prompts)}

    return Part(lambda key: module.init(key, data.pixels[:1]), loss, measure)


def disturbed(pixels: jax.Array, key: Key) -> jax.Array:
    """Images with noise of a deviation of up to 0.3, each with its own."""
    level_key, noise_key = jax.random.split(key)
    level = jax.random.uniform(level_key, (len(pixels), 1, 1, 1), maxval=0.3)
    return pixels + level * jax.random.normal(noise_key, pixels.shape)


def clip_config(data: Emoji) -> CLIPConfig:
    vision = VisionConfig(
        hidden_size=96, intermediate_size=384, num_hidden_layers=3, num_attention_heads=4, image_size=32, patch_size=8,
        projection_dim=64,
    )
    end = data.tokenizer.vocab[END]
    return CLIPConfig(dataclasses.replace(text_config(data.tokenizer), eos_token_id=end), vision)


def _similarity(data: Emoji) -> Part:
    module, tokens = CLIP(clip_config(data)), jnp.asarray(data.tokens)

    def loss(params: PyTree, images: jax.Array, prompts: jax.Array, key: Key) -> tuple[jax.Array, Info]:
        images = pixels(disturbed(images, key) / 2.0 + 0.5, 32)
        return contrastive_loss(*module.apply(params, tokens[prompts], images))

    def measure(params: PyTree) -> Metrics:
        return {"eval/accuracy": jnp.mean(prompt_similarity(params, data.pixels).argmax(-1) == data.prompts)}

    return Part(lambda key: module.init(key, tokens[:1], jnp.zeros((1, 32, 32, 3))), loss, measure)


PARTS: dict[str, Callable[[Emoji], Part]] = {
    "autoencoder": _autoencoder, "judge": _judge, "similarity": _similarity,
}


def prompt_similarity(params: PyTree, images: jax.Array) -> jax.Array:
    """Cosines [B, P] of images [B, 32, 32, 3] in [-1, 1] and all prompts, by the similarity model."""
    data = load_emoji()
    tokens = jnp.asarray(data.tokens)
    of_images, of_prompts, _ = CLIP(clip_config(data)).apply(params, tokens, pixels(images / 2.0 + 0.5, 32))
    return unit(of_images) @ unit(of_prompts).T


def judge_log_probs(params: PyTree, images: jax.Array) -> jax.Array:
    """Log-probabilities [B, P] of all prompts, by the judge."""
    return jax.nn.log_softmax(Judge(len(load_emoji().names)).apply(params, images))


class Encoded(NamedTuple):
    """Latents float32 [N, 8, 8, 4] of all images, mirrored and moved ones among them, and their prompts int32 [N]."""

    latents: np.ndarray
    prompts: np.ndarray


def encoded(autoencoder: PyTree) -> Encoded:
    """Of each image and its mirror, as they are and moved by SHIFT to the four sides."""
    data = load_emoji()
    images = np.concatenate([data.pixels, data.pixels[:, :, ::-1]])
    moves = ((0, 0), (0, SHIFT), (0, -SHIFT), (SHIFT, 0), (-SHIFT, 0))
    means = jax.jit(lambda x: AUTOENCODER.apply(autoencoder, x, method="encode")[0])
    latents = np.concatenate([np.asarray(means(np.roll(images, move, (1, 2)))) for move in moves])
    return Encoded(latents, np.tile(data.prompts, 2 * len(moves)))


def decode(autoencoder: PyTree, latents: jax.Array) -> jax.Array:
    """Images [B, 32, 32, 3], in [-1, 1] but for what must be clipped."""
    return AUTOENCODER.apply(autoencoder, latents, method="decode")
