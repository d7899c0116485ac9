"""What a decoder's hidden states say of tokens: log-probs, entropy, values, probabilities of labels.

Entry t speaks of token t given those before it, so it is read from the hidden state of token t - 1. No array
[B, T, V] is ever made: logits are computed a few tokens at a time and again in the backward pass.
"""

import functools

import jax
import jax.numpy as jnp

from rl_jax.language.decoder import logits


def token_log_probs(
    hidden: jax.Array, kernel: jax.Array, tokens: jax.Array, chunk: int = 64, entropy: bool = False
) -> tuple[jax.Array, jax.Array | None]:
    """Log-probs of the given tokens, and the entropy of the distributions that they are drawn from.

    Args:
      hidden: [B, T, D].
      kernel: [D, V], the head.
      tokens: [B, T].
      chunk: the tokens of each row whose logits are in memory at once, [B, chunk, V] float32.

    Returns:
      (log_probs [B, T] float32, entropy [B, T] in nats, or None where it is not asked for); entry 0 is 0. In packed
      rows the first entry of each document means nothing: its mask is 0.
    """
    size, length, width = hidden.shape
    chunk = min(chunk, max(length - 1, 1))
    count = -(-(length - 1) // chunk)
    pieces = ((0, 0), (0, count * chunk - (length - 1)))
    before = jnp.pad(hidden[:, :-1], (*pieces, (0, 0))).reshape(size, count, chunk, width).swapaxes(0, 1)
    after = jnp.pad(tokens[:, 1:], pieces).reshape(size, count, chunk).swapaxes(0, 1)

    @functools.partial(jax.checkpoint, prevent_cse=False)  # inside a scan nothing can be merged anyway
    def one(kernel: jax.Array, piece: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, jax.Array]:
        states, labels = piece
        scores = logits(states, kernel)
        normaliser = jax.nn.logsumexp(scores, axis=-1)
        log_probs = jnp.take_along_axis(scores, labels[..., None], axis=-1)[..., 0] - normaliser
        if not entropy:
            return log_probs, jnp.zeros_like(log_probs)
        return log_probs, normaliser - jnp.sum(jax.nn.softmax(scores) * scores, axis=-1)

    _, found = jax.lax.scan(lambda carry, piece: (carry, one(kernel, piece)), None, (before, after))
    log_probs, entropies = (
        jnp.pad(x.swapaxes(0, 1).reshape(size, count * chunk)[:, : length - 1], ((0, 0), (1, 0))) for x in found
    )
    return log_probs, entropies if entropy else None


def answer_log_probs(log_probs: jax.Array, mask: jax.Array) -> jax.Array:
    """[B], the sum over the tokens that count in each row, of [B, T] and [B, T]."""
    return jnp.sum(jnp.where(mask > 0, log_probs, 0.0), axis=-1)


def answer_lengths(mask: jax.Array) -> jax.Array:
    """[B], the tokens that count in each row, at least 1, as float32."""
    return jnp.maximum(jnp.sum(mask, axis=-1), 1.0)


def perplexity(log_probs: jax.Array, mask: jax.Array) -> jax.Array:
    """[B], exp of minus the mean log-prob of the target that the mask marks, under the context before it."""
    return jnp.exp(-answer_log_probs(log_probs, mask) / answer_lengths(mask))


def last_token(hidden: jax.Array, segments: jax.Array) -> jax.Array:
    """[B, D], the hidden state of each row's last token; segments [B, T] are 0 at padding."""
    last = jnp.maximum(jnp.sum(segments > 0, axis=-1) - 1, 0)
    return jnp.take_along_axis(hidden, last[:, None, None], axis=1)[:, 0]


def last_token_scalar(hidden: jax.Array, segments: jax.Array, head: jax.Array) -> jax.Array:
    """[B], a linear function of the hidden state of the last token, such as a reward; `head` is [D]."""
    return last_token(hidden, segments).astype(jnp.float32) @ head


def token_values(hidden: jax.Array, head: jax.Array) -> jax.Array:
    """[B, T], the value of what stands before token t, from the state of token t - 1; entry 0 is 0. `head` is [D]."""
    values = hidden[:, :-1].astype(jnp.float32) @ head
    return jnp.pad(values, ((0, 0), (1, 0)))


def label_probability(
    hidden: jax.Array, segments: jax.Array, kernel: jax.Array, labels: jax.Array
) -> tuple[jax.Array, jax.Array]:
    """Which of K single tokens comes next after each row.

    Args:
      labels: [K] int.

    Returns:
      (probabilities [B, K] among the labels, which sum to 1; mass [B], the probability of all of them together).
    """
    scores = logits(last_token(hidden, segments), kernel)
    among = scores[:, labels]
    mass = jnp.exp(jax.nn.logsumexp(among, axis=-1) - jax.nn.logsumexp(scores, axis=-1))
    return jax.nn.softmax(among), mass


def label_log_odds(
    hidden: jax.Array, segments: jax.Array, kernel: jax.Array, labels: tuple[int, int]
) -> jax.Array:
    """[B], by how much the logit of the first of two single tokens is above that of the second after each row.

    Its sigmoid is the probability of the first one of the two.
    """
    first, second = logits(last_token(hidden, segments), kernel[:, jnp.array(labels)]).T
    return first - second
