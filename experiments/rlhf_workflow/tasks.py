"""What the stages of RLHF Workflow work on: digits to sort, whose true reward is known, and texts that people compared.
"""

import dataclasses
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
from ml_collections import ConfigDict

from rl_jax.core.loop import Result
from rl_jax.core.program import PyTree
from rl_jax.data.text.records import Pair
from rl_jax.language import sorting
from rl_jax.language.comparisons import annotated, best_and_worst, distinct, documents, sampled_documents
from rl_jax.language.decoder import DecoderConfig
from rl_jax.language.documents import PairDocuments, pair_documents, questions
from rl_jax.language.experiments import leaves_model, start
from rl_jax.language.judge import Layout
from rl_jax.language.own_answers import drawer, of_model
from rl_jax.language.questions import Questions, Words, texts_of
from rl_jax.language.sampler import Sampling
from rl_jax.language.stages import starting_models
from rl_jax.language.training import Trainable


class Task(NamedTuple):
    """What the stages work on.

    Attributes:
      decoder: the shape of its models; its context is the length of rows.
      words: of its tokenizer.
      seeds: of this run.
      starts: pi_0 of each seed, on the host.
      train, held_out: questions.
      layout: how a comparison of two answers is written.
      pairs: -> (pairs to train a reward on, pairs that are judged) of each seed.
      gold: (digits, text) -> the true reward; None where it is unknown.
      inputs: for the run's provenance.
      finish: what a run that trains "policy" leaves behind.
    """

    decoder: DecoderConfig
    words: Words
    seeds: range
    starts: list[PyTree]
    train: Questions
    held_out: Questions
    layout: Layout
    pairs: Callable[[ConfigDict, "Task"], list[tuple[list[PairDocuments], list[PairDocuments]]]]
    gold: Callable[[str, str], float] | None
    inputs: dict[str, Any]
    finish: Callable[[Result, Path], dict[str, Any]] = lambda result, workdir: {}

    def golds(self, asked: Questions, numbers: np.ndarray, texts: Sequence[str]) -> np.ndarray:
        """The true reward of answers [R] to the questions of these numbers."""
        return np.array([self.gold(asked.rows[n]["digits"], text) for n, text in zip(numbers, texts, strict=True)])


def sorting_task(config: ConfigDict) -> Task:
    """Digits to sort, whose true reward is known; dots after an answer make it longer and no better."""
    data, shape = config.data, DecoderConfig(vocab_size=len(sorting.LETTERS), **config.decoder)
    sizes, seeds = (data.digits, data.digits), range(config.seed, config.seed + config.num_seeds)
    judged = sorting.problems(data.judged, sizes, 1)
    train = sorting.problems(data.size, sizes, 2, judged)
    starts = starting_models("start", config.start, shape, seeds)
    return Task(
        shape, sorting.WORDS, seeds, starts, sorting.questions(train), sorting.questions(judged), sorting.LAYOUT,
        annotated_pairs, sorting.gold, {},
    )


def text_task(config: ConfigDict) -> Task:
    """The prompts of a set of pairs, which people compared, for a language model, from which all seeds start.

    Raises:
      ValueError: as `experiments.start`; the set holds no pairs, or a label is not one token.
    """
    found, data = start(config), config.data
    if not isinstance(found.train[0], Pair):
        raise ValueError(f"config.data.name={data.name} holds answers, and pairs are compared: name a set of pairs")
    model, seeds = found.model, range(config.seed, config.seed + config.num_seeds)
    parts, room = (found.train, found.held_out), data.longest - config.rounds.max_new_tokens
    asked = [questions(model, part, data.name, room, data.most) for part in parts]
    words = Words(model.tokenizer.decode, (model.tokenizer.eos,))

    def pairs(config: ConfigDict, task: Task) -> list[tuple[list[PairDocuments], list[PairDocuments]]]:
        both = tuple(pair_documents(model, part, data.name, data.longest, data.most) for part in parts)
        return [both] * len(task.seeds)

    # Each label is one token; "A" after a line's end is not the token of " A".
    marks = (tuple(model.tokenizer.encode(text).tolist()) for text in ("\n[A] ", "\n[B] ", "\n[BETTER]\n"))
    labels = (model.tokenizer.single_token("A"), model.tokenizer.single_token("B"))
    return Task(
        dataclasses.replace(model.config, context_length=data.longest), words, seeds, [model.params] * len(seeds),
        *asked, Layout(*marks, labels), pairs, None, found.inputs, leaves_model(config, model),
    )


TASKS = {"sorting": sorting_task, "text": text_task}


# Pairs


def annotated_pairs(config: ConfigDict, task: Task) -> list[tuple[list[PairDocuments], list[PairDocuments]]]:
    """Of each seed: pairs of two answers of its own pi_0, labelled by the annotator to train on, and others to judge.

    The annotator's score is the gold reward and `annotator.length_bias` a character. A pair is labelled right with
    probability sigmoid(sharpness * difference); those that judge are labelled right. All seeds have as many pairs.

    Raises:
      ValueError: there are no two pairs.
    """
    told, said, numbers, sets = config.pairs, config.annotator, np.arange(config.pairs.prompts), []
    own = Trainable(task.decoder, config.agent)
    sampling = Sampling(max_new_tokens=config.rounds.max_new_tokens, stop=task.words.stop)
    draw = drawer(own, task.train, 2, sampling, min(config.rounds.at_once, told.prompts))
    for seed, pi_0 in zip(task.seeds, task.starts, strict=True):
        (key,) = jax.random.split(jax.random.key(seed), 1)
        samples, rng = of_model(draw, pi_0, numbers, key), np.random.default_rng(seed)
        texts = texts_of(samples, task.words)
        scores = task.golds(task.train, np.repeat(numbers, 2), texts) + said.length_bias * characters(texts)
        found = best_and_worst(scores.reshape(-1, 2), distinct(samples, 2))
        if len(found) < 2:
            raise ValueError(
                f"{len(found)} of config.pairs.prompts={told.prompts} questions has two answers of different scores: "
                "train the start longer, or ask more"
            )
        cut, answers = max(1, len(found) // 10), sampled_documents(samples, 2, numbers)
        parts = (annotated(found.take(slice(cut, None)), said.sharpness, rng), told.kept), (
            found.take(slice(cut)), told.judged
        )
        train, held_out = (
            [all_of[place] for place in np.resize(np.arange(len(all_of)), count)]
            for all_of, count in ((documents(part, answers), count) for part, count in parts)
        )
        sets.append((train, [regrouped(pair, number) for number, pair in enumerate(held_out)]))
    return sets


def regrouped(pair: PairDocuments, group: int) -> PairDocuments:
    """The pair as one that is judged by itself, also where its prompt comes twice."""
    return pair._replace(chosen=pair.chosen._replace(group=group), rejected=pair.rejected._replace(group=group))


def characters(texts: Sequence[str]) -> np.ndarray:
    """How long texts are, [R] float64."""
    return np.array([len(text) for text in texts], np.float64)


def twice_as_long(shape: DecoderConfig) -> DecoderConfig:
    """The decoder that reads a question with two answers."""
    return dataclasses.replace(shape, context_length=2 * shape.context_length)
