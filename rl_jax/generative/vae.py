"""The variational autoencoder of latent diffusion, which maps images to latents of an eighth of their size and back.

Rombach et al. 2022, arXiv 2112.10752, section 3.1. Parameters have the names of diffusers' `AutoencoderKL`
(`blocks.py`).
"""

import dataclasses
from typing import Any

import chex
import flax.linen as nn
import jax
import jax.numpy as jnp

from rl_jax.core.program import Key, PyTree
from rl_jax.generative.blocks import Attention, Downsample, ResNetBlock, Upsample, conv, group_norm
from rl_jax.generative.denoising import Info
from rl_jax.networks.convolution import Conv

EPSILON = 1e-6  # of every group norm


@dataclasses.dataclass(frozen=True)
class VAEConfig:
    """The shape of an autoencoder; names as in diffusers' config.json, defaults those of Stable Diffusion 1.5.

    Attributes:
      sample_size: height and width of the training images.
      in_channels, out_channels: of the input and of the output images.
      latent_channels: of the latents.
      block_out_channels: channels of each level, from the finest; each level but the last halves height and width.
      layers_per_block: residual blocks of a level of the encoder; the decoder has one more.
      norm_num_groups: of the group norms.
      scaling_factor: multiplies the latents, so that their standard deviation is about 1.
      dtype: of the computation. Stable Diffusion's decoder overflows in float16; bfloat16 and float32 are safe.
    """

    sample_size: int = 512
    in_channels: int = 3
    out_channels: int = 3
    latent_channels: int = 4
    block_out_channels: tuple[int, ...] = (128, 256, 512, 512)
    layers_per_block: int = 2
    norm_num_groups: int = 32
    scaling_factor: float = 0.18215
    dtype: Any = jnp.float32


class PixelAttention(nn.Module):
    """Adds attention with one head among the pixels of x [B, H, W, C] to x.

    Norm and projections share a scope, as in diffusers.
    """

    groups: int
    dtype: Any = jnp.float32

    def setup(self):
        self.attention = Attention(1, use_bias=True, dtype=self.dtype)
        nn.share_scope(self, self.attention)
        self.group_norm = group_norm(self.groups, EPSILON, None, self.dtype)

    def __call__(self, x: jax.Array) -> jax.Array:
        pixels = self.group_norm(x).reshape(x.shape[0], -1, x.shape[-1])
        return x + self.attention(pixels).reshape(x.shape)


class Blocks(nn.Module):
    """Residual blocks of one level, then resampling: "downsamplers_0", "upsamplers_0" or None."""

    features: int
    num_layers: int
    groups: int
    resample: str | None
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        for index in range(self.num_layers):
            x = ResNetBlock(self.features, self.groups, EPSILON, self.dtype, name=f"resnets_{index}")(x)
        if self.resample == "downsamplers_0":
            return Downsample((0, 1), self.dtype, name=self.resample)(x)
        return x if self.resample is None else Upsample(self.dtype, name=self.resample)(x)


class Middle(nn.Module):
    """The coarsest level: a residual block, attention among pixels, a residual block."""

    groups: int
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        x = ResNetBlock(x.shape[-1], self.groups, EPSILON, self.dtype, name="resnets_0")(x)
        x = PixelAttention(self.groups, self.dtype, name="attentions_0")(x)
        return ResNetBlock(x.shape[-1], self.groups, EPSILON, self.dtype, name="resnets_1")(x)


class Encoder(nn.Module):
    """Images [B, H, W, C] -> [B, h, w, 2 latent_channels]."""

    config: VAEConfig

    @nn.compact
    def __call__(self, images: jax.Array) -> jax.Array:
        config, groups = self.config, self.config.norm_num_groups
        x = conv(config.block_out_channels[0], 3, "conv_in", config.dtype)(images)
        for index, features in enumerate(config.block_out_channels):
            resample = "downsamplers_0" if index < len(config.block_out_channels) - 1 else None
            name = f"down_blocks_{index}"
            x = Blocks(features, config.layers_per_block, groups, resample, config.dtype, name=name)(x)
        x = Middle(groups, config.dtype, name="mid_block")(x)
        x = nn.silu(group_norm(groups, EPSILON, "conv_norm_out", config.dtype)(x))
        return conv(2 * config.latent_channels, 3, "conv_out", config.dtype)(x)


