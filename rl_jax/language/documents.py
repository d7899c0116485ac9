"""Records of text as documents of tokens, by a model's tokenizer and chat template."""

from collections.abc import Callable, Sequence
from typing import NamedTuple, TypeVar

import numpy as np
from absl import logging

from rl_jax.data.text.records import Answer, Messages, Pair, opening
from rl_jax.language.pretrained import Pretrained
from rl_jax.language.rows import Builder, Document, TooLongError

Record = TypeVar("Record", Answer, Pair)
Encoded = TypeVar("Encoded")


class PairDocuments(NamedTuple):
    """The two documents of a pair, which begin with the same prompt."""

    chosen: Document
    rejected: Document
    margin: float


def encode(model: Pretrained, prompt: Messages, answer: str, longest: int | None = None) -> Document:
    """A prompt and its answer, which is to be learnt with the token that ends it.

    A model without a chat template reads "User: ...", "Assistant: ..." line by line. An empty prompt makes a plain
    document, of which everything is learnt.

    Args:
      longest: most tokens; the model's context if left out.

    Raises:
      TooLongError: prompt and answer are longer.
      ValueError: the answer is empty, or a token is outside the model's vocabulary.
    """
    if not answer.strip():
        raise ValueError("an answer is empty: there is nothing to learn; leave it out")
    tokenizer = model.tokenizer
    if not prompt:
        before, after = [tokenizer.eos if tokenizer.bos is None else tokenizer.bos], answer
    else:
        before, after = prompt_tokens(model, prompt), answer if model.template is not None else f" {answer}"
    builder = Builder(model.config.vocab_size, longest or model.config.context_length).append(before, sampled=False)
    return builder.append([*tokenizer.encode(after), tokenizer.eos], sampled=True).document()


def prompt_tokens(model: Pretrained, prompt: Messages) -> np.ndarray:
    """The tokens after which the model answers a prompt that is not empty; without a template as `encode` says."""
    if model.template is not None:
        return model.template.prompt(model.tokenizer, prompt)
    lines = "".join(f"{message['role'].capitalize()}: {message['content']}\n" for message in prompt)
    return model.tokenizer.encode(f"{lines}Assistant:", bos=model.tokenizer.bos is not None)


def answer_documents(
    model: Pretrained, records: Sequence[Answer], name: str, longest: int, most: int = 0
) -> list[Document]:
    """The documents of at most `longest` tokens, grouped by prompt; their reward is 1 where the answer is desirable.

    Args:
      name: of the set, for messages.
      most: how many, the first ones; 0 for all.

    Raises:
      ValueError: as `encode`, with the record's number in the set `name`; no document is short enough; or `longest` is
        longer than the model's context.
    """

    def encoded(record: Answer, group: int) -> Document:
        document = encode(model, record.prompt, record.answer, longest)
        return document._replace(group=group, reward=float(record.desirable))

    return _those_that_fit(model, records, name, longest, most, encoded)


def pair_documents(
    model: Pretrained, records: Sequence[Pair], name: str, longest: int, most: int = 0
) -> list[PairDocuments]:
    """The pairs of which both documents have at most `longest` tokens; errors are those of `answer_documents`."""

    def encoded(record: Pair, group: int) -> PairDocuments:
        texts = record.chosen, record.rejected
        chosen, rejected = (encode(model, record.prompt, text, longest)._replace(group=group) for text in texts)
        return PairDocuments(chosen, rejected, record.margin)

    return _those_that_fit(model, records, name, longest, most, encoded)


def _those_that_fit(
    model: Pretrained, records: Sequence[Record], name: str, longest: int, most: int,
    encoded: Callable[[Record, int], Encoded],
) -> list[Encoded]:
    if longest > model.config.context_length:
        raise ValueError(
            f"config.data.longest={longest} is longer than the model's context of {model.config.context_length}: lower "
            "it"
        )
    found, groups = [], {}
    for number, record in enumerate(records, 1):
        if most and len(found) == most:
            break
        try:
            found.append(encoded(record, groups.setdefault(opening(record), len(groups))))
        except TooLongError:
            continue
        except ValueError as error:
            raise ValueError(f"{name}, record {number}: {error}") from error
    if not found:
        raise ValueError(
            f"{name}: all {len(records)} records are longer than config.data.longest={longest} tokens: raise it, or "
            "take a model with a longer context"
        )
    logging.info("%s: %d of %d records, of at most %d tokens", name, len(found), len(records), longest)
    return found
