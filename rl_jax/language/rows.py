"""Rows: the one type of all training on text, without a split into prompt and answer, and how rows are made.

Entry t of every [B, T] field speaks of token t given the tokens before it, so that entry 0 of a document is never
learnt. Rows are left-aligned and padded on the right. What a policy has sampled comes here as tokens and is never
encoded again.
"""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np

WEIGHTS = ("token_mean", "sequence_mean", "prompt_mean")
NO_DOCUMENT = -1  # a [B] field of a row that holds several documents, or none


class TooLongError(ValueError):
    """A document outgrows the context."""


class Rows(flax.struct.PyTreeNode):
    """B rows of T tokens; fields are [B, T] unless said.

    Attributes:
      tokens: int32.
      mask: float32, 1 where the token was sampled by the policy that learns, or is to be learnt.
      segments: int32, 0 is padding; 1, 2, ... are the documents of a row.
      positions: int32, of a token in its document.
      log_probs: float32, of the policy that acted.
      weights: float32, see `weights`: every loss is sum(weights * terms).
      advantages: float32.
      group: [B] int32, which prompt a row answers.
      source: [B] int32, which data set or environment it comes from.
      policy_step: [B] int32, the step of the policy that sampled it.
      truncated: [B] bool, whether the answer was cut off; the mask does not say that.
      reward: [B] float32.
      values: float32, of a critic; None without one.
      reference_log_probs: float32; None where there is no reference, or it is not computed ahead.
      images: [B, ...]; None without any.
    """

    tokens: jax.Array
    mask: jax.Array
    segments: jax.Array
    positions: jax.Array
    log_probs: jax.Array
    weights: jax.Array
    advantages: jax.Array
    group: jax.Array
    source: jax.Array
    policy_step: jax.Array
    truncated: jax.Array
    reward: jax.Array
    values: jax.Array | None = None
    reference_log_probs: jax.Array | None = None
    images: jax.Array | None = None

    def __len__(self) -> int:
        return self.tokens.shape[0]

    def take(self, rows: jax.Array | np.ndarray) -> "Rows":
        """The rows of these numbers, in their order."""
        return jax.tree.map(lambda x: x[rows], self)


def left_aligned(tokens: jax.Array, lengths: jax.Array) -> tuple[jax.Array, jax.Array]:
    """(positions, segments), int32 like tokens [R, T], of one text a row that has these lengths [R]."""
    places = jnp.broadcast_to(jnp.arange(tokens.shape[1], dtype=jnp.int32), tokens.shape)
    inside = (places < lengths[:, None]).astype(jnp.int32)
    return places * inside, inside


def joined(*pieces: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, jax.Array]:
    """Texts one after the other: (tokens [R, L_1 + L_2 + ...], lengths [R]) of pieces (tokens [R, L_i], lengths [R]).

    For use inside of a compiled step; what is after a text is 0.
    """
    size, width = pieces[0][0].shape[0], sum(tokens.shape[1] for tokens, _ in pieces)
    found, start = jnp.zeros((size, width), jnp.int32), jnp.zeros(size, jnp.int32)
    for tokens, lengths in pieces:
        places = jnp.arange(tokens.shape[1])
        target = jnp.where(places < lengths[:, None], start[:, None] + places, width)  # outside: dropped
        found = found.at[jnp.arange(size)[:, None], target].set(tokens, mode="drop")
        start = start + lengths
    return found, start


def known_rows(mask: jax.Array | np.ndarray) -> jax.Array | np.ndarray:
    """[...] bool of masks [..., T]: the rows that something is learnt from. One that no check came to an end of has
    no such token."""
    return (mask > 0).any(-1)


class Document(NamedTuple):
    """One text: arrays [N] of its tokens, and what a row says of it as a whole."""

    tokens: np.ndarray
    mask: np.ndarray
    log_probs: np.ndarray
    group: int = 0
    source: int = 0
    policy_step: int = 0
    truncated: bool = False
    reward: float = 0.0


