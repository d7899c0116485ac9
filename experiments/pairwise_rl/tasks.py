"""What is asked, with a gold reward that nothing is trained on: digits to sort, and word problems on text."""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
from ml_collections import ConfigDict

from rl_jax.core.loop import Result
from rl_jax.core.program import PyTree
from rl_jax.data.text import records
from rl_jax.data.text.records import Answer
from rl_jax.language import sorting
from rl_jax.language.decoder import DecoderConfig
from rl_jax.language.documents import encode
from rl_jax.language.experiments import leaves_model, load_model
from rl_jax.language.judge import Layout
from rl_jax.language.pretrained import Pretrained
from rl_jax.language.questions import Questions, Words
from rl_jax.language.rewards import final_number
from rl_jax.language.rows import Builder, Document, TooLongError
from rl_jax.language.sampler import padded
from rl_jax.language.stages import starting_models

MARKER = "####"  # before the answer of a worked solution


class Problem(NamedTuple):
    """A question with the ground-truth answer, the gold anchor.

    Attributes:
      prompt, reference: tokens; those of the reference end with the stop token.
      demonstration: the same of the answer that supervised learning reads.
      row: what the gold reward reads; "source" names where the problem is from.
    """

    prompt: np.ndarray
    reference: np.ndarray
    demonstration: np.ndarray
    row: Mapping[str, Any]


class Task(NamedTuple):
    """A task.

    Attributes:
      decoder: the shape of policy and scorers.
      words: of its tokenizer.
      layout: how a comparison is written.
      train, held_out: problems; the latter are judged and never trained on.
      gold: (row, text of an answer) -> the true reward in [0, 1], known to the annotator alone.
      starts: (field, run) -> the policies of all seeds, of a finished run or, where it is "", of the beginning.
      finish: what a run that trains "policy" leaves behind.
    """

    decoder: DecoderConfig
    words: Words
    layout: Layout
    train: list[Problem]
    held_out: list[Problem]
    gold: Callable[[Mapping[str, Any], str], float]
    starts: Callable[[str, str], list[PyTree]]
    finish: Callable[[Result, Path], dict[str, Any]] = lambda result, workdir: {}

    @property
    def prompt_width(self) -> int:
        """Tokens of the longest prompt."""
        return max(len(problem.prompt) for problem in (*self.train, *self.held_out))

    def document(self, problem: Problem, answer: np.ndarray, group: int = 0) -> Document:
        """A prompt with an answer, which is learnt."""
        builder = Builder(self.decoder.vocab_size, self.decoder.context_length).append(problem.prompt, sampled=False)
        return builder.append(answer, sampled=True).document(group=group)

    def questions(
        self, problems: Sequence[Problem], anchors: Sequence[np.ndarray] | None = None, width: int = 0
    ) -> Questions:
        """The problems as they are asked, each beside its anchor answer, of at most `width` tokens."""
        tokens, lengths = padded([problem.prompt for problem in problems])
        tokens = np.pad(tokens, ((0, 0), (0, self.prompt_width - tokens.shape[1])))
        found = Questions(tokens, lengths, [problem.row for problem in problems])
        if anchors is None:
            return found
        tokens, lengths = padded(anchors)
        return found._replace(anchors=(np.pad(tokens, ((0, 0), (0, width - tokens.shape[1]))), lengths))


def sorting_task(config: ConfigDict) -> Task:
    """Digits to sort, demonstrated with wrong ones among them; the gold reward is the share of right places."""
    data, shape = config.data, DecoderConfig(vocab_size=len(sorting.LETTERS), **config.decoder)
    held_out = sorting.problems(data.judged, tuple(data.sizes), 1)
    train = sorting.problems(data.size, tuple(data.sizes), 2, held_out)

    def problems(found: Sequence[str], seed: int) -> list[Problem]:
        said = sorting.demonstrated(found, data.noise, 0.0, np.random.default_rng(seed))
        return [
            Problem(
                sorting.encode(f"{digits}="), sorting.encode("".join(sorted(digits)) + "\n"),
                sorting.encode(f"{answer}\n"), {"digits": digits, "source": "sorting"},
            ) for digits, answer in zip(found, said, strict=True)
        ]

    seeds = range(config.seed, config.seed + config.num_seeds)
    return Task(
        shape, sorting.WORDS, sorting.LAYOUT, problems(train, 3), problems(held_out, 4),
        lambda row, text: sorting.gold(row["digits"], text),
        lambda field, run: starting_models(field, run, shape, seeds),
    )


def text_task(config: ConfigDict) -> Task:
    """Word problems with worked solutions for `config.model.name`; the gold reward is a right last number.

    Raises:
      ValueError: a label of the judge is not one token, or no problem of a part is short enough.
    """
    model, data, longest = load_model(config.model.name), config.data, config.agent.get("max_new_tokens", 0)
    model, longest = model._replace(params=jax.device_get(model.params)), longest or config.answers.max_new_tokens
    train, held_out = records.split(records.load(data.name).records, data.held_out)
    room = data.longest - longest
    parts = [text_problems(model, part, room, longest) for part in (train[: data.size], held_out[: data.judged])]
    if not all(parts):
        raise ValueError(
            f"config.data.longest={data.longest}: no problem of {data.name} has a prompt of {room} tokens and a "
            f"solution of {longest} (max_new_tokens): raise them"
        )
    shape, seeds = dataclasses.replace(model.config, context_length=3 * data.longest), config.num_seeds

    def gold(row: Mapping[str, Any], text: str) -> float:
        return float(final_number(text, MARKER) == final_number(row["answer"], MARKER))

    def starts(field: str, run: str) -> list[PyTree]:
        if not run:
            return [model.params] * seeds
        return starting_models(field, run, shape, range(config.seed, config.seed + seeds))

    return Task(
        shape, Words(model.tokenizer.decode, (model.tokenizer.eos,)), text_layout(model, config.labels), *parts, gold,
        starts, leaves_model(config, model),
    )


def text_layout(model: Pretrained, labels: Sequence[str]) -> Layout:
    """How a comparison is written in words.

    Raises:
      ValueError: a label is several tokens, or both are one.
    """
    encoded = [list(model.tokenizer.encode(label)) for label in labels]
    if any(len(tokens) != 1 for tokens in encoded) or encoded[0] == encoded[1]:
        raise ValueError(
            f"config.labels={tuple(labels)} are the tokens {encoded}: a judge says one token, give two different "
            "texts of one token each, with the blank that stands before them"
        )
    texts = ("\nFirst answer: ", "\nSecond answer: ", "\nThe better one is")
    return Layout(*(tuple(model.tokenizer.encode(text)) for text in texts), tuple(x[0] for x in encoded))


def text_problems(model: Pretrained, found: Sequence[Answer], room: int, longest: int) -> list[Problem]:
    """The records whose prompt has at most `room` tokens and whose solution `longest`, with a number as the answer."""
    kept = []
    for record in found:
        try:
            text = encode(model, record.prompt, record.answer, room + longest)
        except TooLongError:
            continue
        learnt = int(text.mask.argmax())
        if learnt > room or len(text.tokens) - learnt > longest or final_number(record.answer, MARKER) is None:
            continue
        row = {"answer": record.answer, "source": "text"}
        kept.append(Problem(text.tokens[:learnt], text.tokens[learnt:], text.tokens[learnt:], row))
    return kept


TASKS: dict[str, Callable[[ConfigDict], Task]] = {"sorting": sorting_task, "text": text_task}
