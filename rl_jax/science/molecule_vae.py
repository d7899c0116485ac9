"""A variational autoencoder of molecules written as tokens, with GRUs that may have a stack.

Born et al. 2021 (PaccMann^RL), iScience 24:102269. The decoder starts from a latent and writes token after token; in
reinforcement learning the latent comes from elsewhere, such as the profile of a target, and the decoder alone trains.
The stack is that of Joulin and Mikolov 2015, arXiv 1503.01007, section 3.2: a memory that a cell pushes to and pops
from by shares, so that it is differentiable, and whose top row it reads.
"""

import dataclasses

import chex
import flax.linen as nn
import jax
import jax.numpy as jnp

from rl_jax.core.program import Key, Metrics, PyTree
from rl_jax.networks.dropout import Dropout
from rl_jax.science.molecules import PAD, START, UNKNOWN

Carry = tuple[tuple[jax.Array, ...], jax.Array]  # hidden states [B, H] by layer; the stack [B, depth, width]


@dataclasses.dataclass(frozen=True)
class MoleculeConfig:
    """The shape of an autoencoder.

    Attributes:
      vocab_size: of the tokens.
      width, num_layers: of encoder and decoder.
      embedding: of the tokens.
      latent: numbers of a latent.
      stack_depth, stack_width: of the memory; depth 0 for none.
      every_step: whether the decoder reads the latent at every token too and not only starts from it. The authors'
        only starts from it.
      dropout: the share of the hidden units that are dropped before the output, in training.
    """

    vocab_size: int
    width: int = 128
    num_layers: int = 1
    embedding: int = 32
    latent: int = 64
    stack_depth: int = 0
    stack_width: int = 50
    every_step: bool = True
    dropout: float = 0.0


def updated_stack(stack: jax.Array, shares: jax.Array, pushed: jax.Array) -> jax.Array:
    """push * (the pushed row over the stack) + pop * (the stack without its top) + keep * stack, [B, D, W].

    Args:
      stack: [B, D, W], the top first.
      shares: [B, 3], of push, pop and keep; they add up to 1.
      pushed: [B, W].
    """
    chex.assert_rank([stack, shares, pushed], [3, 2, 2])
    after_push = jnp.concatenate([pushed[:, None], stack[:, :-1]], 1)
    after_pop = jnp.concatenate([stack[:, 1:], jnp.zeros_like(stack[:, :1])], 1)
    push, pop, keep = (shares[:, i, None, None] for i in range(3))
    return push * after_push + pop * after_pop + keep * stack


class Reader(nn.Module):
    """GRUs over tokens, a token at a time, with the stack beside them."""

    config: MoleculeConfig

    def setup(self):
        config = self.config
        self.embed = nn.Embed(config.vocab_size, config.embedding)
        self.cells = [nn.GRUCell(config.width) for _ in range(config.num_layers)]
        if config.stack_depth:
            self.shares, self.pushed = nn.Dense(3), nn.Dense(config.stack_width)

    def empty(self, hidden: tuple[jax.Array, ...]) -> Carry:
        """The carry before the first token, given hidden states [B, H] by layer."""
        depth = max(self.config.stack_depth, 1)
        return hidden, jnp.zeros((len(hidden[0]), depth, self.config.stack_width))

    def __call__(self, carry: Carry, tokens: jax.Array, condition: jax.Array | None) -> tuple[Carry, jax.Array]:
        """Reads tokens [B], and a condition [B, L] beside them; returns what the last layer says, [B, H]."""
        (hidden, stack), parts = carry, [self.embed(tokens)]
        parts += [] if condition is None else [condition]
        parts += [stack[:, 0]] if self.config.stack_depth else []
        x, after = jnp.concatenate(parts, -1), []
        for cell, state in zip(self.cells, hidden, strict=True):
            state, x = cell(state, x)
            after.append(state)
        if self.config.stack_depth:
            stack = updated_stack(stack, jax.nn.softmax(self.shares(x)), jax.nn.sigmoid(self.pushed(x)))
        return (tuple(after), stack), x


