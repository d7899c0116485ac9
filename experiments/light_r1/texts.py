"""Word problems with worked solutions for a language model: GSM8K, and others in the records' form."""

import dataclasses
from collections.abc import Sequence
from typing import Any

import jax
from absl import logging
from ml_collections import ConfigDict

from experiments.light_r1.problems import Domain, Problem
from rl_jax.core.program import PyTree
from rl_jax.data.text import records
from rl_jax.data.text.decontamination import decontaminated
from rl_jax.data.text.records import Answer
from rl_jax.language.documents import encode
from rl_jax.language.experiments import leaves_model, load_model
from rl_jax.language.pretrained import Pretrained
from rl_jax.language.questions import Words
from rl_jax.language.reward_pool import Scorer
from rl_jax.language.rewards import final_number
from rl_jax.language.rows import TooLongError

MARKER = "####"  # before the answer of a worked solution


def domain(config: ConfigDict) -> Domain:
    """The word problems of `config.data.name` for the model of `config.start`, or of `config.model.name` without one.

    A solution's lines are its difficulty: `data.hard` and `data.broad` are ranges of them. Problems that share 32 words
    with a judged one, or are one but for their digits, are not trained on. One seed: a run leaves one model.

    Raises:
      ValueError: no problem is left in a part.
    """
    name = (config.average.first if config.stage == "average" else config.start) or config.model.name
    model, data = load_model(name), config.data
    model = model._replace(params=jax.device_get(model.params))
    train, held_out = records.split(records.load(data.name).records, data.held_out)
    held_out = held_out[: data.judged]
    clean = decontaminated([records.opening(x) for x in train], [records.opening(x) for x in held_out])
    logging.info("%d of %d problems share their text with judged ones: left out", len(train) - sum(clean), len(train))
    room = data.longest - config.judge.max_new_tokens
    train = problems(model, [x for x, fine in zip(train, clean, strict=True) if fine], data.longest, room)
    held_out = problems(model, held_out, data.longest, room)

    def of(part: Sequence[Problem], levels: str) -> list[Problem]:
        low, high = data[levels]
        found = [problem for problem in part if low <= problem.level <= high]
        if not found:
            raise ValueError(f"no problem of {data.name} has config.data.{levels}={low} to {high} lines: widen it")
        return found

    def load(field: str, run: str) -> list[PyTree]:
        del field
        return [model.params if run in ("", name) else jax.device_get(load_model(run).params)]

    shape = dataclasses.replace(model.config, context_length=data.longest)  # of rows: no longer one is needed
    return Domain(
        shape, Words(model.tokenizer.decode, (model.tokenizer.eos,)),
        {name: of(train, name) for name in ("broad", "deep", "mixed")}, of(held_out, "hard"), of(held_out, "broad"),
        load, lambda: Scorer("numeric", {"marker": MARKER}), leaves_model(config, model),
    )


def problems(model: Pretrained, found: Sequence[Answer], longest: int, room: int) -> list[Problem]:
    """The records that have an answer, at most `longest` tokens, and at most `room` of them before the solution."""
    kept = []
    for record in found:
        wanted = final_number(record.answer, MARKER)
        try:
            text = encode(model, record.prompt, record.answer, longest)
        except TooLongError:
            continue
        level, learnt = record.answer.strip().count("\n"), int(text.mask.argmax())
        if wanted is None or learnt > room:
            continue
        row: dict[str, Any] = {"answer": str(wanted), "source": f"{level} lines"}
        kept.append(Problem(text.tokens[:learnt], text.tokens[learnt:], row, records.opening(record), level))
    return kept
