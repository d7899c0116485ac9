"""CLIP's two encoders: of text, which conditions a latent diffusion model, and of images, which scores them.

Radford et al. 2021, arXiv 2103.00020. Parameters have the names of transformers' `CLIPTextModel`,
`CLIPVisionModelWithProjection` and `CLIPModel`, with items of a list as `layers_0`, so that pretrained weights load
(`pretrained.py`).
"""

import dataclasses
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from rl_jax.networks.convolution import Conv
from rl_jax.networks.transformer import gelu

# Mean and standard deviation of each colour channel over CLIP's training images, in [0, 1].
PIXEL_MEAN = (0.48145466, 0.4578275, 0.40821073)
PIXEL_STD = (0.26862954, 0.26130258, 0.27577711)
LOGIT_SCALE = 2.6592  # log(1 / 0.07), the initial scale of the similarities
# The eos_token_id of older config.json files, which is wrong: their end token is the one with the highest id.
HIGHEST = 2
ACTIVATIONS = {"quick_gelu": lambda x: x * nn.sigmoid(1.702 * x), "gelu": gelu}


@dataclasses.dataclass(frozen=True)
class EncoderConfig:
    """The shape of an encoder's transformer; names as in transformers' config.json.

    Attributes:
      hidden_size: D.
      intermediate_size: width of a perceptron's hidden layer.
      num_hidden_layers, num_attention_heads: of the transformer.
      hidden_act: one of ACTIVATIONS.
      layer_norm_eps: of the layer norms.
      dtype: of the computation.

    Raises:
      ValueError: an unknown activation.
    """

    hidden_size: int = 768
    intermediate_size: int = 3072
    num_hidden_layers: int = 12
    num_attention_heads: int = 12
    hidden_act: str = "quick_gelu"
    layer_norm_eps: float = 1e-5
    dtype: Any = jnp.float32

    def __post_init__(self):
        if self.hidden_act not in ACTIVATIONS:
            raise ValueError(f"hidden_act is {self.hidden_act!r}: CLIP's encoders have {' or '.join(ACTIVATIONS)}")


@dataclasses.dataclass(frozen=True)
class TextConfig(EncoderConfig):
    """The shape of a text encoder; defaults are those of ViT-L/14, which Stable Diffusion 1.5 uses.

    Attributes:
      vocab_size: of the tokenizer.
      max_position_embeddings: the most tokens that it reads.
      eos_token_id: the end token, whose output is the prompt's embedding; see HIGHEST.
    """

    vocab_size: int = 49408
    max_position_embeddings: int = 77
    eos_token_id: int = 49407


@dataclasses.dataclass(frozen=True)
class VisionConfig(EncoderConfig):
    """The shape of an image encoder; defaults are those of ViT-L/14.

    Attributes:
      image_size: height and width of the images it reads.
      patch_size: side of the squares that become tokens; divides image_size.
      projection_dim: dimension of the space that it shares with the text encoder.
    """

    hidden_size: int = 1024
    intermediate_size: int = 4096
    num_hidden_layers: int = 24
    num_attention_heads: int = 16
    image_size: int = 224
    patch_size: int = 14
    projection_dim: int = 768


@dataclasses.dataclass(frozen=True)
class CLIPConfig:
    """The shapes of both encoders, which share a space of `vision_config.projection_dim` dimensions."""

    text_config: TextConfig = TextConfig()
    vision_config: VisionConfig = VisionConfig()


class Attention(nn.Module):
    """Self-attention, x [B, T, D] -> [B, T, D]; with `causal` a token attends to itself and earlier ones."""

    config: EncoderConfig
    causal: bool

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        def linear(name: str, y: jax.Array) -> jax.Array:
            return nn.Dense(x.shape[-1], dtype=self.config.dtype, name=name)(y)

        heads = (*x.shape[:2], self.config.num_attention_heads, -1)
        query, key, value = (linear(name, x).reshape(heads) for name in ("q_proj", "k_proj", "v_proj"))
        out = jax.nn.dot_product_attention(query, key, value, is_causal=self.causal)
        return linear("out_proj", out.reshape(x.shape))


class Perceptron(nn.Module):
    """A perceptron with one hidden layer, [B, T, D] -> [B, T, D]."""

    config: EncoderConfig

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        hidden = nn.Dense(self.config.intermediate_size, dtype=self.config.dtype, name="fc1")(x)
        hidden = ACTIVATIONS[self.config.hidden_act](hidden)
        return nn.Dense(x.shape[-1], dtype=self.config.dtype, name="fc2")(hidden)


class Layer(nn.Module):
    """Computes x + attention(norm(x)), then x + perceptron(norm(x)): [B, T, D] -> [B, T, D]."""

    config: EncoderConfig
    causal: bool

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        x = x + Attention(self.config, self.causal, name="self_attn")(_norm("layer_norm1", self.config)(x))
        return x + Perceptron(self.config, name="mlp")(_norm("layer_norm2", self.config)(x))


class Encoder(nn.Module):
    """A stack of layers, [B, T, D] -> [B, T, D]."""

    config: EncoderConfig
    causal: bool

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        for index in range(self.config.num_hidden_layers):
            x = Layer(self.config, self.causal, name=f"layers_{index}")(x)
        return x


def _norm(name: str, config: EncoderConfig) -> nn.LayerNorm:
    return nn.LayerNorm(config.layer_norm_eps, use_fast_variance=False, dtype=config.dtype, name=name)


