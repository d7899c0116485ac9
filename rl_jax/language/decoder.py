"""The decoder of Llama 2 and 3 and Qwen 2.5 and 3: RMSNorm, rotary positions, grouped queries, SwiGLU.

Touvron et al. 2023 (arXiv 2307.09288), Grattafiori et al. 2024 (arXiv 2407.21783), Yang et al. 2024 (arXiv 2412.15115)
and 2025 (arXiv 2505.09388). Training scans over stacked layers; decoding runs unstacked ones against a cache, so that
no step slices the stack again. Norms, softmax and head compute in float32, whatever the rest does.
"""

from dataclasses import dataclass
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from flax import struct

from rl_jax.core.mesh import FSDP, REPLICATE, Rule, path_name
from rl_jax.core.program import Key, PyTree
from rl_jax.language.attention import attention, attention_to_cache, causal
from rl_jax.language.rotary import Rotation, checked_scaling, rotate, rotations

INITIALIZER = nn.initializers.normal(0.02)  # of every kernel and embedding; biases are zero
# Heads and hidden units lie along `model`, the other dimension along `data` (FSDP). The first dimension is the layer's.
SHARDING_RULES: tuple[Rule, ...] = (
    (r"attention/[qkv]/kernel$", (None, "data", "model")),
    (r"attention/[qkv]/bias$", (None, "model")),
    (r"attention/o/kernel$", (None, "model", "data")),
    (r"mlp/(gate|up)/kernel$", (None, "data", "model")),
    (r"mlp/down/kernel$", (None, "model", "data")),
    (r"norm/scale$", REPLICATE),
    (r".*", FSDP),
)


@dataclass(frozen=True)
class DecoderConfig:
    """The shape of a decoder.

    Attributes:
      width: D of the residual stream.
      num_heads, num_kv_heads, head_dim: H, K and d of the attention; K divides H.
      hidden_width: of the SwiGLU.
      rope_theta: base of the rotary frequencies.
      rope_scaling: Hugging Face's dictionary (rotary.checked_scaling), or None.
      norm_eps: of every RMSNorm.
      tied: whether the head is the transposed embedding.
      qkv_bias: whether q, k and v have biases (Qwen 2.5).
      qk_norm: whether every head's q and k are normed (Qwen 3).
      context_length: most tokens of a row.

    Raises:
      ValueError: K does not divide H, d is odd, or the scaling is of another kind or lacks a field.
    """

    vocab_size: int
    width: int
    num_layers: int
    num_heads: int
    num_kv_heads: int
    head_dim: int
    hidden_width: int
    rope_theta: float = 10000.0
    rope_scaling: Any = None
    norm_eps: float = 1e-5
    tied: bool = False
    qkv_bias: bool = False
    qk_norm: bool = False
    context_length: int = 2048

    def __post_init__(self) -> None:
        if self.num_heads % self.num_kv_heads:
            raise ValueError(f"num_kv_heads={self.num_kv_heads} does not divide num_heads={self.num_heads}")
        if self.head_dim % 2:
            raise ValueError(f"head_dim={self.head_dim} is odd: rotary positions turn pairs")
        object.__setattr__(self, "rope_scaling", checked_scaling(self.rope_scaling))


class RMSNorm(nn.Module):
    """x / sqrt(mean(x^2) + eps) * scale over the last axis, in float32; the result has x's dtype or `dtype`.

    Zhang and Sennrich 2019, arXiv 1910.07467.
    """

    eps: float
    dtype: Any = None

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        scale = self.param("scale", nn.initializers.ones, (x.shape[-1],))
        wide = x.astype(jnp.float32)
        normed = wide * jax.lax.rsqrt(jnp.mean(wide * wide, axis=-1, keepdims=True) + self.eps)
        return (normed * scale.astype(jnp.float32)).astype(self.dtype or x.dtype)


class Sight(struct.PyTreeNode):
    """What the tokens of one call may see and where they stand, the same for every layer.

    Attributes:
      rotation: of their positions.
      mask: [B, T, S] bool.
      lengths: [B] where the mask is that of unpacked rows (`attention`), else None.
      slot: where the call's keys and values go in the cache; None where there is no cache.
    """

    rotation: Rotation
    mask: jax.Array
    lengths: jax.Array | None = None
    slot: jax.Array | None = None


KeysValues = tuple[jax.Array, jax.Array]  # [B, K, S, d] each


