"""Records of text: documents, answers to prompts, and pairs of answers of which one was preferred.

A set is a file of JSON objects, one a line. A prompt is a list of messages {"role", "content"}, as chat templates take
them; that of a plain document is empty.

    {"prompt": [...], "answer": "...", "desirable": true}     an answer; `desirable` may be left out, and is true then
    {"prompt": [...], "chosen": "...", "rejected": "...", "margin": 0.0}      a pair; `margin` may be left out

A file that ends with .txt is one plain text, cut into documents. Both may be compressed (.gz, .xz). The sets by name lie
beside this file; SOURCE.md says where they are from.
"""

import gzip
import hashlib
import json
import lzma
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from rl_jax.core.config import unknown
from rl_jax.data.cache import files_checksum

FOLDER = Path(__file__).parent
SETS = {
    "tiny_shakespeare": "tiny_shakespeare.txt.xz", "gsm8k": "gsm8k.jsonl.xz", "hh_harmless": "hh_harmless.jsonl.xz",
    "dpo_en": "dpo_en.jsonl.xz", "kto_en": "kto_en.jsonl.xz",
}
OPENERS: dict[str, Callable] = {".gz": gzip.open, ".xz": lzma.open}
DOCUMENT = 400  # characters of a document of plain text, at most, but for a longer line

Messages = tuple[dict[str, str], ...]


class Answer(NamedTuple):
    """An answer to a prompt, or, with an empty prompt, a document."""

    prompt: Messages
    answer: str
    desirable: bool = True


class Pair(NamedTuple):
    """Two answers to a prompt; `margin` is by how much the chosen one is better, where that is known."""

    prompt: Messages
    chosen: str
    rejected: str
    margin: float = 0.0


class TextSet(NamedTuple):
    """A set of text.

    Attributes:
      name: as it was asked for, for messages.
      records: all Answers, or all Pairs.
      checksum: sha256 of its file.
    """

    name: str
    records: tuple[Answer, ...] | tuple[Pair, ...]
    checksum: str


def load(name: str) -> TextSet:
    """The set of a name in `SETS`, or of a user's file.

    Raises:
      FileNotFoundError: there is no such file.
      ValueError: no such name; the file is damaged, a line is no record or of another kind than those before it, or
        there is none.
    """
    path = FOLDER / SETS[name] if name in SETS else Path(name).expanduser()
    if name not in SETS and not {".txt", ".jsonl"} & set(path.suffixes):
        raise ValueError(f"{unknown('set of text', name, SETS)}; a file of your own ends with .txt or .jsonl")
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such file: name one, or a set: {', '.join(SETS)}")
    try:
        with OPENERS.get(path.suffix, open)(path, "rt", encoding="utf-8") as file:
            text = file.read()
    except (UnicodeDecodeError, EOFError, lzma.LZMAError, gzip.BadGzipFile) as error:
        raise ValueError(f"{path} is no text in UTF-8, or damaged ({error}): copy it again") from error
    if ".txt" in path.suffixes:
        records = tuple(Answer((), document) for document in documents(text))
    else:
        lines = enumerate(text.split("\n"), 1)
        records = tuple(_record(f"{path}, line {number}", line) for number, line in lines if line.strip())
    if not records:
        raise ValueError(f"{path} holds no record")
    kinds = {type(record) for record in records}
    if len(kinds) > 1:
        raise ValueError(f"{path} holds answers and pairs: give each a file")
    return TextSet(name, records, files_checksum(path))


def documents(text: str, most: int = DOCUMENT) -> list[str]:
    """Cuts plain text into runs of whole lines, of at most `most` characters where no line is longer."""
    found, size = [[]], 0
    for line in text.splitlines(keepends=True):
        if size + len(line) > most and found[-1]:
            found.append([])
            size = 0
        found[-1].append(line)
        size += len(line)
    return [document for lines in found if (document := "".join(lines).strip())]


def answers(records: Sequence[Answer] | Sequence[Pair]) -> list[Answer]:
    """Answers to imitate: the desirable ones, and of pairs the chosen ones."""
    found = (Answer(record.prompt, record.chosen) if isinstance(record, Pair) else record for record in records)
    return [record for record in found if record.desirable]


def judged(records: Sequence[Answer] | Sequence[Pair]) -> list[Answer]:
    """Answers with their judgements; a pair gives a desirable and an undesirable one."""
    found = []
    for record in records:
        if isinstance(record, Pair):
            found += [Answer(record.prompt, record.chosen), Answer(record.prompt, record.rejected, desirable=False)]
        else:
            found.append(record)
    return found


def split(
    records: Sequence[Answer] | Sequence[Pair], held_out: float
) -> tuple[list[Answer] | list[Pair], list[Answer] | list[Pair]]:
    """(to train on, held out), the same for a record wherever it stands.

    A share of `held_out` of the prompts is held out, by a checksum of how they open (`opening`), so that no part of a
    dialogue that is trained on is judged.
    """
    parts = [], []
    for record in records:
        parts[_place(record) < held_out].append(record)
    return parts


def opening(record: Answer | Pair) -> str:
    """What tells prompts apart: the first message of a user; of a document its text."""
    said = [message["content"] for message in record.prompt if message["role"] == "user"]
    return said[0] if said else record.answer if isinstance(record, Answer) else json.dumps(record.prompt)


def _place(record: Answer | Pair) -> float:
    return int.from_bytes(hashlib.sha256(opening(record).encode()).digest()[:4], "big") / 2**32


def _record(place: str, line: str) -> Answer | Pair:
    try:
        fields = json.loads(line)
    except json.JSONDecodeError as error:
        raise ValueError(f"{place} is no JSON ({error})") from error
    kind = Pair if isinstance(fields, dict) and "chosen" in fields else Answer
    wanted = {"chosen": str, "rejected": str} if kind is Pair else {"answer": str}
    optional = {"margin": (int, float)} if kind is Pair else {"desirable": bool}
    known = {"prompt", *wanted, *optional}
    if not isinstance(fields, dict) or not set(fields) <= known or not {"prompt", *wanted} <= set(fields):
        has = ", ".join(fields) if isinstance(fields, dict) else type(fields).__name__
        raise ValueError(f"{place} has {has}: a record has prompt and answer, or prompt, chosen and rejected")
    prompt = fields.pop("prompt")
    for name, types in (wanted | optional).items():
        if name in fields and not isinstance(fields[name], types):
            raise ValueError(f"{place}: {name} is {fields[name]!r}: it is another kind of value")
    return kind(_messages(place, prompt), **fields)


def _messages(place: str, prompt: Any) -> Messages:
    whole = isinstance(prompt, list) and all(
        isinstance(message, dict) and set(message) == {"role", "content"}
        and all(isinstance(x, str) for x in message.values())
        for message in prompt
    )
    if not whole:
        raise ValueError(f"{place}: prompt is not a list of messages, {{'role': text, 'content': text}} each")
    return tuple(prompt)
