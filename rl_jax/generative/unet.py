"""The text-conditioned U-Net of latent diffusion and latent consistency models, in the layout of Stable Diffusion.

Rombach et al. 2022, arXiv 2112.10752; the distilled guidance scale: Luo et al. 2023, arXiv 2310.04378 (LCM). Parameters
have the names of diffusers' `UNet2DConditionModel` (`blocks.py`), so that its weights load. A small one of the same
kind trains from scratch.
"""

import dataclasses
import math
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from rl_jax.core.mesh import FSDP, Rule
from rl_jax.generative.blocks import Downsample, ResNetBlock, Transformer2D, Upsample, conv, group_norm

DOWN_BLOCKS = {"DownBlock2D": False, "CrossAttnDownBlock2D": True}  # a block's type -> whether it has attention
UP_BLOCKS = {"UpBlock2D": False, "CrossAttnUpBlock2D": True}
ATTENTION_KERNELS = r"(to_q|to_k|to_v|to_out_0)/kernel$"  # the parameters that RLCM's code adapts by LoRA
# Kernels and their optimiser moments lie along `data`; parameters of one dimension (norms, biases) are small.
SHARDING_RULES: tuple[Rule, ...] = (("kernel$", FSDP),)


@dataclasses.dataclass(frozen=True)
class UNetConfig:
    """The shape of a U-Net; names as in diffusers' config.json, defaults those of Stable Diffusion 1.5.

    Attributes:
      sample_size: height and width of the training images; other sizes must be multiples of 2^(levels - 1).
      in_channels, out_channels: of the input and of the output images.
      block_out_channels: channels of each level, from the finest.
      down_block_types: one of DOWN_BLOCKS a level, finest first; the middle always has attention.
      up_block_types: one of UP_BLOCKS a level, coarsest first.
      layers_per_block: residual blocks of a level on the way down; on the way up there is one more.
      transformer_layers_per_block: transformer blocks after each residual block of a level with attention.
      attention_head_dim: the number of heads, of all levels or level by level (diffusers' name is misleading).
      cross_attention_dim: D of the context.
      use_linear_projection: see `blocks.Transformer2D`.
      norm_num_groups, norm_eps: of the group norms.
      flip_sin_to_cos, freq_shift: of the timesteps' sinusoid, see `sinusoid`.
      time_cond_proj_dim: G of the guidance embedding that LCM adds to the sinusoid; None for a network without one.
      dtype: of the computation, e.g. jnp.bfloat16; parameters are float32 unless loaded otherwise.
      remat: whether the backward pass recomputes each residual block and transformer instead of keeping them.

    Raises:
      ValueError: an unknown block type, or lists of different lengths.
    """

    sample_size: int = 64
    in_channels: int = 4
    out_channels: int = 4
    block_out_channels: tuple[int, ...] = (320, 640, 1280, 1280)
    down_block_types: tuple[str, ...] = ("CrossAttnDownBlock2D",) * 3 + ("DownBlock2D",)
    up_block_types: tuple[str, ...] = ("UpBlock2D",) + ("CrossAttnUpBlock2D",) * 3
    layers_per_block: int = 2
    transformer_layers_per_block: int = 1
    attention_head_dim: int | tuple[int, ...] = 8
    cross_attention_dim: int = 768
    use_linear_projection: bool = False
    norm_num_groups: int = 32
    norm_eps: float = 1e-5
    flip_sin_to_cos: bool = True
    freq_shift: float = 0
    time_cond_proj_dim: int | None = None
    dtype: Any = jnp.float32
    remat: bool = False

    def __post_init__(self):
        levels = len(self.block_out_channels)
        for field, known in (("down_block_types", DOWN_BLOCKS), ("up_block_types", UP_BLOCKS)):
            kinds = getattr(self, field)
            if len(kinds) != levels:
                raise ValueError(f"{field} has {len(kinds)} entries for the {levels} levels of block_out_channels")
            for kind in kinds:
                if kind not in known:
                    raise ValueError(f"{field} names {kind!r}, which this U-Net does not have: {', '.join(known)}")
        if not isinstance(self.attention_head_dim, int) and len(self.attention_head_dim) != levels:
            raise ValueError(f"attention_head_dim has {len(self.attention_head_dim)} entries for {levels} levels")

    def num_heads(self, level: int) -> int:
        """Of a level, counted from the finest."""
        return self.attention_head_dim if isinstance(self.attention_head_dim, int) else self.attention_head_dim[level]