class Attention(nn.Module):
    """Attention of a layer, x [B, T, D] -> [B, T, D], and its keys and values with the call's written in."""

    config: DecoderConfig
    dtype: Any

    @nn.compact
    def __call__(
        self, x: jax.Array, sight: Sight, cache: KeysValues | None
    ) -> tuple[jax.Array, KeysValues | None]:
        config = self.config
        numbers = config.num_heads, config.num_kv_heads, config.num_kv_heads

        def heads(name: str, number: int) -> jax.Array:
            y = _linear(number * config.head_dim, self.dtype, name, config.qkv_bias)(x)
            return y.reshape(*y.shape[:-1], number, config.head_dim)

        query, key, value = (heads(name, number) for name, number in zip("qkv", numbers, strict=True))
        if config.qk_norm:
            query, key = RMSNorm(config.norm_eps, name="q_norm")(query), RMSNorm(config.norm_eps, name="k_norm")(key)
        query, key = rotate(query, sight.rotation), rotate(key, sight.rotation)
        if cache is None:
            seen = attention(query, key, value, sight.mask, sight.lengths)
        else:
            cache = tuple(
                jax.lax.dynamic_update_slice(old, jnp.swapaxes(new, 1, 2), (0, 0, sight.slot, 0))
                for old, new in zip(cache, (key, value), strict=True)
            )
            seen = attention_to_cache(query, *cache, sight.mask)
        return _linear(config.width, self.dtype, "o")(seen.reshape(*x.shape[:-1], -1)), cache


class SwiGLU(nn.Module):
    """down(silu(gate(x)) up(x)), [..., D] -> [..., D]. Shazeer 2020, arXiv 2002.05202."""

    config: DecoderConfig
    dtype: Any

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        gate = _linear(self.config.hidden_width, self.dtype, "gate")(x)
        up = _linear(self.config.hidden_width, self.dtype, "up")(x)
        return _linear(self.config.width, self.dtype, "down")(nn.silu(gate) * up)


class Layer(nn.Module):
    """x + attention(norm(x)), then x + mlp(norm(x)): [B, T, D] -> [B, T, D], and the layer's cache."""

    config: DecoderConfig
    dtype: Any

    @nn.compact
    def __call__(
        self, x: jax.Array, sight: Sight, cache: KeysValues | None = None
    ) -> tuple[jax.Array, KeysValues | None]:
        eps = self.config.norm_eps
        normed = RMSNorm(eps, name="input_norm")(x)
        attended, cache = Attention(self.config, self.dtype, name="attention")(normed, sight, cache)
        x = x + attended
        return x + SwiGLU(self.config, self.dtype, name="mlp")(RMSNorm(eps, name="post_norm")(x)), cache


def _linear(features: int, dtype: Any, name: str, bias: bool = False) -> nn.Dense:
    return nn.Dense(features, use_bias=bias, dtype=dtype, kernel_init=INITIALIZER, name=name)


class _Embedding(nn.Module):
    vocab_size: int
    width: int

    @nn.compact
    def __call__(self) -> jax.Array:
        return self.param("embedding", INITIALIZER, (self.vocab_size, self.width))


class _Head(nn.Module):
    width: int
    vocab_size: int

    @nn.compact
    def __call__(self) -> jax.Array:
        return self.param("kernel", INITIALIZER, (self.width, self.vocab_size))


class Decoder(nn.Module):
    """Rows of tokens -> the last layer's hidden states after the last norm, [B, T, D] float32; no head (`logits`).

    Attributes:
      dtype: of the layers' products; parameters are float32.
      remat: whether a layer is computed again in the backward pass, which then keeps one [B, T, D] a layer.
      packed: whether a row may hold several segments, or one that does not begin at its start. Where it is False, a GPU
        may use cuDNN.
    """

    config: DecoderConfig
    dtype: Any = jnp.float32
    remat: bool = False
    packed: bool = True

    @nn.compact
    def __call__(self, inputs: jax.Array, positions: jax.Array, segments: jax.Array) -> jax.Array:
        """Runs all layers.

        Args:
          inputs: tokens [B, T] int, or their embeddings [B, T, D] (of images, of mixtures of tokens).
          positions: [B, T] in each token's document.
          segments: [B, T], the document of a token, 1 and on; 0 is padding. A token sees its document up to itself.
        """
        config = self.config
        embedding = _Embedding(config.vocab_size, config.width, name="embed")()
        if not config.tied:
            _Head(config.width, config.vocab_size, name="head")()
        lengths = None if self.packed else jnp.sum(segments > 0, axis=-1)
        sight = Sight(_rotation(config, positions), causal(segments), lengths)
        # Otherwise products are kept, and only what is cheap is computed again: stacking all of it costs more.
        policy = None if self.remat else jax.checkpoint_policies.dots_with_no_batch_dims_saveable
        layer = nn.remat(Layer, prevent_cse=False, policy=policy)
        layers = nn.scan(
            layer, variable_axes={"params": 0}, split_rngs={"params": True}, in_axes=nn.broadcast,
            length=config.num_layers,
        )
        x, _ = layers(config, self.dtype, name="layers")(_enter(embedding, inputs, self.dtype), sight)
        return RMSNorm(config.norm_eps, jnp.float32, name="norm")(x)


def init_decoder(config: DecoderConfig, key: Key) -> PyTree:
    """Fresh parameters."""
    one = jnp.ones((1, 1), jnp.int32)
    return Decoder(config).init(key, one, one, one)["params"]


