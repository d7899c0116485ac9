"""What the stages need of a marketplace: scenarios, who judges answers, how they are measured."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple, Protocol

import numpy as np

from rl_jax.core.loop import Result
from rl_jax.core.program import PyTree
from rl_jax.language.decoder import DecoderConfig
from rl_jax.language.questions import Questions, Words
from rl_jax.language.rewards import Score
from rl_jax.language.rows import Document

HINDSIGHTS = ("none", "partial", "oracle")


class Feedback(Protocol):
    """Who judges answers to the training questions of these numbers [R], after the hindsight that it is given."""

    def ratings(self, numbers: np.ndarray, texts: Sequence[str]) -> np.ndarray:
        """[R], from -1 to 1; -1 of an answer that is malformed."""

    def says_first(self, numbers: np.ndarray, first: Sequence[str], second: Sequence[str]) -> np.ndarray:
        """[R] bool, whether the first of two chats is called the better one; the places may matter."""


class Domain(NamedTuple):
    """A marketplace.

    Attributes:
      decoder: the shape of the models.
      words: of their tokenizer.
      train, held_out: scenarios; their rows have their numbers.
      feedback: on answers to the training questions.
      measure: (numbers of held-out questions [R], texts) -> numbers [R] by name, `rating` and `utility` among them.
      load: (field, run) -> the models of all seeds, of a finished run or, where it is "", of the start.
      told: (number of a held-out question, text) -> the whole dialogue, to be read.
      demonstrations, honest: of the training and held-out scenarios; None where the start can already talk.
      finish: what a run that trains "policy" leaves behind.
    """

    decoder: DecoderConfig
    words: Words
    train: Questions
    held_out: Questions
    feedback: Feedback
    measure: Callable[[np.ndarray, Sequence[str]], Mapping[str, np.ndarray]]
    load: Callable[[str, str], list[PyTree]]
    told: Callable[[int, str], str]
    demonstrations: list[Document] | None = None
    honest: list[Document] | None = None
    finish: Callable[[Result, Any], dict[str, Any]] = lambda result, workdir: {}


class Rated:
    """A feedback's ratings as rewards (`questions.Scores`)."""

    def __init__(self, feedback: Feedback):
        self._feedback = feedback

    def scores(self, rows: Sequence[Mapping[str, Any]], responses: Sequence[str], progress: float) -> list[Score]:
        """One score an item, in their order."""
        del progress
        found = self._feedback.ratings(np.array([row["number"] for row in rows]), responses)
        return [Score(float(x)) for x in found]

    def close(self) -> None:
        """Nothing is open."""


def preferences(
    feedback: Feedback, numbers: np.ndarray, one: Sequence[str], other: Sequence[str], both_orders: bool
) -> np.ndarray:
    """Scores [R, 2] of two answers each: 1 and 0 for better and worse, 1/2 where the two orders contradict each other.

    A judge that sees no difference says the same place in both orders, so that ties contradict themselves. In one
    order, as the authors' code asks, it makes a label of each.
    """
    won = feedback.says_first(numbers, one, other).astype(float)
    if both_orders:
        won = (won + ~feedback.says_first(numbers, other, one)) / 2
    return np.stack([won, 1.0 - won], axis=1)


def preference_bounds(
    advantage: float, beta: float, discount: float, steps: int, largest: float
) -> tuple[float, float]:
    """Between which probabilities the ideal Boltzmann preference lies, whose utilities go on for ever.

    Args:
      advantage: of one course of events over another, of their discounted rewards of the steps 0 to `steps`.
      largest: the range of a step's reward, r_max - r_min.

    Source: RLHS (Liang et al. 2025), arXiv 2501.08617, the theorem on finite hindsight.
    """
    left = discount ** (steps + 1) * largest / (1.0 - discount)
    low, high = (1.0 / (1.0 + np.exp(-beta * (advantage + end))) for end in (-left, left))
    return float(low), float(high)