class Decoder(nn.Module):
    """[B, h, w, latent_channels] -> images [B, H, W, C]."""

    config: VAEConfig

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        config, groups = self.config, self.config.norm_num_groups
        x = conv(config.block_out_channels[-1], 3, "conv_in", config.dtype)(x)
        x = Middle(groups, config.dtype, name="mid_block")(x)
        for index, features in enumerate(reversed(config.block_out_channels)):
            resample = "upsamplers_0" if index < len(config.block_out_channels) - 1 else None
            name = f"up_blocks_{index}"
            x = Blocks(features, config.layers_per_block + 1, groups, resample, config.dtype, name=name)(x)
        x = nn.silu(group_norm(groups, EPSILON, "conv_norm_out", config.dtype)(x))
        return conv(config.out_channels, 3, "conv_out", config.dtype)(x)


class AutoencoderKL(nn.Module):
    """An encoder and a decoder, to be called as `apply({"params": params}, x, method="decode")`.

    Latents are in the U-Net's units: `encode` multiplies by `scaling_factor`, and `decode` divides by it.
    """

    config: VAEConfig

    def setup(self):
        config = self.config
        self.encoder, self.decoder = Encoder(config), Decoder(config)
        self.quant_conv = Conv(2 * config.latent_channels, (1, 1), dtype=config.dtype)
        self.post_quant_conv = Conv(config.latent_channels, (1, 1), dtype=config.dtype)

    def encode(self, images: jax.Array) -> tuple[jax.Array, jax.Array]:
        """Maps images [B, H, W, C] in [-1, 1] to mean and standard deviation of latents [B, h, w, latent_channels].

        Raises:
          ValueError: a height or width that cannot be halved often enough.
        """
        multiple = 2 ** (len(self.config.block_out_channels) - 1)
        if images.shape[1] % multiple or images.shape[2] % multiple:
            raise ValueError(f"images {images.shape}: the autoencoder takes multiples of {multiple} as their sides")
        mean, log_variance = jnp.split(self.quant_conv(self.encoder(images)), 2, -1)
        deviation = jnp.exp(0.5 * jnp.clip(log_variance, -30.0, 20.0))
        return self.config.scaling_factor * mean, self.config.scaling_factor * deviation

    def decode(self, latents: jax.Array) -> jax.Array:
        """Maps latents [B, h, w, latent_channels] to images [B, H, W, C], nominally in [-1, 1]."""
        return self.decoder(self.post_quant_conv(latents / self.config.scaling_factor))

    def __call__(self, images: jax.Array) -> jax.Array:
        """Decodes the mean of the latents of images; used by `init`."""
        return self.decode(self.encode(images)[0])


def autoencoder_loss(
    module: AutoencoderKL, params: PyTree, images: jax.Array, key: Key, *, kl_weight: float
) -> tuple[jax.Array, Info]:
    """Computes mean |decoded - images| + kl_weight mean KL(N(mean, deviation^2), N(0, 1)), means over all numbers.

    The decoder reads a sample from the encoder's Gaussian. Source: Rombach et al. 2022, section 3.1, without the
    perceptual and adversarial terms, which large photographs need.

    Args:
      images: [B, H, W, C] in [-1, 1].

    Returns:
      (loss, info) with `model/loss`, `model/error` and `model/kl`.
    """
    mean, deviation = module.apply(params, images, method="encode")
    latents = mean + deviation * jax.random.normal(key, mean.shape)
    decoded = module.apply(params, latents, method="decode")
    chex.assert_equal_shape([decoded, images])
    error = jnp.mean(jnp.abs(decoded - images))
    mean, deviation = (x / module.config.scaling_factor for x in (mean, deviation))
    divergence = 0.5 * jnp.mean(jnp.square(mean) + jnp.square(deviation) - 1.0 - 2.0 * jnp.log(deviation))
    loss = error + kl_weight * divergence
    return loss, {"model/loss": loss, "model/error": error, "model/kl": divergence}
