"""Pairs of answers of which one corrects the other: own descriptions of scenes, and GSM8K with a wrong number.

Rankings are beside them: two of a model's own descriptions, which differ in their style too.
"""

import re
from collections.abc import Sequence

import jax
import numpy as np

from rl_jax.core.config import unknown
from rl_jax.core.program import PyTree
from rl_jax.data.text.records import Answer, Pair
from rl_jax.language import scenes
from rl_jax.language.comparisons import best_and_worst, distinct
from rl_jax.language.decoder import DecoderConfig
from rl_jax.language.documents import PairDocuments
from rl_jax.language.sampler import Sampling, answers, sample

KINDS = ("corrections", "rankings")
CANDIDATES = 2  # scenes that are described for each pair that is wanted: some have no error, some are tied
NUMBER = re.compile(r"\d+")


def own_pairs(
    kind: str, decoder: DecoderConfig, params: PyTree, count: int, max_new_tokens: int, seed: int
) -> list[PairDocuments]:
    """Pairs of a model's own descriptions of `count` fresh scenes, at temperature 1.

    Args:
      kind: "corrections": a description with an error, and it with the right values in their places. "rankings": of two
        descriptions the one of fewer errors over the other; ties are left out.
      seed: of the scenes and of what the model says of them, which is the same for both kinds.

    Raises:
      ValueError: the kind is unknown, or there are fewer pairs.
    """
    if kind not in KINDS:
        raise ValueError(unknown("config.pairs.kind", kind, KINDS))
    found = scenes.scenes(CANDIDATES * count, np.random.default_rng(seed))
    asked, told = scenes.questions(found), Sampling(max_new_tokens=max_new_tokens, stop=(scenes.END,))
    samples = jax.device_get(sample(decoder, params, asked.tokens, asked.lengths, 2, told, jax.random.key(seed)))
    said = answers(samples)
    errors = np.array([len(scenes.wrong_mentions(found[at // 2], own)) for at, own in enumerate(said)]).reshape(-1, 2)
    if kind == "rankings":
        ranked = best_and_worst(-errors, distinct(samples, 2))
        chosen = [(at, said[2 * at + own], said[2 * at + other]) for at, own, other in
                  zip(ranked.prompt, ranked.better, ranked.worse, strict=True)]
    else:
        own = [(int(at), said[2 * at]) for at in np.flatnonzero(errors[:, 0])]
        chosen = [(at, scenes.corrected(found[at], wrong), wrong) for at, wrong in own]
    if len(chosen) < count:
        raise ValueError(
            f"config.pairs.kind={kind} finds {len(chosen)} pairs in {len(found)} scenes, and {count} are asked for: "
            "the model makes too few errors, start from one that was trained on descriptions with errors"
        )

    def document(at: int, description: np.ndarray):
        return scenes.document(found[at], description, decoder.context_length, group=int(at))

    return [PairDocuments(*(document(at, own) for own in both), 0.0) for at, *both in chosen[:count]]


def corrupted(records: Sequence[Answer], most: int, seed: int) -> list[Pair]:
    """Worked solutions over the same with one number replaced; `most` numbers of each, a pair each, 0 for all.

    The wrong number is drawn from all numbers of as many digits in these solutions: by itself it is as likely as the
    right one, and only what stands before it tells them apart.

    Raises:
      ValueError: no solution has a number that another one can replace.
    """
    rng, numbers = np.random.default_rng(seed), {}
    for number in (own for record in records for own in NUMBER.findall(record.answer)):
        numbers.setdefault(len(number), []).append(number)
    found = []
    for record in records:
        places = list(NUMBER.finditer(record.answer))
        for at in rng.permutation(len(places))[: most or None]:
            start, end = places[at].span()
            others = [number for number in numbers[end - start] if number != places[at].group()]
            if others:
                wrong = record.answer[:start] + others[rng.integers(len(others))] + record.answer[end:]
                found.append(Pair(record.prompt, record.answer, wrong))
    if not found:
        raise ValueError("no answer has a number that can be replaced by another: name a set of worked solutions")
    return found
