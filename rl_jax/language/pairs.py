"""Pairs of rows: two answers to a prompt that are compared, as the reward model and DPO read them."""

from collections.abc import Sequence

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np

from rl_jax.language.documents import PairDocuments
from rl_jax.language.rows import Document, Rows, pad
from rl_jax.language.spans import changes


class Pairs(flax.struct.PyTreeNode):
    """P pairs.

    Attributes:
      first: the chosen answers, or answers that were judged by themselves.
      second: the rejected answers, or, for KTO, answers to other prompts.
      desirable: [P] bool, whether `first` is a good answer; true of all chosen ones.
      margin: [P] float32, by how much the chosen one is better, where that is known; else 0.
    """

    first: Rows
    second: Rows
    desirable: jax.Array
    margin: jax.Array

    def __len__(self) -> int:
        return self.margin.shape[0]

    def rows(self) -> Rows:
        """All 2 P rows, those of a pair side by side, so that a pair stays on its device."""
        return jax.tree.map(
            lambda x, y: jnp.stack([x, y], 1).reshape(2 * x.shape[0], *x.shape[1:]), self.first, self.second
        )


def apart(values: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Values [2 P, ...] of `Pairs.rows` as those of the first and of the second rows, [P, ...] each."""
    first, second = values.reshape(-1, 2, *values.shape[1:]).swapaxes(0, 1)
    return first, second


def compared(pairs: Sequence[PairDocuments], length: int) -> Pairs:
    """Chosen and rejected answers, padded to `length`."""
    chosen, rejected, margins = zip(*pairs, strict=True)
    return Pairs(
        pad(chosen, length), pad(rejected, length), np.ones(len(pairs), bool), np.asarray(margins, np.float32)
    )


def with_change_weights(
    pairs: Pairs, changed: float, *, normalised: bool = True, shortest: int = 1, one_sided: bool = True
) -> Pairs:
    """Pairs whose rows have weights: 1 on the tokens that both answers have, `changed` on those in which they differ.

    With them `dpo`'s score "weighted" is dense DPO. Answers are compared as token ids, for a change of words moves the
    bounds of tokens.

    Args:
      pairs: each row one document.
      changed: gamma; 1 weighs all tokens the same.
      normalised: whether an answer's weights are divided by their sum, N = |unchanged| + gamma |changed|.
      shortest, one_sided: as `spans.changes`; the authors' code has 3 and False.

    Source: RLHF-V (Yu et al. 2023), arXiv 2312.00849, equations 2 and 3.
    """
    weights = [np.array(rows.mask, np.float32) for rows in (pairs.first, pairs.second)]
    for number in range(len(pairs)):
        places = [np.flatnonzero(x[number]) for x in weights]
        tokens = [rows.tokens[number][own] for rows, own in zip((pairs.first, pairs.second), places, strict=True)]
        for own, at, spans in zip(weights, places, changes(*tokens, shortest, one_sided), strict=True):
            for start, end in spans:
                own[number, at[start:end]] = changed
    if normalised:
        weights = [x / np.maximum(x.sum(-1, keepdims=True), 1e-9) for x in weights]
    first, second = (
        rows.replace(weights=own) for rows, own in zip((pairs.first, pairs.second), weights, strict=True)
    )
    return pairs.replace(first=first, second=second)


def judged(answers: Sequence[Document], length: int) -> Pairs:
    """Answers whose reward says whether they are good, each beside its prompt with the next answer to another one.

    What that joins is cut to `length`.

    Raises:
      ValueError: all are of one prompt, or all are good, or none.
    """
    if len({document.group for document in answers}) == 1:
        raise ValueError("all answers are to one prompt: KTO compares with answers to others")
    desirable = np.asarray([document.reward > 0 for document in answers])
    if desirable.all() or not desirable.any():
        raise ValueError(f"{desirable.sum()} of {len(answers)} answers are desirable: KTO learns from both kinds")
    others = []
    for at, own in enumerate(answers):
        following = (answers[(at + ahead) % len(answers)] for ahead in range(1, len(answers)))
        others.append(_with_answer(own, next(other for other in following if other.group != own.group), length))
    return Pairs(pad(answers, length), pad(others, length), desirable, np.zeros(len(answers), np.float32))


def _with_answer(own: Document, other: Document, length: int) -> Document:
    """The prompt of one document with the answer of another."""
    prompt, answer = int(np.argmax(own.mask > 0)), int(np.argmax(other.mask > 0))
    joined = {
        name: np.concatenate([getattr(own, name)[:prompt], getattr(other, name)[answer:]])[:length]
        for name in ("tokens", "mask", "log_probs")
    }
    return own._replace(**joined)
