"""Attention of grouped queries, in one place: by a mask in XLA, or by lengths in cuDNN where that agrees with XLA.

A row that holds one document, padded on the right, needs no mask: cuDNN reads its length and never forms the [T, T]
scores. Packed rows, which hold several documents, and decoding against a cache need the mask.
"""

import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
from absl import logging

# Queries that are scored at once: few enough for a processor's cache, and not so many blocks that compiling takes long.
BLOCK, MOST_BLOCKS = 64, 8
AGREES = 2e-2  # of outputs and gradients of order 1 in bfloat16, which has 8 bits


def attention(
    query: jax.Array, key: jax.Array, value: jax.Array, mask: jax.Array, lengths: jax.Array | None = None
) -> jax.Array:
    """softmax(q k / sqrt(d)) v among the tokens of whole rows, [B, T, H, d]; head h reads key-value head h // (H / K).

    The scores and their softmax are float32, whatever the arrays' dtype. A query that may see nothing (padding) gets
    some finite vector. Source: Ainslie et al. 2023 (arXiv 2305.13245), GQA.

    Args:
      query: [B, T, H, d].
      key, value: [B, T, K, d], where K divides H.
      mask: [B, T, T] bool, which keys a query may see; never a later one, whose scores are not even computed.
      lengths: [B], only where `mask` is what `causal` gives for rows of one segment, which has the first `lengths`
        places; lets cuDNN leave the mask out.
    """
    if lengths is not None and cudnn_agrees(query.dtype.name, *query.shape[2:], key.shape[2]):
        return _by_lengths(query, key, value, lengths)
    return _in_blocks(query, key, value, mask)


def _in_blocks(query: jax.Array, key: jax.Array, value: jax.Array, mask: jax.Array) -> jax.Array:
    """A block of queries after another, each with the keys up to its end; scores are computed again when the gradient
    needs them, so that memory is that of one block."""
    length = query.shape[1]
    size = max(BLOCK, -(-length // MOST_BLOCKS))
    key, value = jnp.swapaxes(key, 1, 2), jnp.swapaxes(value, 1, 2)
    blocks = []
    for start in range(0, length, size):
        end = start + size
        block = jax.checkpoint(attention_to_cache)
        blocks.append(block(query[:, start:end], key[:, :, :end], value[:, :, :end], mask[:, start:end, :end]))
    return jnp.concatenate(blocks, axis=1)


def attention_to_cache(query: jax.Array, keys: jax.Array, values: jax.Array, mask: jax.Array) -> jax.Array:
    """`attention` of queries [B, T, H, d] to keys and values with heads first, [B, K, S, d]; mask [B, T, S] bool.

    Heads come first because a product of a head's matrices then reads them in order.
    """
    batch, count, heads, width = query.shape
    grouped = query.reshape(batch, count, keys.shape[1], -1, width).transpose(0, 2, 3, 1, 4)
    scores = jnp.einsum("bkgtd,bksd->bkgts", grouped, keys, preferred_element_type=jnp.float32) / math.sqrt(width)
    scores = jnp.where(mask[:, None, None], scores, jnp.finfo(jnp.float32).min)
    weights = jnp.exp(scores - jax.lax.stop_gradient(jnp.max(scores, axis=-1, keepdims=True)))
    seen = jnp.einsum("bkgts,bksd->bkgtd", weights.astype(values.dtype), values, preferred_element_type=jnp.float32)
    # Divided after the product, which has fewer entries than the weights.
    seen = seen / jnp.sum(weights, axis=-1, keepdims=True)
    return seen.transpose(0, 3, 1, 2, 4).reshape(query.shape).astype(query.dtype)


def causal(segments: jax.Array) -> jax.Array:
    """Who sees whom, [B, T, T] bool: a token itself and what stands before it in its segment; segments [B, T], 0 =
    padding."""
    length = segments.shape[-1]
    alike = (segments[:, :, None] == segments[:, None, :]) & (segments > 0)[:, None, :]
    return alike & jnp.tril(jnp.ones((length, length), bool))


def _by_lengths(query: jax.Array, key: jax.Array, value: jax.Array, lengths: jax.Array) -> jax.Array:
    # cuDNN's lengths are 1 at least.
    lengths = jnp.maximum(lengths, 1).astype(jnp.int32)
    return jax.nn.dot_product_attention(
        query, key, value, is_causal=True, query_seq_lengths=lengths, key_value_seq_lengths=lengths,
        implementation="cudnn",
    )


@functools.cache
def cudnn_agrees(dtype: str, heads: int, width: int, kv_heads: int) -> bool:
    """Whether cuDNN's attention of such heads works here and gives XLA's outputs and gradients, tried once a process.

    cuDNN computes in bfloat16 and float16 alone, and its failures have been silent as well as loud, so it is neither
    trusted nor required: where it disagrees or fails, a warning says so and XLA computes.
    """
    if jax.default_backend() != "gpu" or dtype not in ("bfloat16", "float16"):
        return False
    try:
        # Also inside a trace, where plain calls would only be recorded.
        with jax.ensure_compile_time_eval():
            gap = _gap_to_xla(dtype, heads, width, kv_heads)
    except (ValueError, NotImplementedError, RuntimeError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        logging.warning("cuDNN's attention does not run here (%s): XLA computes it with a mask", reason)
        return False
    if not gap < AGREES:
        logging.warning("cuDNN's attention is %.3g off XLA's: XLA computes it with a mask", gap)
        return False
    return True


def _gap_to_xla(dtype: str, heads: int, width: int, kv_heads: int) -> float:
    """The largest difference of outputs and gradients on a row that is full and one that is padded."""
    rng = np.random.default_rng(0)
    length, lengths = 128, jnp.array([128, 77])
    query, key, value, weight = (
        jnp.asarray(rng.normal(size=(2, length, n, width)), dtype) for n in (heads, kv_heads, kv_heads, heads)
    )
    present = jnp.arange(length) < lengths[:, None]
    weight = jnp.where(present[..., None, None], weight, 0)  # what padding gets is not defined
    mask = causal(present.astype(jnp.int32))

    def outputs(by_lengths: bool) -> list[jax.Array]:
        def attend(*arrays: jax.Array) -> jax.Array:
            return _by_lengths(*arrays, lengths) if by_lengths else _in_blocks(*arrays, mask)

        out, back = jax.vjp(attend, query, key, value)
        return [jnp.where(present[..., None, None], out, 0), *back(weight)]

    pairs = zip(jax.jit(outputs, static_argnums=0)(True), jax.jit(outputs, static_argnums=0)(False), strict=True)
    gaps = [
        np.max(np.abs(np.asarray(a, np.float32) - np.asarray(b, np.float32))) / max(1.0, np.max(np.abs(b)))
        for a, b in pairs
    ]
    return float(np.max(gaps))
