"""The blocks of a latent diffusion model's networks: residual blocks, resampling, attention; images are NHWC.

Submodules have the names of the diffusers library (`conv1`, `to_q`, ...), with items of a list as `resnets_0`, so that
a rule finds pretrained weights (`pretrained.py`). Sources: Ho et al. 2020, arXiv 2006.11239 (the U-Net's blocks);
Rombach et al. 2022, arXiv 2112.10752, appendix E (its transformer).
"""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from rl_jax.networks.convolution import Conv
from rl_jax.networks.transformer import gelu

Dtype = Any
LAYER_NORM_EPSILON = 1e-5


def conv(features: int, size: int, name: str, dtype: Dtype, zeros: bool = False) -> nn.Conv:
    """Makes a square convolution of odd size that keeps an image's size; with `zeros` its kernel starts at 0."""
    init = nn.initializers.zeros if zeros else nn.linear.default_kernel_init
    return Conv(features, (size, size), padding=size // 2, kernel_init=init, dtype=dtype, name=name)


def group_norm(groups: int, epsilon: float, name: str | None, dtype: Dtype) -> nn.GroupNorm:
    """Makes a group norm that computes the variance around the mean, as PyTorch does.

    Activations of pretrained networks may lie far from 0, where E[x^2] - E[x]^2 loses precision.
    """
    return nn.GroupNorm(groups, epsilon=epsilon, use_fast_variance=False, dtype=dtype, name=name)


def layer_norm(name: str, dtype: Dtype) -> nn.LayerNorm:
    """Makes a layer norm with the same variance as `group_norm`."""
    return nn.LayerNorm(LAYER_NORM_EPSILON, use_fast_variance=False, dtype=dtype, name=name)


class ResNetBlock(nn.Module):
    """Adds two convolutions of x to x, [B, H, W, C] -> [B, H, W, features]; `time` [B, T] enters between the two.

    A 1x1 convolution maps x to another number of channels. A fresh block is this shortcut alone, because its second
    convolution starts at 0.

    Attributes:
      features: channels of the output.
      groups: of the group norms; divides both numbers of channels.
      epsilon: of the group norms.
      dtype: of the computation.
    """

    features: int
    groups: int
    epsilon: float
    dtype: Dtype = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array, time: jax.Array | None = None) -> jax.Array:
        inner = nn.silu(group_norm(self.groups, self.epsilon, "norm1", self.dtype)(x))
        inner = conv(self.features, 3, "conv1", self.dtype)(inner)
        if time is not None:
            shift = nn.Dense(self.features, dtype=self.dtype, name="time_emb_proj")(nn.silu(time))
            inner = inner + shift[:, None, None]
        inner = nn.silu(group_norm(self.groups, self.epsilon, "norm2", self.dtype)(inner))
        inner = conv(self.features, 3, "conv2", self.dtype, zeros=True)(inner)
        if x.shape[-1] != self.features:
            x = conv(self.features, 1, "conv_shortcut", self.dtype)(x)
        return x + inner


class Downsample(nn.Module):
    """Halves height and width by a 3x3 convolution with stride 2: [B, H, W, C] -> [B, H/2, W/2, C].

    Attributes:
      padding: zeros before and after each axis: (1, 1) in the U-Net, (0, 1) in the autoencoder.
    """

    padding: tuple[int, int]
    dtype: Dtype = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        return Conv(x.shape[-1], (3, 3), 2, padding=(self.padding,) * 2, dtype=self.dtype, name="conv")(x)


class Upsample(nn.Module):
    """Doubles height and width by repeating pixels, then convolves with 3x3: [B, H, W, C] -> [B, 2H, 2W, C]."""

    dtype: Dtype = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        return conv(x.shape[-1], 3, "conv", self.dtype)(x.repeat(2, 1).repeat(2, 2))


