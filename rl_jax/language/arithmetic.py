"""Sums and differences of two numbers as text of fifteen letters: all questions, split, their right answers, a start.

The committed start is a small decoder that half knows how to calculate: calculator/SOURCE.md.
"""

import itertools
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from rl_jax.language.questions import Questions, Words
from rl_jax.language.rewards import parse_expression
from rl_jax.language.rows import Builder, Rows, pad
from rl_jax.language.sampler import padded

LETTERS = "\n0123456789+-*="  # the first one ends a text, and fills rows
START = Path(__file__).parent / "calculator" / "start.npz"
SOURCES = {"+": "sums", "-": "differences", "*": "products"}


class Split(NamedTuple):
    """Questions to train on and others to judge by, expressions such as "17-38"."""

    train: list[str]
    held_out: list[str]


def encode(text: str) -> list[int]:
    """A letter a token."""
    return [LETTERS.index(letter) for letter in text]


def decode(tokens: Sequence[int]) -> str:
    """The text of tokens."""
    return "".join(LETTERS[token] for token in tokens)


WORDS = Words(decode, (0,))


def expressions(largest: int, operators: str, judged: int) -> Split:
    """All expressions of two numbers from 0 to `largest`, in one shuffled order; the last ones are held out.

    Raises:
      ValueError: an operator is unknown, or nothing is left to train on.
    """
    if strange := set(operators) - SOURCES.keys():
        raise ValueError(f"config.data.operators={operators!r}: {''.join(sorted(strange))!r} is none of + - *")
    numbers = range(largest + 1)
    found = [f"{a}{operator}{b}" for operator in operators for a, b in itertools.product(numbers, repeat=2)]
    if judged >= len(found):
        raise ValueError(f"config.data.judged={judged} of {len(found)} questions leaves none to train on")
    order = np.random.default_rng(0).permutation(len(found))
    shuffled = [found[number] for number in order]
    return Split(shuffled[:-judged], shuffled[-judged:])


def questions(found: Sequence[str]) -> Questions:
    """Prompts such as "17-38=", and what the reward "arithmetic" reads."""
    tokens, lengths = padded([np.array(encode(f"{text}="), np.int32) for text in found])
    operator = [next(letter for letter in text if letter in SOURCES) for text in found]
    return Questions(
        tokens, lengths, [{"expression": text, "source": SOURCES[x]} for text, x in zip(found, operator, strict=True)]
    )


def solved(found: Sequence[str], context_length: int) -> Rows:
    """Rows of questions with their right answers, which are learnt."""
    documents = []
    for group, text in enumerate(found):
        builder = Builder(len(LETTERS), context_length).append(encode(f"{text}="), sampled=False)
        answer = encode(f"{parse_expression(text).value}\n")
        documents.append(builder.append(answer, sampled=True).document(group=group))
    return pad(documents, max(len(document.tokens) for document in documents))