class TextEmbeddings(nn.Module):
    """Token ids [B, T] -> [B, T, D]: the sum of a token embedding and a position embedding."""

    config: TextConfig

    @nn.compact
    def __call__(self, tokens: jax.Array) -> jax.Array:
        config = self.config

        def embed(name: str, entries: int, indices: jax.Array) -> jax.Array:
            return nn.Embed(entries, config.hidden_size, dtype=config.dtype, name=name)(indices)

        positions = jnp.arange(tokens.shape[1])
        x = embed("token_embedding", config.vocab_size, tokens)
        return x + embed("position_embedding", config.max_position_embeddings, positions)


class TextEncoder(nn.Module):
    """Token ids [B, T] -> outputs of the last layer norm [B, T, D], which are Stable Diffusion's context.

    Padding is not masked; attention is causal, so that padding after a prompt does not change the prompt's outputs.

    Raises:
      ValueError: more tokens than `max_position_embeddings`.
    """

    config: TextConfig

    @nn.compact
    def __call__(self, tokens: jax.Array) -> jax.Array:
        if tokens.shape[1] > self.config.max_position_embeddings:
            most = self.config.max_position_embeddings
            raise ValueError(f"{tokens.shape[1]} tokens: this encoder reads max_position_embeddings={most} at most")
        x = TextEmbeddings(self.config, name="embeddings")(tokens)
        x = Encoder(self.config, causal=True, name="encoder")(x)
        return _norm("final_layer_norm", self.config)(x)


class VisionEmbeddings(nn.Module):
    """Images [B, H, W, 3] -> [B, 1 + patches, D]: a class token and one token a patch, plus position embeddings."""

    config: VisionConfig

    @nn.compact
    def __call__(self, images: jax.Array) -> jax.Array:
        config, width = self.config, self.config.hidden_size
        size = (config.patch_size, config.patch_size)
        split = Conv(width, size, size, padding="VALID", use_bias=False, dtype=config.dtype, name="patch_embedding")
        patches = split(images)
        first = self.param("class_embedding", nn.initializers.normal(width**-0.5), (width,))
        first = jnp.broadcast_to(first.astype(config.dtype), (images.shape[0], 1, width))
        x = jnp.concatenate([first, patches.reshape(images.shape[0], -1, width)], 1)
        return x + nn.Embed(x.shape[1], width, dtype=config.dtype, name="position_embedding")(jnp.arange(x.shape[1]))


class VisionEncoder(nn.Module):
    """Maps images [B, S, S, 3] from `pixels` to embeddings [B, projection_dim], not normalised.

    Raises:
      ValueError: images of another size.
    """

    config: VisionConfig

    @nn.compact
    def __call__(self, images: jax.Array) -> jax.Array:
        config = self.config
        if images.shape[1:] != (config.image_size, config.image_size, 3):
            raise ValueError(f"images {images.shape}: this encoder reads {config.image_size}x{config.image_size}x3")
        x = _norm("pre_layrnorm", config)(VisionEmbeddings(config, name="embeddings")(images))
        x = Encoder(config, causal=False, name="encoder")(x)
        x = _norm("post_layernorm", config)(x[:, 0])
        return nn.Dense(config.projection_dim, use_bias=False, dtype=config.dtype, name="visual_projection")(x)


class CLIP(nn.Module):
    """Both encoders, each with a projection to the space that they share.

    Called with token ids [B, T] and images [B, S, S, 3] from `pixels`, it returns the embeddings of the images and of
    the texts, [B, projection_dim] each, not normalised, and the logarithm of the scale of their cosines, [].
    """

    config: CLIPConfig

    def setup(self):
        text, vision = self.config.text_config, self.config.vision_config
        self.text_model, self.vision_model = TextEncoder(text), VisionEncoder(vision)
        self.text_projection = nn.Dense(vision.projection_dim, use_bias=False, dtype=text.dtype)
        self.logit_scale = self.param("logit_scale", nn.initializers.constant(LOGIT_SCALE), ())

    def __call__(self, tokens: jax.Array, images: jax.Array) -> tuple[jax.Array, jax.Array, jax.Array]:
        return self.embed_images(images), self.embed_texts(tokens), self.logit_scale

    def embed_images(self, images: jax.Array) -> jax.Array:
        return self.vision_model(images)

    def embed_texts(self, tokens: jax.Array) -> jax.Array:
        """Returns the projected output at each prompt's first end token, [B, projection_dim]."""
        end = self.config.text_config.eos_token_id
        ends = jnp.argmax(tokens if end == HIGHEST else tokens == end, -1)
        pooled = jnp.take_along_axis(self.text_model(tokens), ends[:, None, None], 1)[:, 0]
        return self.text_projection(pooled)


def unit(embeddings: jax.Array) -> jax.Array:
    """Divides embeddings [..., D] by their Euclidean norms."""
    return embeddings / jnp.linalg.norm(embeddings, axis=-1, keepdims=True)


def pixels(images: jax.Array, size: int) -> jax.Array:
    """Prepares images [B, H, W, 3] in [0, 1] for CLIP: [B, size, size, 3].

    It scales the shorter side to `size` (bicubic), crops the centre and standardises the channels.
    """
    batch, height, width, channels = images.shape
    height, width = (max(size, round(side * size / min(height, width))) for side in (height, width))
    scaled = jax.image.resize(images, (batch, height, width, channels), "bicubic")
    top, left = (height - size) // 2, (width - size) // 2
    scaled = jnp.clip(scaled[:, top : top + size, left : left + size], 0.0, 1.0)
    return (scaled - jnp.asarray(PIXEL_MEAN)) / jnp.asarray(PIXEL_STD)
