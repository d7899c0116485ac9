"""A small denoising network for small images of numbered classes."""

import flax.linen as nn
import jax
import jax.numpy as jnp


class ClassConditionalMLP(nn.Module):
    """Maps images [B, H, W], noise labels [B] and class indices [B] to [B, H, W].

    Each residual layer normalises its input and modulates it by a scale and a shift computed from label and class
    (FiLM: Perez et al. 2018, arXiv 1709.07871). The output layer starts at 0.

    Attributes:
      num_classes: number of classes.
      width: of every layer.
      num_layers: residual layers.
    """

    num_classes: int
    width: int = 192
    num_layers: int = 4

    @nn.compact
    def __call__(self, images: jax.Array, labels: jax.Array, classes: jax.Array) -> jax.Array:
        # Low frequencies, because a consistency function has to be smooth in the noise level.
        frequencies = 2.0 ** jnp.arange(4)
        angles = labels[:, None] * frequencies
        waves = jnp.concatenate([jnp.sin(angles), jnp.cos(angles)], -1)
        embedding = nn.Dense(self.width)(nn.silu(nn.Dense(self.width)(waves)))
        embedding = nn.silu(embedding + nn.Embed(self.num_classes, self.width)(classes))
        x = nn.Dense(self.width)(images.reshape(len(images), -1))
        for _ in range(self.num_layers):
            scale, shift = jnp.split(nn.Dense(2 * self.width)(embedding), 2, -1)
            inner = nn.LayerNorm(use_bias=False, use_scale=False)(x) * (1.0 + scale) + shift
            x = x + nn.Dense(self.width)(nn.silu(inner))
        size = images.shape[1] * images.shape[2]
        return nn.Dense(size, kernel_init=nn.initializers.zeros)(nn.silu(x)).reshape(images.shape)
