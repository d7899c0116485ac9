"""What a molecule does to a target: predictors of activity from a fingerprint or from tokens, and a profile beside.

Born et al. 2021, iScience 24:102269 and MLST 2:025024; the attention form is that of Manica et al. 2019 (arXiv
1904.11223): convolutions of several widths over the molecule's tokens, of each of which every token is weighed by the
profile.
"""

from collections.abc import Sequence

import chex
import flax.linen as nn
import jax
import jax.numpy as jnp

from rl_jax.core.program import Metrics
from rl_jax.networks.mlp import MLP
from rl_jax.science.molecules import PAD

FORMS = ("fingerprint", "towers", "attention")


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
        x = nn.Embed(self.vocab_size, self.embedding)(molecules)
        there, scales = (molecules != PAD)[..., None], [x]
        scales += [nn.relu(nn.Conv(self.filters, (width,))(x)) for width in self.widths]
        weighed = []
        for scale in scales:
            by_token = nn.Dense(self.heads * self.attention)(scale)
            by_profile = nn.Dense(self.heads * self.attention, use_bias=False)(profiles)
            both = jnp.tanh(by_token + by_profile[:, None]).reshape(*scale.shape[:2], self.heads, self.attention)
            vector = self.param(f"vector_{len(weighed)}", nn.initializers.lecun_normal(), (self.heads, self.attention))
            scores = jnp.where(there, jnp.einsum("bthd,hd->bth", both, vector), -1e9)
            weights = jax.nn.softmax(scores, 1)
            weighed.append(jnp.einsum("bth,btf->bhf", weights, scale).reshape(len(x), -1))
        return MLP((*self.features, self.outputs))(jnp.concatenate(weighed, -1))


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