def _rotation(config: DecoderConfig, positions: jax.Array) -> Rotation:
    return rotations(config.head_dim, config.rope_theta, config.rope_scaling, positions)


def _enter(embedding: jax.Array, inputs: jax.Array, dtype: Any) -> jax.Array:
    return (embedding[inputs] if jnp.issubdtype(inputs.dtype, jnp.integer) else inputs).astype(dtype)


def embed(params: PyTree, tokens: jax.Array) -> jax.Array:
    """Embeddings [..., D] of tokens [...]."""
    return params["embed"]["embedding"][tokens]


def head_kernel(params: PyTree, config: DecoderConfig) -> jax.Array:
    """The head's kernel [D, V]."""
    return params["embed"]["embedding"].T if config.tied else params["head"]["kernel"]


def logits(hidden: jax.Array, kernel: jax.Array) -> jax.Array:
    """The next token's logits [..., V] float32 of hidden states [..., D] and the head's kernel [D, V]."""
    return jnp.matmul(hidden.astype(jnp.float32), kernel.astype(jnp.float32))


def unstack(params: PyTree, config: DecoderConfig, dtype: Any = None) -> PyTree:
    """The parameters with a list of layers in place of the stack, for `decode`: once, outside of its loop.

    Args:
      dtype: of the kernels and biases, so that no step casts them; as they are where it is not given.
    """

    def cast(path: tuple[Any, ...], x: jax.Array) -> jax.Array:
        return x if dtype is None or path_name(path).endswith("scale") else x.astype(dtype)

    stack = jax.tree_util.tree_map_with_path(cast, params["layers"])
    return params | {"layers": [jax.tree.map(lambda x, i=i: x[i], stack) for i in range(config.num_layers)]}


class Cache(struct.PyTreeNode):
    """Keys and values of the tokens so far.

    All rows write the same slots in a call; a row's padding takes slots too, which nothing sees. So writing is one
    slice, and rows of different lengths need no re-layout: a key carries its position in its rotation.

    Attributes:
      layers: (keys, values), [B, K, S, d] each, a layer.
      seen: [B, S] bool, the slots that hold tokens.
      used: slots that are taken, a scalar.
    """

    layers: list[KeysValues]
    seen: jax.Array
    used: jax.Array


def init_cache(config: DecoderConfig, batch: int, length: int, dtype: Any = jnp.float32) -> Cache:
    """An empty cache of `length` slots for `batch` rows; its dtype is that of `decode`'s layers."""
    shape = batch, config.num_kv_heads, length, config.head_dim
    layers = [(jnp.zeros(shape, dtype), jnp.zeros(shape, dtype)) for _ in range(config.num_layers)]
    return Cache(layers, jnp.zeros((batch, length), bool), jnp.zeros((), jnp.int32))


def extended(cache: Cache, slots: int) -> Cache:
    """The cache with so many empty slots more."""
    layers = jax.tree.map(lambda x: jnp.pad(x, [(0, 0), (0, 0), (0, slots), (0, 0)]), cache.layers)
    return cache.replace(layers=layers, seen=jnp.pad(cache.seen, [(0, 0), (0, slots)]))


def cache_bytes(config: DecoderConfig, batch: int, length: int, dtype: Any = jnp.float32) -> int:
    """Bytes of `init_cache`'s keys and values and of their marks."""
    values = 2 * config.num_layers * config.num_kv_heads * config.head_dim
    return batch * length * (values * jnp.dtype(dtype).itemsize + 1) + 4


def decode(
    config: DecoderConfig, unstacked: PyTree, tokens: jax.Array, positions: jax.Array, cache: Cache
) -> tuple[jax.Array, Cache]:
    """Hidden states [B, t, D] float32 of the next t tokens of every row, and the cache with these written in.

    Args:
      unstacked: parameters by `unstack`.
      tokens: [B, t] int, or embeddings [B, t, D].
      positions: [B, t] in the row's document; -1 is padding, which no token sees.
      cache: its caller jits this with the cache donated, or carries it through a loop; there must be t slots left.
    """
    batch, count = positions.shape
    slots = jnp.arange(cache.seen.shape[1])
    seen = jax.lax.dynamic_update_slice(cache.seen, positions >= 0, (0, cache.used))
    before = slots <= cache.used + jnp.arange(count)[:, None]
    mask = seen[:, None, :] & before
    sight = Sight(_rotation(config, positions), mask, slot=cache.used)
    dtype = cache.layers[0][0].dtype
    layer, written = Layer(config, dtype), []
    x = _enter(unstacked["embed"]["embedding"], tokens, dtype)
    for params, kept in zip(unstacked["layers"], cache.layers, strict=True):
        x, kept = layer.apply({"params": params}, x, sight, kept)
        written.append(kept)
    hidden = RMSNorm(config.norm_eps, jnp.float32).apply({"params": unstacked["norm"]}, x)
    return hidden, Cache(written, seen, cache.used + count)