class Attention(nn.Module):
    """Attends from x [B, T, D] to `context` [B, L, E], or to x itself where that is None: -> [B, T, D].

    The softmax is computed in float32. `mask` [B, L] bool is True at the valid entries of the context.

    Attributes:
      num_heads: must divide D.
      use_bias: whether query, key and value have biases (the output always has one).
    """

    num_heads: int
    use_bias: bool = False
    dtype: Dtype = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array, context: jax.Array | None = None, mask: jax.Array | None = None) -> jax.Array:
        width = x.shape[-1]
        if width % self.num_heads:
            raise ValueError(f"attention over {width} channels does not divide over {self.num_heads} heads")

        def heads(name: str, y: jax.Array) -> jax.Array:
            y = nn.Dense(width, self.use_bias, dtype=self.dtype, name=name)(y)
            return y.reshape(*y.shape[:2], self.num_heads, -1)

        context = x if context is None else context
        mask = None if mask is None else mask.astype(bool)[:, None, None]
        query, key, value = heads("to_q", x), heads("to_k", context), heads("to_v", context)
        out = jax.nn.dot_product_attention(query, key, value, mask=mask)
        return nn.Dense(width, dtype=self.dtype, name="to_out_0")(out.reshape(*x.shape))


class GatedLinear(nn.Module):
    """GEGLU, x [..., D] -> [..., features]: one half of a linear map times the GELU of the other (arXiv 2002.05202)."""

    features: int
    dtype: Dtype = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        value, gate = jnp.split(nn.Dense(2 * self.features, dtype=self.dtype, name="proj")(x), 2, -1)
        return value * gelu(gate)


class FeedForward(nn.Module):
    """A perceptron with one hidden layer of 4 D gated units: [B, T, D] -> [B, T, D]."""

    dtype: Dtype = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        hidden = GatedLinear(4 * x.shape[-1], self.dtype, name="net_0")(x)
        return nn.Dense(x.shape[-1], dtype=self.dtype, name="net_2")(hidden)


class TransformerBlock(nn.Module):
    """Adds pre-norm self-attention, cross-attention to the context and a feed-forward layer to x [B, T, D]."""

    num_heads: int
    dtype: Dtype = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array, context: jax.Array, mask: jax.Array | None = None) -> jax.Array:
        x = x + Attention(self.num_heads, dtype=self.dtype, name="attn1")(layer_norm("norm1", self.dtype)(x))
        inner = layer_norm("norm2", self.dtype)(x)
        x = x + Attention(self.num_heads, dtype=self.dtype, name="attn2")(inner, context, mask)
        return x + FeedForward(self.dtype, name="ff")(layer_norm("norm3", self.dtype)(x))


class Transformer2D(nn.Module):
    """Adds transformer blocks over the H W pixels of x [B, H, W, C] to x; they attend to `context` [B, L, E].

    A fresh module adds nothing, because its last projection starts at 0.

    Attributes:
      num_heads: must divide C.
      num_layers: transformer blocks.
      groups: of the group norm; divides C.
      linear: whether the projections around the blocks are linear layers (Stable Diffusion 2) or 1x1 convolutions
        (Stable Diffusion 1), which compute the same.
    """

    num_heads: int
    num_layers: int
    groups: int
    linear: bool
    dtype: Dtype = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array, context: jax.Array, mask: jax.Array | None = None) -> jax.Array:
        channels = x.shape[-1]

        def project(name: str, y: jax.Array, zeros: bool = False) -> jax.Array:
            if not self.linear:
                return conv(channels, 1, name, self.dtype, zeros)(y)
            init = nn.initializers.zeros if zeros else nn.linear.default_kernel_init
            return nn.Dense(channels, kernel_init=init, dtype=self.dtype, name=name)(y)

        inner = project("proj_in", group_norm(self.groups, 1e-6, "norm", self.dtype)(x))
        tokens = inner.reshape(x.shape[0], -1, channels)
        for layer in range(self.num_layers):
            block = TransformerBlock(self.num_heads, self.dtype, name=f"transformer_blocks_{layer}")
            tokens = block(tokens, context, mask)
        return x + project("proj_out", tokens.reshape(x.shape), zeros=True)
