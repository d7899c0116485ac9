"""CLIP's tokenizer: byte-pair encoding of lower-cased words, from the files vocab.json and merges.txt.

Sennrich et al. 2016, arXiv 1508.07909 (the encoding); Radford et al. 2019 (bytes as its alphabet) and 2021, arXiv
2103.00020 (words that end in `</w>`).
"""

import collections
import dataclasses
import json
import re
import unicodedata
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from rl_jax.core.files import read_json, read_lines
from rl_jax.data.byte_letters import BYTE_LETTERS

START, END = "<|startoftext|>", "<|endoftext|>"
WORD_END = "</w>"
# Matched on a text whose letters and numbers are ASCII (`_shadow`): special tokens, contractions, letters, digit, rest.
WORDS = re.compile(r"<\|startoftext\|>|<\|endoftext\|>|'(?:s|t|re|ve|m|ll|d)|[a-z]+|[0-9]|[^\sa-z0-9]+")


def _shadow(text: str) -> str:
    """Replaces each non-ASCII character by an ASCII one of its kind: a letter by a, a number by 0, others by ~."""
    kinds = {"L": "a", "N": "0"}

    def sign(letter: str) -> str:
        if letter.isascii():
            return letter
        return " " if letter.isspace() else kinds.get(unicodedata.category(letter)[0], "~")

    return "".join(map(sign, text))


def words(text: str) -> list[str]:
    """Splits a prompt into words that are encoded one by one: lower-cased, in Unicode's composed form, no spaces."""
    text = "".join(letter.lower() for letter in unicodedata.normalize("NFC", text))
    return [text[slice(*found.span())] for found in WORDS.finditer(_shadow(text))]


@dataclasses.dataclass(frozen=True)
class Tokenizer:
    """Encodes prompts as token ids.

    Attributes:
      vocab: token -> id; contains START and END.
      merges: pairs of tokens in the order in which they are joined.
      pad_token: fills the rest of the context: END for Stable Diffusion 1, "!" for 2.
      context_length: tokens of a prompt with START and END.
      source: the folder it came from, for messages.
    """

    vocab: dict[str, int]
    merges: tuple[tuple[str, str], ...]
    pad_token: str = END
    context_length: int = 77
    source: str = "the tokenizer"

    def __post_init__(self):
        for token in (START, END, self.pad_token):
            if token not in self.vocab:
                raise ValueError(f"{self.source}: vocab.json has no {token!r}, so it is not a CLIP tokenizer's")
        object.__setattr__(self, "_ranks", {pair: rank for rank, pair in enumerate(self.merges)})

    def encode(self, prompts: Sequence[str], truncate: bool = False) -> np.ndarray:
        """Encodes prompts as int32 [B, context_length]: START, the prompt, END, padding.

        Args:
          truncate: whether a prompt that is too long loses its end; else it is an error.

        Raises:
          ValueError: a prompt is too long; one string instead of a list of them.
        """
        if isinstance(prompts, str):
            raise ValueError(f"encode takes a list of prompts and was given one string, {prompts!r}: write [prompt]")
        rows = np.full((len(prompts), self.context_length), self.vocab[self.pad_token], np.int32)
        for row, prompt in zip(rows, prompts, strict=True):
            tokens = [token for word in words(prompt) for token in self.split(word)]
            ids = [self.vocab.get(token, self.vocab[END]) for token in tokens]
            room = self.context_length - 2
            if len(ids) > room and not truncate:
                raise ValueError(
                    f"a prompt has {len(ids)} tokens and the text encoder reads {room} beside start and end: "
                    f"shorten it, or encode with truncate=True. The prompt: {prompt!r}"
                )
            ids = [self.vocab[START], *ids[:room], self.vocab[END]]
            row[: len(ids)] = ids
        return rows

    def split(self, word: str) -> list[str]:
        """Splits one of `words` into tokens: it joins pairs of tokens in the order of `merges`."""
        if word in (START, END):
            return [word]
        tokens = [BYTE_LETTERS[byte] for byte in word.encode()]
        tokens[-1] += WORD_END
        while len(tokens) > 1:
            pairs = list(zip(tokens[:-1], tokens[1:], strict=True))
            best = min(pairs, key=lambda pair: self._ranks.get(pair, len(self._ranks)))
            if best not in self._ranks:
                break
            tokens = _joined(tokens, best)
        return tokens


