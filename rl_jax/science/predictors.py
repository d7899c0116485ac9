"""What a molecule does to a target: predictors of activity from a fingerprint or from tokens, and a profile beside.

Born et al. 2021, iScience 24:102269 and MLST 2:025024; the attention form is that of Manica et al. 2019 (arXiv
1904.11223): convolutions of several widths over the molecule's tokens, of each of which every token is weighed by the
profile. The bimodal form is that of the authors' affinity model: tokens are weighed by the protein's amino acids, and
amino acids by the molecule's tokens.
"""

from collections.abc import Sequence

import chex
import flax.linen as nn
import jax
import jax.numpy as jnp

from rl_jax.core.program import Metrics
from rl_jax.networks.mlp import MLP
from rl_jax.science.activities import AMINO_ACIDS
from rl_jax.science.molecules import PAD

FORMS = ("fingerprint", "towers", "attention", "bimodal")


class FingerprintPredictor(nn.Module):
    """An MLP of the fingerprint and the profile side by side, [B, F] and [B, P] -> [B, outputs]."""

    features: Sequence[int] = (256, 128)
    outputs: int = 1

    @nn.compact
    def __call__(self, molecules: jax.Array, profiles: jax.Array) -> jax.Array:
        x = jnp.concatenate([molecules.astype(jnp.float32), profiles], -1)
        return MLP((*self.features, self.outputs))(x)


class TowersPredictor(nn.Module):
    """A tower for each side, then an MLP of both and of their product, [B, F] and [B, P] -> [B, outputs]."""

    features: Sequence[int] = (128, 128)
    outputs: int = 1

    @nn.compact
    def __call__(self, molecules: jax.Array, profiles: jax.Array) -> jax.Array:
        one = MLP(self.features, name="molecule")(molecules.astype(jnp.float32))
        other = MLP(self.features, name="target")(profiles)
        return MLP((self.features[-1], self.outputs), name="join")(jnp.concatenate([one, other, one * other], -1))


class AttentionPredictor(nn.Module):
    """Multiscale convolutional attention, tokens int32 [B, T] and profiles [B, P] -> [B, outputs].

    Of each width of convolution, and of the embedding itself, each head weighs the tokens by v . tanh(W x_t + U p) and
    gives the weighted mean; dense layers follow.
    """

    vocab_size: int
    features: Sequence[int] = (128, 64)
    outputs: int = 1
    widths: Sequence[int] = (3, 5, 11)
    filters: int = 64
    embedding: int = 32
    heads: int = 4
    attention: int = 64

    @nn.compact
    def __call__(self, molecules: jax.Array, profiles: jax.Array) -> jax.Array:
        weighed = []
        for scale in _scales(molecules, self.vocab_size, self.embedding, self.filters, self.widths):
            vector = self.param(f"vector_{len(weighed)}", nn.initializers.lecun_normal(), (self.heads, self.attention))
            weighed.append(_attended(scale, molecules != PAD, profiles[:, None], vector))
        return MLP((*self.features, self.outputs))(jnp.concatenate(weighed, -1))


class BimodalPredictor(nn.Module):
    """Attention both ways, tokens int32 [B, T] and amino acids int [B, S], 0 for none, -> [B, outputs].

    The scales of both, the narrowest convolution beside the narrowest and so on, weigh each other's places. Sizes are
    those of the authors' code (paccmann_predictor, bimodal_mca.py), which has batch normalisation and dropout too.
    """

    vocab_size: int
    features: Sequence[int] = (20,)
    outputs: int = 1
    widths: Sequence[tuple[int, int]] = ((3, 3), (5, 11), (11, 25))  # of tokens, of amino acids
    filters: int = 32
    embeddings: tuple[int, int] = (32, 35)
    attention: int = 16

    @nn.compact
    def __call__(self, molecules: jax.Array, targets: jax.Array) -> jax.Array:
        chex.assert_rank([molecules, targets], 2)
        sides = [
            _scales(tokens, size, embedding, self.filters, [pair[side] for pair in self.widths])
            for side, (tokens, size, embedding) in enumerate(zip(
                (molecules, targets), (self.vocab_size, len(AMINO_ACIDS) + 2), self.embeddings, strict=True))
        ]
        weighed = []
        for (own, other), tokens in zip((sides, sides[::-1]), (molecules, targets), strict=True):
            for scale, context in zip(own, other, strict=True):
                vector = self.param(f"vector_{len(weighed)}", nn.initializers.lecun_normal(), (1, self.attention))
                weighed.append(_attended(scale, tokens != PAD, context, vector))
        return MLP((*self.features, self.outputs))(jnp.concatenate(weighed, -1))


def _scales(
    tokens: jax.Array, vocab_size: int, embedding: int, filters: int, widths: Sequence[int]
) -> list[jax.Array]:
    """The embedding [B, T, E] of tokens [B, T] and a convolution [B, T, F] of it a width; layers of the caller."""
    x = nn.Embed(vocab_size, embedding)(tokens)
    return [x, *(nn.relu(nn.Conv(filters, (width,))(x)) for width in widths)]


def _attended(x: jax.Array, there: jax.Array, context: jax.Array, vector: jax.Array) -> jax.Array:
    """Places of x [B, T, F] that are there, bool [B, T], weighed by the context [B, S, G]; layers of the caller.

    Each of H heads weighs them by v . tanh(W x_t + c_t), v of vector [H, D], and gives the weighted mean: [B, H * F].
    c_t is U times the context where that is one place, and else a learnt mixture of U times its S places for each t.
    """
    width = vector.size
    by_place, by_context = nn.Dense(width)(x), nn.Dense(width, use_bias=False)(context)
    if context.shape[1] > 1:
        by_context = jnp.swapaxes(nn.Dense(x.shape[1])(jnp.swapaxes(by_context, 1, 2)), 1, 2)
    both = jnp.tanh(by_place + by_context).reshape(*x.shape[:2], *vector.shape)
    scores = jnp.where(there[..., None], jnp.einsum("bthd,hd->bth", both, vector), -1e9)
    return jnp.einsum("bth,btf->bhf", jax.nn.softmax(scores, 1), x).reshape(len(x), -1)


def squared_error(predicted: jax.Array, values: jax.Array) -> tuple[jax.Array, Metrics]:
    """The mean squared error of predictions [B] of values [B]."""
    chex.assert_equal_shape([predicted, values])
    loss = jnp.mean(jnp.square(predicted - values))
    return loss, {"model/loss": loss}


def masked_cross_entropy(logits: jax.Array, labels: jax.Array) -> tuple[jax.Array, Metrics]:
    """The binary cross-entropy of logits [...] and labels [...] of 0 and 1, over those that are known: not NaN."""
    chex.assert_equal_shape([logits, labels])
    known = jnp.isfinite(labels)
    labels = jnp.where(known, labels, 0.0)
    terms = jax.nn.softplus(logits) - labels * logits
    loss = jnp.sum(jnp.where(known, terms, 0.0)) / jnp.maximum(jnp.sum(known), 1)
    return loss, {"model/loss": loss}
