"""How descriptions are labelled: claim by claim, as a whole, or by the truth; and how often the claims order two right.
"""

import functools
from collections.abc import Callable, Sequence

import chex
import numpy as np

from rl_jax.core.program import PyTree
from rl_jax.language import scenes
from rl_jax.language.comparisons import Comparisons
from rl_jax.language.decoder import DecoderConfig
from rl_jax.language.judge import Texts, judge_of, yes_no_of

# (scenes [R, SLOTS], descriptions) -> [R], the number of claims that are rejected
Rejected = Callable[[np.ndarray, Sequence[np.ndarray]], np.ndarray]


def errors(of: np.ndarray, descriptions: Sequence[np.ndarray]) -> np.ndarray:
    """[R], the claims that are not true of the scenes [R, SLOTS]."""
    pairs = zip(of, descriptions, strict=True)
    return np.array([len(scenes.wrong_mentions(scene, own)) for scene, own in pairs], float)


def rejected_by(decoder: DecoderConfig, params: PyTree) -> Rejected:
    """The labeller's own count: each claim is asked about by itself, and rejected where no is as probable as yes."""
    answer = _reader_of_claims(decoder)

    def rejected(of: np.ndarray, descriptions: Sequence[np.ndarray]) -> np.ndarray:
        asked = [scenes.claims(scene, own)[0] for scene, own in zip(of, descriptions, strict=True)]
        owner, tokens = np.repeat(np.arange(len(asked)), [len(own) for own in asked]), np.concatenate(asked)
        if not len(tokens):
            return np.zeros(len(asked))
        yes, no = answer(params, (tokens, np.full(len(tokens), tokens.shape[1], np.int32)))
        return np.bincount(owner, no >= yes, len(asked))

    return rejected


def judged_pairs(
    decoder: DecoderConfig, params: PyTree, prompts: Texts, answers: Texts, n: int, most: int, same: np.ndarray,
    rng: np.random.Generator,
) -> Comparisons:
    """`most` random pairs of the n answers to each prompt, in the order that a judge of whole answers says.

    Args:
      prompts, answers: on the host, [P n, ...], those of a prompt side by side.
      same: [P, n], as `comparisons.distinct`.
    """
    first, second = np.triu_indices(n, 1)
    drawn = rng.permuted(np.tile(np.arange(len(first)), (len(same), 1)), axis=1)[:, :most]
    prompt, drawn = np.repeat(np.arange(len(same)), drawn.shape[1]), drawn.reshape(-1)
    columns = first[drawn], second[drawn]
    kept = same[prompt, columns[0]] != same[prompt, columns[1]]
    prompt, one, other = (x[kept] for x in (prompt, *columns))

    def texts(of: Texts, column: np.ndarray) -> Texts:
        return tuple(np.asarray(x)[prompt * n + column] for x in of)

    wins = preferred(decoder, params, texts(prompts, one), texts(answers, one), texts(answers, other))
    ahead = wins > 0.5
    margin = np.abs(wins - 0.5)
    return Comparisons(prompt, np.where(ahead, one, other), np.where(ahead, other, one), margin)


def preferred(decoder: DecoderConfig, params: PyTree, prompts: Texts, first: Texts, second: Texts) -> np.ndarray:
    """[R], how probable it is to a judge of whole answers that the first is better than the second."""
    return _judge_of_answers(decoder)(params, prompts, first, second)


# Compiled once a decoder, not at every round and evaluation.
@functools.cache
def _reader_of_claims(decoder: DecoderConfig) -> Callable[..., tuple[np.ndarray, np.ndarray]]:
    return yes_no_of(decoder, (scenes.YES,), (scenes.NO,), at_once=1024)


@functools.cache
def _judge_of_answers(decoder: DecoderConfig) -> Callable[..., np.ndarray]:
    return judge_of(decoder, scenes.LAYOUT, at_once=512)


def order_accuracy(mentions: tuple[int, int], wrong: tuple[int, int], accuracy: float) -> float:
    """How probable it is that counts of rejected claims order two answers as their errors do; a tie counts half.

    A labeller that is right about each claim with probability q, whichever it is, rejects Bin(e, q) + Bin(m - e, 1 - q)
    of m claims of which e are wrong.

    Args:
      mentions: m of the better answer and of the worse one.
      wrong: e of both; that of the worse one is higher.
      accuracy: q.

    Source: RLAIF-V (Yu et al. 2024), arXiv 2405.17220, section 3.2; the closed form is ours.
    """
    chex.assert_scalar_in(accuracy, 0.0, 1.0)
    if not wrong[0] < wrong[1]:
        raise ValueError(f"wrong={wrong}: the second answer has to have more errors")
    better, worse = (_rejections(m, e, accuracy) for m, e in zip(mentions, wrong, strict=True))
    size = max(len(better), len(worse))
    joint = np.outer(np.pad(better, (0, size - len(better))), np.pad(worse, (0, size - len(worse))))
    return float(np.triu(joint, 1).sum() + 0.5 * np.trace(joint))


def _rejections(mentions: int, wrong: int, accuracy: float) -> np.ndarray:
    """The distribution of the number of rejected claims, [mentions + 1]."""
    found = np.ones(1)
    for number in range(mentions):
        rejects = accuracy if number < wrong else 1.0 - accuracy
        found = np.convolve(found, [1.0 - rejects, rejects])
    return found