class Builder:
    """Grows one document piece by piece: a prompt, an answer, an observation, the next answer. Only appends.

    Args:
      vocab_size: of the model.
      context_length: the most tokens that the model reads.
    """

    def __init__(self, vocab_size: int, context_length: int):
        self._vocab_size, self._context_length = vocab_size, context_length
        self._tokens, self._mask, self._log_probs = [], [], []

    def append(self, tokens: Sequence[int], sampled: bool, log_probs: Sequence[float] | None = None) -> "Builder":
        """Adds tokens to the end and returns itself.

        Args:
          sampled: whether they are of the policy that learns (or to be learnt), and not given to it.
          log_probs: of the policy that acted, one a token; zeros if left out.

        Raises:
          TooLongError: the document outgrows the context.
          ValueError: a token is outside the vocabulary, there is nothing to be learnt among tokens that are, or the
            log-probs are not as many as the tokens.
        """
        tokens = [int(token) for token in tokens]
        wrong = next((token for token in tokens if not 0 <= token < self._vocab_size), None)
        if wrong is not None:
            raise ValueError(
                f"token {wrong} is outside the vocabulary of {self._vocab_size}: the tokenizer is another model's"
            )
        if sampled and not tokens:
            raise ValueError("an answer is empty: there is nothing to learn; leave it out")
        if log_probs is not None and len(log_probs) != len(tokens):
            raise ValueError(f"{len(tokens)} tokens with {len(log_probs)} log-probs: one a token")
        length = len(self._tokens) + len(tokens)
        if length > self._context_length:
            part = f"an answer of {len(tokens)}" if sampled else f"a prompt of {len(tokens)}"
            raise TooLongError(
                f"{part} tokens makes a document of {length}, longer than the context of {self._context_length}: "
                "shorten it or leave it out"
            )
        self._tokens += tokens
        self._mask += [float(sampled)] * len(tokens)
        self._log_probs += [0.0] * len(tokens) if log_probs is None else list(map(float, log_probs))
        return self

    def document(self, **whole: int | float | bool) -> Document:
        """What has been built; `whole` are fields of Document such as group and reward."""
        mask = np.asarray(self._mask, np.float32)
        mask[:1] = 0.0  # nothing stands before the first token
        return Document(np.asarray(self._tokens, np.int32), mask, np.asarray(self._log_probs, np.float32), **whole)


def pad(documents: Sequence[Document], length: int) -> Rows:
    """One row a document, padded to `length`, as numpy arrays.

    Raises:
      ValueError: a document is longer.
    """
    return _rows([[document] for document in documents], length)


def pack(documents: Sequence[Document], length: int) -> Rows:
    """As few rows as first-fit of the longest finds; segments keep documents apart. [B] fields say `NO_DOCUMENT`.

    Raises:
      ValueError: a document is longer than `length`.
    """
    bins: list[list[Document]] = []
    room: list[int] = []
    for document in sorted(documents, key=lambda document: -len(document.tokens)):
        size = len(document.tokens)
        at = next((at for at, left in enumerate(room) if left >= size), len(bins))
        if at == len(bins):
            bins.append([])
            room.append(length)
        bins[at].append(document)
        room[at] -= size
    rows = _rows(bins, length)
    none = np.full(len(bins), NO_DOCUMENT, np.int32)
    return rows.replace(group=none, source=none, policy_step=none)


def _rows(bins: Sequence[Sequence[Document]], length: int) -> Rows:
    tokens, segments, positions = (np.zeros((len(bins), length), np.int32) for _ in range(3))
    mask, log_probs = (np.zeros((len(bins), length), np.float32) for _ in range(2))
    for row, documents in enumerate(bins):
        start = 0
        for number, document in enumerate(documents, 1):
            size = len(document.tokens)
            if start + size > length:
                raise ValueError(
                    f"a document of {size} tokens does not fit a row of {length}: shorten it or leave it out"
                )
            place = row, slice(start, start + size)
            tokens[place], mask[place], log_probs[place] = document.tokens, document.mask, document.log_probs
            segments[place], positions[place] = number, np.arange(size)
            start += size
    first = [documents[0] for documents in bins]
    whole = {name: np.asarray([getattr(document, name) for document in first], kind) for name, kind in (
        ("group", np.int32), ("source", np.int32), ("policy_step", np.int32), ("truncated", bool),
        ("reward", np.float32),
    )}
    zeros = np.zeros_like(mask)
    return Rows(tokens, mask, segments, positions, log_probs, zeros, zeros.copy(), **whole)


