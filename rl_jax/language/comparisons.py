"""Which of a model's answers are compared: from scores of n answers to each of P prompts to pairs of a better and a
worse one.

Ties and equal answers teach nothing and are left out, as are answers without a score (NaN). Everything is plain
arrays on the host; `documents` turns what was chosen into documents for `language.pairs`.
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np

from rl_jax.language.documents import PairDocuments
from rl_jax.language.rows import Document
from rl_jax.language.sampler import Samples


class Comparisons(NamedTuple):
    """K pairs of answers.

    Attributes:
      prompt: [K] int, the row of the scores.
      better, worse: [K] int, their columns.
      margin: [K] float64, by how much the better one's score is the higher one.
    """

    prompt: np.ndarray
    better: np.ndarray
    worse: np.ndarray
    margin: np.ndarray

    def __len__(self) -> int:
        return len(self.prompt)

    def take(self, which: np.ndarray) -> "Comparisons":
        """Those of these numbers, or where this mask says so."""
        return Comparisons(*(x[which] for x in self))


def distinct(samples: Samples, n: int) -> np.ndarray:
    """[P, n] int of host samples [P n, T]: answers of a prompt that are the same tokens have the same number."""
    answered = np.arange(samples.tokens.shape[1]) >= np.asarray(samples.prompt_lengths)[:, None]
    tokens = np.where(answered & (np.arange(samples.tokens.shape[1]) < samples.lengths[:, None]), samples.tokens, -1)
    return np.unique(tokens, axis=0, return_inverse=True)[1].reshape(-1, n)


def best_and_worst(scores: np.ndarray, same: np.ndarray | None = None) -> Comparisons:
    """The answer of the highest score over that of the lowest one, at most one pair a prompt; the first ones of ties.

    Args:
      scores: [P, n].
      same: [P, n], as `distinct` has it; without it answers of different scores are different.

    Source: the pairs of RLHF Workflow (Dong et al. 2024), arXiv 2405.07863, section 3.2.
    """
    best = np.argmax(np.where(np.isnan(scores), -np.inf, scores), axis=1)
    worst = np.argmin(np.where(np.isnan(scores), np.inf, scores), axis=1)
    return _useful(scores, same, np.arange(len(scores)), best, worst)


def best_and_random(scores: np.ndarray, rng: np.random.Generator, same: np.ndarray | None = None) -> Comparisons:
    """The best answer over a random other one, at most one pair a prompt; arguments as `best_and_worst`."""
    best = np.argmax(np.where(np.isnan(scores), -np.inf, scores), axis=1)
    other = rng.integers(scores.shape[1] - 1, size=len(scores))
    return _useful(scores, same, np.arange(len(scores)), best, other + (other >= best))


def combinations(
    scores: np.ndarray, rng: np.random.Generator, same: np.ndarray | None = None, least: float = 0.0, most: int = 0
) -> Comparisons:
    """All pairs of a prompt's answers whose scores differ by `least` or more, in the order of the prompts.

    Args:
      most: pairs of a prompt, drawn at random, so that prompts with many do not dominate; 0 for all.

    Source: RLAIF-V (Yu et al. 2024), arXiv 2405.17220, and the authors' code: differences of 1 or more, 2 a prompt.
    """
    first, second = np.triu_indices(scores.shape[1], 1)
    prompt = np.repeat(np.arange(len(scores)), len(first))
    found = _useful(scores, same, prompt, np.tile(first, len(scores)), np.tile(second, len(scores)))
    found = found.take(found.margin >= least)
    if not most:
        return found
    order = rng.permutation(len(found))
    order = order[np.argsort(found.prompt[order], kind="stable")]
    turn = np.arange(len(order)) - np.searchsorted(found.prompt[order], found.prompt[order])
    return found.take(np.sort(order[turn < most]))


def against(scores: np.ndarray, anchor: int | np.ndarray, same: np.ndarray | None = None) -> Comparisons:
    """Every answer with the anchor answer of its prompt, whichever is the better one.

    Args:
      scores: [P, n], the anchor's own among them.
      anchor: its column, one for all or [P]. An answer that the model has not given, such as a reference answer, is
        put beside its answers as a column more.
    """
    size, n = scores.shape
    anchors = np.broadcast_to(anchor, (size,))
    prompt = np.repeat(np.arange(size), n)
    return _useful(scores, same, prompt, np.tile(np.arange(n), size), np.repeat(anchors, n))


def _useful(
    scores: np.ndarray, same: np.ndarray | None, prompt: np.ndarray, first: np.ndarray, second: np.ndarray
) -> Comparisons:
    """Pairs in the order of their scores, without those that say nothing."""
    margin = scores[prompt, first] - scores[prompt, second]
    kept = np.nan_to_num(margin) != 0.0
    if same is not None:
        kept &= same[prompt, first] != same[prompt, second]
    ahead = margin > 0
    better, worse = np.where(ahead, first, second), np.where(ahead, second, first)
    return Comparisons(prompt, better, worse, np.abs(margin)).take(kept)


def annotated(found: Comparisons, sharpness: float, rng: np.random.Generator) -> Comparisons:
    """The pairs as an annotator labels them: right with probability sigmoid(sharpness * margin), else turned around.

    Their margins are negative then, for they are those of the scores.
    """
    right = rng.random(len(found)) < 1.0 / (1.0 + np.exp(-sharpness * found.margin))
    better, worse = np.where(right, found.better, found.worse), np.where(right, found.worse, found.better)
    return Comparisons(found.prompt, better, worse, np.where(right, found.margin, -found.margin))


# Length


def length_balanced(found: Comparisons, lengths: np.ndarray) -> Comparisons:
    """The pairs without those whose better answer is much the shorter one, so that short answers do not win by that.

    Of thresholds 0, 0.02, ..., 0.98 on (|worse| - |better|) / |worse| that one is taken which leaves the mean lengths
    of better and of worse answers nearest to each other, relative to that of the worse; the larger one of equals. All
    pairs are kept where none does better than they.

    Args:
      lengths: [P, n], in tokens.

    Source: RLAIF-V (Yu et al. 2024), arXiv 2405.17220, and the authors' code.
    """
    better, worse = (lengths[found.prompt, column].astype(np.float64) for column in (found.better, found.worse))
    shortened = (worse - better) / np.maximum(worse, 1.0)

    def gap(kept: np.ndarray) -> float:
        if not kept.any():
            return np.inf
        return abs(better[kept].mean() - worse[kept].mean()) / max(worse[kept].mean(), 1.0)

    choices = [np.ones(len(found), bool), *(shortened <= threshold for threshold in np.arange(49, -1, -1) * 0.02)]
    return found.take(min(choices, key=gap))


# Tournaments


def knockout(beats: Callable[[np.ndarray, np.ndarray], np.ndarray], size: int, n: int) -> np.ndarray:
    """[P] int, the winner among n answers to each of P prompts after n - 1 comparisons each, round by round.

    Args:
      beats: (first [P, k], second [P, k]) -> bool [P, k], whether the first answer of each pair of columns wins. With
        its sign turned around the tournament finds the worst answer.
      size: P.

    Source: RLHF Workflow (Dong et al. 2024), arXiv 2405.07863, section 2.2, which names a tournament of linear cost.
    """
    left = np.tile(np.arange(n), (size, 1))
    while left.shape[1] > 1:
        even = left.shape[1] // 2 * 2
        first, second, waiting = left[:, 0:even:2], left[:, 1:even:2], left[:, even:]
        left = np.concatenate([np.where(beats(first, second), first, second), waiting], axis=1)
    return left[:, 0]


# Documents


def sampled_documents(samples: Samples, n: int, groups: Sequence[int] | None = None) -> list[list[Document]]:
    """Host samples [P n, T] as documents, n of each prompt: what was drawn is learnt, with its log-probs.

    Args:
      groups: [P], the prompts' numbers; their rows if left out.
    """
    found: list[list[Document]] = []
    for row, (tokens, length) in enumerate(zip(np.asarray(samples.tokens), samples.lengths, strict=True)):
        mask = np.asarray(samples.sampled[row, :length], np.float32)
        log_probs = np.asarray(samples.behaviour_log_probs[row, :length], np.float32)
        group = row // n if groups is None else int(groups[row // n])
        if row % n == 0:
            found.append([])
        found[-1].append(Document(
            tokens[:length].astype(np.int32), mask, log_probs, group, truncated=bool(samples.truncated[row])
        ))
    return found


def documents(found: Comparisons, answers: Sequence[Sequence[Document]]) -> list[PairDocuments]:
    """The pairs as documents; `answers` are those of each prompt, in the order of the scores."""
    return [
        PairDocuments(answers[prompt][better], answers[prompt][worse], float(margin))
        for prompt, better, worse, margin in zip(*found, strict=True)
    ]


def truncated_at(document: Document, end: int) -> Document:
    """The first `end` tokens of a document, such as up to a step of its answer: no token ends it.

    Raises:
      ValueError: nothing of its answer is left.
    """
    if not document.mask[:end].any():
        raise ValueError(f"the first {end} tokens of a document have nothing to learn: cut it further back")
    cut = {name: getattr(document, name)[:end] for name in ("tokens", "mask", "log_probs")}
    return document._replace(**cut, truncated=end < len(document.tokens) or document.truncated)
