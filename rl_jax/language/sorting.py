"""Digits to sort, with answers that are right place by place: a task whose true reward, the gold one, is known.

"52713=" asks for "12357", and an answer ends with a line break. Dots after an answer say nothing: they are the room
that a reward which likes long answers has. A demonstrator writes wrong digits, and an annotator that is unsure compares
answers by their gold reward; what learns from its labels can be held against what they stand for.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from rl_jax.language.judge import Layout
from rl_jax.language.questions import Questions, Words
from rl_jax.language.rewards import Score
from rl_jax.language.rows import Builder, Document
from rl_jax.language.sampler import padded

LETTERS = "\n0123456789=.|?AB"  # the first one ends a text, and fills rows; the last four are those of a judge


def encode(text: str) -> np.ndarray:
    """A letter a token."""
    return np.array([LETTERS.index(letter) for letter in text], np.int32)


def decode(tokens: Sequence[int]) -> str:
    """The text of tokens."""
    return "".join(LETTERS[token] for token in tokens)


WORDS = Words(decode, (0,))
LAYOUT = Layout(*(tuple(encode(text).tolist()) for text in ("|", "|", "?", "AB")))


def problems(count: int, sizes: tuple[int, int], seed: int, without: Sequence[str] = ()) -> list[str]:
    """Different random rows of digits, as many digits as `sizes` allows, both ends included.

    Args:
      without: rows that may not come, such as those that are judged.
    """
    rng, found, taken = np.random.default_rng(seed), {}, set(without)
    while len(found) < count:
        size = int(rng.integers(sizes[0], sizes[1] + 1))
        text = "".join(map(str, rng.integers(0, 10, size)))
        if text not in taken:
            found[text] = None
    return list(found)


def gold(digits: str, answer: str) -> float:
    """The share of places that hold the right digit, among those of the longer one of answer and solution.

    Dots at the end of the answer are no part of it.
    """
    right, said = "".join(sorted(digits)), answer.rstrip(".")
    return sum(a == b for a, b in zip(right, said)) / max(len(right), len(said))


def demonstrated(found: Sequence[str], noise: float, dots: float, rng: np.random.Generator) -> list[str]:
    """A demonstrator's answers.

    Args:
      noise: the share of digits that are random ones in the place of the right ones.
      dots: the probability of one more dot after each; 0 for none.
    """
    answers = []
    for digits in found:
        wrong = rng.random(len(digits)) < noise
        other = rng.integers(0, 10, len(digits))
        text = "".join(str(o) if w else d for d, w, o in zip(sorted(digits), wrong, other, strict=True))
        answers.append(text + "." * (int(rng.geometric(1.0 - dots)) - 1 if dots else 0))
    return answers


def questions(found: Sequence[str], anchors: Sequence[str] | None = None) -> Questions:
    """Prompts such as "52713="; anchors are an answer to each, without the token that ends it."""
    tokens, lengths = padded([encode(f"{digits}=") for digits in found])
    rows = [{"digits": digits, "source": "sorting"} for digits in found]
    return Questions(tokens, lengths, rows, anchors and padded([encode(f"{answer}\n") for answer in anchors]))


def document(digits: str, answer: str, context_length: int, group: int = 0) -> Document:
    """A prompt with an answer, which is learnt."""
    builder = Builder(len(LETTERS), context_length).append(encode(f"{digits}="), sampled=False)
    return builder.append(encode(f"{answer}\n"), sampled=True).document(group=group)


class Gold:
    """The gold reward of responses, as `questions.Scores`; less `length_weight` times their tokens."""

    def __init__(self, length_weight: float = 0.0):
        self._length_weight = length_weight

    def scores(self, rows: Sequence[Mapping[str, Any]], responses: Sequence[str], progress: float) -> list[Score]:
        """One score an item, in their order."""
        del progress
        found = []
        for row, response in zip(rows, responses, strict=True):
            own = gold(row["digits"], response)
            found.append(Score(own - self._length_weight * row["response_tokens"], {"gold": own}))
        return found

    def close(self) -> None:
        """Nothing is open."""
