"""A small text-conditioned image model: a text encoder and a U-Net that train together from scratch."""

import dataclasses

import flax.linen as nn
import jax

from rl_jax.generative.clip import TextConfig, TextEncoder
from rl_jax.generative.unet import UNet, UNetConfig

# The noise label is log(t) / 4. Over its range the U-Net's sinusoids should have few periods and not hundreds, because
# a consistency function has to be smooth in the noise level.
TIMESTEPS_PER_LABEL = 8.0


class TextToImage(nn.Module):
    """Maps images [B, H, W, C], noise labels [B] and token ids [B, L] to [B, H, W, C].

    Attributes:
      unet: the U-Net's shape; its context is the text encoder's output.
      text: the text encoder's shape; its hidden_size is the U-Net's cross_attention_dim.
    """

    unet: UNetConfig
    text: TextConfig

    @nn.compact
    def __call__(self, images: jax.Array, labels: jax.Array, tokens: jax.Array) -> jax.Array:
        unet = dataclasses.replace(self.unet, cross_attention_dim=self.text.hidden_size)
        context = TextEncoder(self.text, name="text_encoder")(tokens)
        return UNet(unet, name="unet")(images, TIMESTEPS_PER_LABEL * labels, context)