def load_tokenizer(folder: str | Path) -> Tokenizer:
    """Reads vocab.json and merges.txt of a folder and, where they exist, what tokenizer_config.json and
    special_tokens_map.json say of its special tokens: the second has the last word, as in transformers, unless the
    first lists `added_tokens_decoder`.

    Raises:
      FileNotFoundError: vocab.json or merges.txt is missing.
      ValueError: a file is not what its name says, or the tokenizer has other special tokens than CLIP's or tokens
        beside its vocabulary, which are not followed here.
    """
    folder = Path(folder)
    for name in ("vocab.json", "merges.txt"):
        if not (folder / name).is_file():
            raise FileNotFoundError(f"{folder / name} is missing: a CLIP tokenizer is in vocab.json and merges.txt")
    vocab = _object(folder / "vocab.json")
    if not all(type(number) is int and 0 <= number < 1 << 31 for number in vocab.values()):
        raise ValueError(f"{folder / 'vocab.json'}: a token's id is no whole number: copy the file again")
    lines = read_lines(folder / "merges.txt")
    merges = [tuple(line.split()) for line in lines if line and not line.startswith("#version")]
    wrong = next((pair for pair in merges if len(pair) != 2), None)
    if wrong is not None:
        raise ValueError(f"{folder / 'merges.txt'}: a line is two tokens, and one is {' '.join(wrong)!r}")
    settings, special, added = (
        _object(folder / name) if (folder / name).is_file() else {}
        for name in ("tokenizer_config.json", "special_tokens_map.json", "added_tokens.json")
    )
    decoder = settings.get("added_tokens_decoder")
    if decoder is None:
        settings |= {name: token for name, token in special.items() if token}
    elif isinstance(decoder, dict):
        added |= dict.fromkeys(map(_content, decoder.values()))
    for name, needed in (("bos_token", START), ("eos_token", END), ("unk_token", END)):
        if (token := _content(settings.get(name) or needed)) != needed:
            raise ValueError(f"{folder}: {name} is {token!r}, and the tokenizer here has {needed!r} alone")
    if strange := [token for token in added if token not in vocab]:
        raise ValueError(f"{folder}: {strange[0]!r} is added to the vocabulary, which the tokenizer here cannot do")
    # CLIP reads 77 tokens; a tokenizer that was saved without a length has 10^30.
    length = settings.get("model_max_length") or 77
    if type(length) not in (int, float) or length < 3:
        raise ValueError(f"{folder / 'tokenizer_config.json'}: model_max_length is {length!r}: it is 3 or more")
    pad = _content(settings.get("pad_token") or END)
    return Tokenizer(vocab, tuple(merges), pad, int(min(length, 77)), str(folder))


def _object(file: Path) -> dict[str, Any]:
    content = read_json(file)
    if not isinstance(content, dict):
        raise ValueError(f"{file} holds no JSON object: copy it again")
    return content


def _content(token: Any) -> str:
    """The text of a special token, which files hold as it is or in an object."""
    return str(token.get("content") if isinstance(token, dict) else token)


def save_tokenizer(tokenizer: Tokenizer, folder: str | Path) -> None:
    """Writes the files that `load_tokenizer` and transformers' `CLIPTokenizer` read."""
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    settings = {
        "tokenizer_class": "CLIPTokenizer",
        "model_max_length": tokenizer.context_length,
        "bos_token": START,
        "eos_token": END,
        "unk_token": END,
        "pad_token": tokenizer.pad_token,
    }
    merges = ["#version: 0.2", *(" ".join(pair) for pair in tokenizer.merges), ""]
    (folder / "vocab.json").write_text(json.dumps(tokenizer.vocab, ensure_ascii=False), encoding="utf-8")
    (folder / "merges.txt").write_text("\n".join(merges), encoding="utf-8")
    (folder / "tokenizer_config.json").write_text(json.dumps(settings, indent=2), encoding="utf-8")


def learn_tokenizer(texts: Sequence[str], context_length: int) -> Tokenizer:
    """Learns the tokenizer of a small corpus: it joins the most frequent pair until each word of it is one token.

    Other words are split into known tokens, down to bytes.

    Source: Sennrich et al. 2016, algorithm 1.
    """
    counts = collections.Counter(word for text in texts for word in words(text))
    letters = {word: [BYTE_LETTERS[byte] for byte in word.encode()] for word in counts}
    splits = {word: [*split[:-1], split[-1] + WORD_END] for word, split in letters.items()}
    merges: list[tuple[str, str]] = []
    while True:
        pairs: collections.Counter = collections.Counter()
        for word, split in splits.items():
            for pair in zip(split[:-1], split[1:], strict=True):
                pairs[pair] += counts[word]
        if not pairs:
            break
        best = max(pairs, key=lambda pair: (pairs[pair], pair))  # a tie is always decided the same way
        merges.append(best)
        splits = {word: _joined(split, best) for word, split in splits.items()}
    single = [*BYTE_LETTERS, *(letter + WORD_END for letter in BYTE_LETTERS)]
    tokens = [*single, *map("".join, merges), START, END]
    vocab = {token: number for number, token in enumerate(dict.fromkeys(tokens))}
    return Tokenizer(vocab, tuple(merges), context_length=context_length)


def _joined(tokens: list[str], pair: tuple[str, str]) -> list[str]:
    """Joins each occurrence of a pair of tokens, from the left."""
    joined, index = [], 0
    while index < len(tokens):
        step = 2 if tuple(tokens[index : index + 2]) == pair else 1
        joined.append("".join(tokens[index : index + step]))
        index += step
    return joined
