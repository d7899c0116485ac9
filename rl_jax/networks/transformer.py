"""A transformer of GPT's kind: pre-norm blocks of self-attention and a perceptron on embedded tokens.

Radford et al. 2019, "Language Models are Unsupervised Multitask Learners" (GPT-2). What a token may see is an argument,
and what tokens are is the caller's: it embeds them and reads the last layer's output.
"""

import math

import flax.linen as nn
import jax
import jax.numpy as jnp

from rl_jax.networks.dropout import Dropout

INITIALIZER = nn.initializers.normal(0.02)  # GPT-2's, for every kernel and embedding; biases are zero
EPSILON = 1e-5  # of a LayerNorm, as in PyTorch


def causal_mask(present: jax.Array) -> jax.Array:
    """Which tokens each of T may see, [B, T, T] bool: itself and the earlier ones where `present` [B, T] is above 0."""
    length = present.shape[-1]
    return jnp.tril(jnp.ones((length, length), bool)) & (present[:, None, :] > 0)


def gelu(x: jax.Array) -> jax.Array:
    """x Phi(x), [...], of x [...], with the standard normal's cumulative Phi. flax.linen's goes by erfc, which takes a
    CPU twice the time."""
    return 0.5 * x * (1.0 + jax.lax.erf(x * math.sqrt(0.5)))


class SelfAttention(nn.Module):
    """Scaled dot-product attention with several heads: x [B, T, D], mask [B, T, T] bool -> [B, T, D].

    mask[b, i, j] says whether token i may see token j; a token that may see none gets the mean over all. A `prefix` is
    keys and values [B, P, D] before the tokens' own, and whether a row's tokens see them, [B] bool. Source: Vaswani et
    al. 2017 (arXiv 1706.03762), section 3.2.

    Attributes:
      num_heads: must divide D.
      dropout: rate on the attention weights.
    """

    num_heads: int
    dropout: float = 0.0

    @nn.compact
    def __call__(
        self, x: jax.Array, mask: jax.Array, deterministic: bool = True,
        prefix: tuple[jax.Array, jax.Array, jax.Array] | None = None,
    ) -> jax.Array:
        batch, length, width = x.shape
        if width % self.num_heads:
            raise ValueError(f"the width {width} does not divide over num_heads={self.num_heads}")
        heads = (batch, length, self.num_heads, width // self.num_heads)
        qkv = nn.Dense(3 * width, kernel_init=INITIALIZER, name="qkv")(x)
        query, key, value = (part.reshape(heads) for part in jnp.split(qkv, 3, axis=-1))
        if prefix is not None:
            before = [part.reshape(batch, -1, *heads[2:]) for part in prefix[:2]]
            key, value = jnp.concatenate([before[0], key], 1), jnp.concatenate([before[1], value], 1)
            seen = jnp.broadcast_to(prefix[2][:, None, None], (batch, length, prefix[0].shape[1]))
            mask = jnp.concatenate([seen, mask], -1)
        scores = jnp.einsum("bqhd,bkhd->bhqk", query, key) / math.sqrt(heads[-1])
        scores = jnp.where(mask[:, None], scores, jnp.finfo(scores.dtype).min)
        weights = Dropout(self.dropout)(nn.softmax(scores), deterministic)
        out = jnp.einsum("bhqk,bkhd->bqhd", weights, value).reshape(x.shape)
        return nn.Dense(width, kernel_init=INITIALIZER, name="out")(out)


class Block(nn.Module):
    """x + attention(norm(x)), then x + perceptron(norm(x)) with GELU and a hidden width of 4 D: [B, T, D] -> [B, T, D].

    Attributes:
      dropout: rate on the attention weights and on what is added to x.
    """

    num_heads: int
    dropout: float = 0.0

    @nn.compact
    def __call__(self, x: jax.Array, mask: jax.Array, deterministic: bool = True) -> jax.Array:
        attended = SelfAttention(self.num_heads, self.dropout, name="attention")(
            nn.LayerNorm(EPSILON)(x), mask, deterministic
        )
        x = x + Dropout(self.dropout)(attended, deterministic)
        hidden = nn.Dense(4 * x.shape[-1], kernel_init=INITIALIZER)(nn.LayerNorm(EPSILON)(x))
        hidden = nn.Dense(x.shape[-1], kernel_init=INITIALIZER)(gelu(hidden))
        return x + Dropout(self.dropout)(hidden, deterministic)


class Transformer(nn.Module):
    """Blocks one after another and a last LayerNorm: embedded tokens [B, T, D], mask [B, T, T] bool -> [B, T, D].

    A call that is not `deterministic` needs the key stream "dropout". Attributes: see Block.
    """

    num_layers: int
    num_heads: int
    dropout: float = 0.0

    @nn.compact
    def __call__(self, x: jax.Array, mask: jax.Array, deterministic: bool = True) -> jax.Array:
        for _ in range(self.num_layers):
            x = Block(self.num_heads, self.dropout)(x, mask, deterministic)
        return nn.LayerNorm(EPSILON)(x)
