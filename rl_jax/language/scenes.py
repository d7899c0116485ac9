"""Scenes to describe, a value a slot, and what a description says wrongly: the tests of hallucination without pixels.

A prompt is the eight values of a scene. A description mentions some of its slots in their order, each by a filler word,
which is style alone, and a value, and ends with token 0. A demonstrator that hallucinates puts one and the same wrong
value in the place of a right one. Each mention is a claim that is right or wrong by itself, so that corrections, labels
by claims and labels of whole answers can all be held against the truth.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from rl_jax.language.judge import Layout
from rl_jax.language.questions import Questions, Words
from rl_jax.language.rows import Builder, Document
from rl_jax.language.sampler import Samples, answers

SLOTS, VALUES, FILLERS, STYLES = 8, 4, 4, 2
END = 0  # of a description; it fills rows too
FIRST_VALUE = 1 + STYLES * FILLERS  # before it: the fillers of each style
YES, NO, ASKS, BAR = range(FIRST_VALUE + SLOTS * VALUES, FIRST_VALUE + SLOTS * VALUES + 4)
FIRST, SECOND = BAR + 1, BAR + 2  # which of two descriptions is better
VOCABULARY = SECOND + 1
LAYOUT = Layout((BAR,), (BAR,), (ASKS,), (FIRST, SECOND))
WORDS = Words(lambda tokens: " ".join(map(str, tokens)), (END,))


class Mention(NamedTuple):
    """A claim of a description: that a slot has a value; `place` is that of its token among the description's."""

    place: int
    slot: int
    value: int


def scenes(count: int, rng: np.random.Generator) -> np.ndarray:
    """[N, SLOTS] int, uniform values."""
    return rng.integers(0, VALUES, (count, SLOTS))


def prompt(scene: np.ndarray) -> np.ndarray:
    """The tokens of a scene, [SLOTS]; of several, [N, SLOTS]."""
    return (FIRST_VALUE + VALUES * np.arange(SLOTS) + scene).astype(np.int32)


def described(
    scene: np.ndarray, noise: float, rng: np.random.Generator, mentioned: tuple[int, int] = (SLOTS, SLOTS),
    style: int = 0,
) -> np.ndarray:
    """A demonstrator's description, tokens with the one that ends it.

    Args:
      noise: the share of mentions whose value is the wrong one, always (value + 1) modulo VALUES.
      mentioned: the least and the most slots that are mentioned.
      style: which fillers are used.
    """
    slots = np.sort(rng.permutation(SLOTS)[: rng.integers(mentioned[0], mentioned[1] + 1)])
    values = (scene[slots] + (rng.random(len(slots)) < noise)) % VALUES
    fillers = 1 + style * FILLERS + rng.integers(0, FILLERS, len(slots))
    both = np.stack([fillers, FIRST_VALUE + VALUES * slots + values], axis=1)
    return np.append(both.reshape(-1), END).astype(np.int32)


def mentions(description: np.ndarray) -> list[Mention]:
    """The claims of any tokens, in their order."""
    found = np.asarray(description) - FIRST_VALUE
    places = np.flatnonzero((found >= 0) & (found < SLOTS * VALUES))
    return [Mention(int(place), *divmod(int(found[place]), VALUES)) for place in places]


def wrong_mentions(scene: np.ndarray, description: np.ndarray) -> list[Mention]:
    """The claims that are not true of the scene."""
    return [mention for mention in mentions(description) if scene[mention.slot] != mention.value]


def corrected(scene: np.ndarray, description: np.ndarray) -> np.ndarray:
    """The description with the right value in the place of each wrong one, and nothing else changed."""
    found = np.array(description)
    for mention in wrong_mentions(scene, description):
        found[mention.place] = prompt(scene)[mention.slot]
    return found


def claims(scene: np.ndarray, description: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Questions [K, SLOTS + 2] that are answered by YES or NO, one a mention, and whether each is true, [K] bool."""
    found = mentions(description)
    asked = [[*prompt(scene), description[mention.place], ASKS] for mention in found]
    truths = [bool(scene[mention.slot] == mention.value) for mention in found]
    return np.array(asked, np.int32).reshape(-1, SLOTS + 2), np.array(truths, bool)


def measured(of: np.ndarray, samples: Samples) -> dict[str, np.ndarray]:
    """What `own_answers.with_own_answers` asks of host samples [R, T], by answer [R]: `mentions`, `errors`, and
    `hallucinated`, the share of the mentions that are wrong; 0 without any.

    Args:
      of: the scenes that were described, [R, SLOTS].
    """
    said = answers(samples)
    number = np.array([len(mentions(own)) for own in said], float)
    errors = np.array([len(wrong_mentions(scene, own)) for scene, own in zip(of, said, strict=True)], float)
    return {"mentions": number, "errors": errors, "hallucinated": errors / np.maximum(number, 1.0)}


def questions(found: np.ndarray) -> Questions:
    """The scenes as they are asked."""
    rows = [{"scene": scene.tolist(), "source": "scenes"} for scene in found]
    return Questions(prompt(found), np.full(len(found), SLOTS), rows)


def document(scene: np.ndarray, description: Sequence[int], context_length: int, group: int = 0) -> Document:
    """A scene with its description, which is learnt."""
    builder = Builder(VOCABULARY, context_length).append(prompt(scene), sampled=False)
    return builder.append(description, sampled=True).document(group=group)


def claim_document(question: np.ndarray, truth: bool, group: int = 0) -> Document:
    """A question about a claim with its answer, which is learnt: what a labeller of claims is trained on."""
    builder = Builder(VOCABULARY, SLOTS + 3).append(question, sampled=False)
    return builder.append([YES if truth else NO], sampled=True).document(group=group)