class MoleculeVAE(nn.Module):
    """Encoder and decoder; `start` and `write` are the decoder's."""

    config: MoleculeConfig

    def setup(self):
        config = self.config
        self.encoder, self.decoder = Reader(config), Reader(config)
        self.gaussian = nn.Dense(2 * config.latent)
        self.first, self.logits = nn.Dense(config.num_layers * config.width), nn.Dense(config.vocab_size)
        self.dropout = Dropout(config.dropout)

    def begin(self, size: int) -> Carry:
        return self.encoder.empty((jnp.zeros((size, self.config.width)),) * self.config.num_layers)

    def read(self, carry: Carry, tokens: jax.Array) -> Carry:
        """The encoder after one more token; padding changes nothing."""
        (hidden, stack), _ = self.encoder(carry, tokens, None)
        here = (tokens != PAD)[:, None]
        kept = tuple(jnp.where(here, new, old) for new, old in zip(hidden, carry[0], strict=True))
        return kept, jnp.where(here[..., None], stack, carry[1])

    def posterior(self, carry: Carry) -> tuple[jax.Array, jax.Array]:
        """Mean and standard deviation of the latents, [B, L]."""
        mean, log_variance = jnp.split(self.gaussian(carry[0][-1]), 2, -1)
        return mean, jnp.exp(0.5 * jnp.clip(log_variance, -20.0, 10.0))

    def start(self, latents: jax.Array) -> Carry:
        return self.decoder.empty(tuple(jnp.split(self.first(latents), self.config.num_layers, -1)))

    def write(self, carry: Carry, tokens: jax.Array, latents: jax.Array) -> tuple[Carry, jax.Array]:
        """What follows tokens [B]: hidden units [B, H], of which `head` makes logits."""
        return self.decoder(carry, tokens, latents if self.config.every_step else None)

    def head(self, hidden: jax.Array, deterministic: bool = True) -> jax.Array:
        """Logits [..., V]; those of padding, start and unknown are out of reach."""
        logits = self.logits(self.dropout(hidden, deterministic))
        never = jnp.isin(jnp.arange(self.config.vocab_size), jnp.asarray([PAD, START, UNKNOWN]))
        return jnp.where(never, -1e9, logits)

    def __call__(self, tokens: jax.Array) -> jax.Array:
        """Reads and writes tokens [B]; used by `init`."""
        carry = self.read(self.begin(len(tokens)), tokens)
        latents, _ = self.posterior(carry)
        return self.head(self.write(self.start(latents), tokens, latents)[1])


def init_molecule_vae(config: MoleculeConfig, key: Key) -> PyTree:
    """Fresh parameters."""
    return MoleculeVAE(config).init(key, jnp.zeros(1, jnp.int32))["params"]


def encoded(config: MoleculeConfig, params: PyTree, tokens: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Mean and standard deviation [B, L] of the latents of molecules, tokens int32 [B, T]."""
    module = MoleculeVAE(config)

    def one(carry: Carry, tokens: jax.Array) -> tuple[Carry, None]:
        return module.apply({"params": params}, carry, tokens, method="read"), None

    begin = module.apply({"params": params}, len(tokens), method="begin")
    return module.apply({"params": params}, jax.lax.scan(one, begin, tokens.T)[0], method="posterior")


def hidden_units(config: MoleculeConfig, params: PyTree, latents: jax.Array, states: jax.Array) -> jax.Array:
    """The decoder's last layer [B, T, H] after each of the tokens states int32 [B, T], given latents [B, L]."""
    module = MoleculeVAE(config)

    def one(carry: Carry, tokens: jax.Array) -> tuple[Carry, jax.Array]:
        return module.apply({"params": params}, carry, tokens, latents, method="write")

    start = module.apply({"params": params}, latents, method="start")
    return jax.lax.scan(one, start, states.T)[1].swapaxes(0, 1)


def divergence_from_normal(mean: jax.Array, deviation: jax.Array) -> jax.Array:
    """KL(N(mean, deviation^2) || N(0, 1)) [B], summed over the last axis."""
    return 0.5 * jnp.sum(jnp.square(mean) + jnp.square(deviation) - 1.0 - 2.0 * jnp.log(deviation), -1)


def molecule_loss(
    config: MoleculeConfig, params: PyTree, tokens: jax.Array, key: Key, *, kl_weight: jax.Array | float, keep: float
) -> tuple[jax.Array, Metrics]:
    """The cross-entropy of the tokens, summed over a molecule, + kl_weight * KL(q(z|x) || N(0, 1)); means over B.

    Args:
      tokens: int32 [B, 1 + T], from the start on; padding counts nowhere.
      kl_weight: w, which grows from 0 so that the latent is used before it costs.
      keep: the share of the decoder's input tokens that are kept; the others are "unknown", so that the latent has to
        say what they were.

    Source: Born et al. 2021, section Molecule generator; the dropped words are Bowman et al.'s 2016 (arXiv 1511.06349).
    """
    latent_key, keep_key, drop_key = jax.random.split(key, 3)
    states, targets = tokens[:, :-1], tokens[:, 1:]
    mean, deviation = encoded(config, params, tokens)
    latents = mean + deviation * jax.random.normal(latent_key, mean.shape)
    kept = (jax.random.uniform(keep_key, states.shape) < keep) | (states == START)
    hidden = hidden_units(config, params, latents, jnp.where(kept, states, UNKNOWN))
    logits = MoleculeVAE(config).apply(
        {"params": params}, hidden, config.dropout == 0, method="head", rngs={"dropout": drop_key}
    )
    log_probs = jnp.take_along_axis(jax.nn.log_softmax(logits), targets[..., None], -1)[..., 0]
    counted = (targets != PAD) & (targets != UNKNOWN)  # the unknown cannot be written
    cross_entropy = jnp.mean(jnp.sum(jnp.where(counted, -log_probs, 0.0), -1))
    divergence = jnp.mean(divergence_from_normal(mean, deviation))
    right = jnp.sum((jnp.argmax(logits, -1) == targets) & counted) / jnp.maximum(jnp.sum(counted), 1)
    loss = cross_entropy + kl_weight * divergence
    return loss, {
        "model/loss": loss, "model/cross_entropy": cross_entropy, "model/kl": divergence, "model/token_accuracy": right,
    }