def bucket(rows: Rows, lengths: Sequence[int]) -> Mapping[int, Rows]:
    """The rows by the shortest of `lengths` that holds them, cut to it; a length without rows is left out.

    Weights are of the whole batch: compute them before.

    Raises:
      ValueError: a row is longer than all lengths.
    """
    lengths = sorted(lengths)
    used = np.max(np.where(np.asarray(rows.segments) > 0, np.arange(1, rows.tokens.shape[1] + 1), 0), axis=1)
    if len(rows) and used.max() > lengths[-1]:
        raise ValueError(f"a row of {used.max()} tokens is longer than the largest bucket, {lengths[-1]}")
    chosen = np.searchsorted(lengths, used)

    def cut(x: jax.Array | np.ndarray, at: np.ndarray, length: int) -> jax.Array | np.ndarray:
        return x[at][:, :length] if x.ndim == 2 and x.shape == rows.tokens.shape else x[at]

    return {
        length: jax.tree.map(lambda x, at=np.flatnonzero(chosen == n), length=length: cut(x, at, length), rows)
        for n, length in enumerate(lengths) if np.any(chosen == n)
    }


def weights(
    mask: jax.Array, kind: str | float, *, segments: jax.Array | None = None, group: jax.Array | None = None
) -> jax.Array:
    """Float weights [B, T] of a whole global batch, so that every loss is sum(weights * terms).

    They are computed once a batch, before it is cut into micro-batches or spread over devices: then no cut, order,
    packing or padding changes a loss. Where nothing counts they are zero.

    Args:
      mask: [B, T].
      kind: "token_mean", over all tokens; "sequence_mean", over the tokens of a document, then over documents that
        have any; "prompt_mean", over all tokens of a prompt's answers, then over prompts; or a number, which divides.
      segments: [B, T], the documents of packed rows; each row is one without it.
      group: [B], or [B, T] of packed rows, the prompt; for "prompt_mean" alone.

    Raises:
      ValueError: the kind is unknown, or "prompt_mean" has no groups.

    Source: as `losses.aggregation`; the mean over prompts is ScaleRL's (Khatri et al. 2025, arXiv 2510.13786).
    """
    mask = jnp.asarray(mask, jnp.float32)
    if not isinstance(kind, str):
        return mask / kind
    if kind == "token_mean":
        return mask / jnp.maximum(jnp.sum(mask), 1.0)
    if kind not in WEIGHTS:
        raise ValueError(f"the weights are {kind!r}: choose {', '.join(WEIGHTS)} or a number")
    size, length = mask.shape
    if kind == "prompt_mean":
        if group is None:
            raise ValueError("the weights 'prompt_mean' need the group of each row")
        prompts = jnp.broadcast_to(jnp.reshape(jnp.asarray(group), (size, -1)), mask.shape)
        labels = jnp.unique(prompts, return_inverse=True, size=size * length)[1].reshape(mask.shape)
        number = size * length
    else:
        inside = jnp.zeros(mask.shape, jnp.int32) if segments is None else segments
        labels = jnp.arange(size)[:, None] * (length + 1) + inside
        number = size * (length + 1)
    tokens = jax.ops.segment_sum(mask.reshape(-1), labels.reshape(-1), number)
    counted = jnp.maximum(jnp.sum(tokens > 0), 1)
    return mask / jnp.maximum(tokens, 1.0)[labels] / counted
