"""Keeps what is judged out of what is trained on: the two rules of Light-R1, as pure functions of texts.

Wen et al. 2025, arXiv 2503.10460, README of the authors' repository: a question is dropped that equals a judged one but
for its digits, or shares a run of 32 words with it.
"""

import re
from collections.abc import Iterable, Sequence

WORDS = 32


def normalised(text: str) -> str:
    """Lower case without digits, punctuation and spaces: two questions that differ in numbers alone are one."""
    return "".join(letter for letter in text.lower() if letter.isalpha())


def runs_of_words(text: str, count: int = WORDS) -> set[tuple[str, ...]]:
    """All runs of `count` words next to each other, in lower case without punctuation; none of a shorter text."""
    words = re.findall(r"\w+", text.lower())
    return {tuple(words[start : start + count]) for start in range(len(words) - count + 1)}


def decontaminated(texts: Sequence[str], judged: Iterable[str], count: int = WORDS) -> list[bool]:
    """Whether each text may be trained on, given those that are judged.

    A judged text without a letter, such as a bare expression, is equal to no other: it would rule out all of its kind.
    """
    judged = list(judged)
    same = {normalised(text) for text in judged} - {""}
    runs = set().union(*(runs_of_words(text, count) for text in judged))
    return [normalised(text) not in same and runs.isdisjoint(runs_of_words(text, count)) for text in texts]