def sinusoid(values: jax.Array, dim: int, cosine_first: bool = False, shift: float = 0.0) -> jax.Array:
    """Returns sines and cosines [B, dim] of values [B] at dim / 2 frequencies that fall from 1 to about 1 / 10,000.

    The frequencies are 10000^(-i / (dim / 2 - shift)). Source: Vaswani et al. 2017, arXiv 1706.03762, section 3.5.
    """
    if dim % 2:
        raise ValueError(f"a sinusoid has a sine and a cosine at each frequency: {dim} is odd")
    frequencies = jnp.exp(-math.log(10000.0) * jnp.arange(dim // 2) / (dim // 2 - shift))
    angles = values.astype(jnp.float32)[:, None] * frequencies
    waves = (jnp.cos(angles), jnp.sin(angles)) if cosine_first else (jnp.sin(angles), jnp.cos(angles))
    return jnp.concatenate(waves, -1)


def guidance_embedding(w: jax.Array, dim: int) -> jax.Array:
    """Embeds the guidance w [B], which is the scale minus 1, as LCM's U-Net expects it: [B, dim] (arXiv 2310.04378)."""
    return sinusoid(1000.0 * jnp.asarray(w, jnp.float32), dim, shift=1.0)


class TimeEmbedding(nn.Module):
    """Maps the timesteps' sinusoid [B, S], plus a projection of `guidance` [B, G], to [B, T] by a perceptron."""

    features: int
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, waves: jax.Array, guidance: jax.Array | None) -> jax.Array:
        waves = waves.astype(self.dtype)
        if guidance is not None:
            projection = nn.Dense(waves.shape[-1], use_bias=False, dtype=self.dtype, name="cond_proj")
            waves = waves + projection(guidance)
        hidden = nn.silu(nn.Dense(self.features, dtype=self.dtype, name="linear_1")(waves))
        return nn.Dense(self.features, dtype=self.dtype, name="linear_2")(hidden)


class Level(nn.Module):
    """The residual blocks and transformers of one level; base of the down, the middle and the up path."""

    config: UNetConfig
    level: int

    def resnet(self, index: int) -> nn.Module:
        config = self.config
        kind = nn.remat(ResNetBlock) if config.remat else ResNetBlock
        channels = config.block_out_channels[self.level]
        return kind(channels, config.norm_num_groups, config.norm_eps, config.dtype, name=f"resnets_{index}")

    def transformer(self, index: int) -> nn.Module:
        config = self.config
        kind = nn.remat(Transformer2D) if config.remat else Transformer2D
        return kind(
            config.num_heads(self.level),
            config.transformer_layers_per_block,
            config.norm_num_groups,
            config.use_linear_projection,
            config.dtype,
            name=f"attentions_{index}",
        )


class DownLevel(Level):
    """One level of the down path: x [B, H, W, C] -> (input of the next level, skip connections for the up path)."""

    @nn.compact
    def __call__(self, x: jax.Array, time: jax.Array, context: jax.Array, mask: jax.Array | None) -> tuple:
        config, skips = self.config, []
        for index in range(config.layers_per_block):
            x = self.resnet(index)(x, time)
            if DOWN_BLOCKS[config.down_block_types[self.level]]:
                x = self.transformer(index)(x, context, mask)
            skips.append(x)
        if self.level < len(config.block_out_channels) - 1:
            x = Downsample((1, 1), config.dtype, name="downsamplers_0")(x)
            skips.append(x)
        return x, skips


class MiddleLevel(Level):
    """The middle of the coarsest level: a residual block, a transformer, a residual block."""

    @nn.compact
    def __call__(self, x: jax.Array, time: jax.Array, context: jax.Array, mask: jax.Array | None) -> jax.Array:
        x = self.resnet(0)(x, time)
        x = self.transformer(0)(x, context, mask)
        return self.resnet(1)(x, time)


class UpLevel(Level):
    """One level of the up path; it pops its skip connections from the end of `skips`."""

    @nn.compact
    def __call__(
        self, x: jax.Array, skips: list[jax.Array], time: jax.Array, context: jax.Array, mask: jax.Array | None
    ) -> jax.Array:
        config = self.config
        for index in range(config.layers_per_block + 1):
            x = self.resnet(index)(jnp.concatenate([x, skips.pop()], -1), time)
            if UP_BLOCKS[config.up_block_types[-1 - self.level]]:
                x = self.transformer(index)(x, context, mask)
        return Upsample(config.dtype, name="upsamplers_0")(x) if self.level else x


class UNet(nn.Module):
    """Maps images [B, H, W, C], timesteps [B] and context [B, L, D] to [B, H, W, out_channels], in config.dtype.

    `guidance` [B, G] is LCM's `guidance_embedding`; `context_mask` [B, L] is True at the valid entries of the context.
    The output of a fresh network is 0, because the kernel of its last convolution starts at 0.

    Raises:
      ValueError: an image that cannot be halved often enough; guidance for a network without it, or none for one
        with it.
    """

    config: UNetConfig

    @nn.compact
    def __call__(
        self,
        images: jax.Array,
        timesteps: jax.Array,
        context: jax.Array,
        guidance: jax.Array | None = None,
        context_mask: jax.Array | None = None,
    ) -> jax.Array:
        config = self.config
        self._check(images, context, guidance)
        channels, levels = config.block_out_channels, len(config.block_out_channels)
        waves = sinusoid(timesteps, channels[0], config.flip_sin_to_cos, config.freq_shift)
        time = TimeEmbedding(4 * channels[0], config.dtype, name="time_embedding")(waves, guidance)
        inputs = (time, context.astype(config.dtype), context_mask)

        x = conv(channels[0], 3, "conv_in", config.dtype)(images)
        skips = [x]
        for level in range(levels):
            x, more = DownLevel(config, level, name=f"down_blocks_{level}")(x, *inputs)
            skips += more
        x = MiddleLevel(config, levels - 1, name="mid_block")(x, *inputs)
        for index, level in enumerate(reversed(range(levels))):
            x = UpLevel(config, level, name=f"up_blocks_{index}")(x, skips, *inputs)
        x = nn.silu(group_norm(config.norm_num_groups, config.norm_eps, "conv_norm_out", config.dtype)(x))
        return conv(config.out_channels, 3, "conv_out", config.dtype, zeros=True)(x)

    def _check(self, images: jax.Array, context: jax.Array, guidance: jax.Array | None) -> None:
        config = self.config
        multiple = 2 ** (len(config.block_out_channels) - 1)
        height, width, channels = images.shape[1:]
        if height % multiple or width % multiple or channels != config.in_channels:
            raise ValueError(
                f"images of {height}x{width}x{channels}: this U-Net takes multiples of {multiple} as height and width, "
                f"and in_channels={config.in_channels}"
            )
        if context.shape[-1] != config.cross_attention_dim:
            width = config.cross_attention_dim
            raise ValueError(f"context {context.shape}: its last axis is cross_attention_dim={width} for this U-Net")
        asked = None if guidance is None else guidance.shape[-1]
        if asked != config.time_cond_proj_dim:
            raise ValueError(
                f"guidance of {asked} features for a U-Net with time_cond_proj_dim={config.time_cond_proj_dim}: "
                "give guidance_embedding(scale - 1, time_cond_proj_dim) where that is a number, else None"
            )
