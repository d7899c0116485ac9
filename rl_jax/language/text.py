"""Byte-pair tokenizers: text to token ids and back, with the characters of each token, and their files.

What a policy sampled is never encoded again: another split of the same text has another probability. Where a step, a
tag or a change stands among its tokens is found by `located` and by spans.py.
"""

import codecs
import dataclasses
import functools
import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from rl_jax.core.extras import require
from rl_jax.data.byte_letters import BYTE_LETTERS
from rl_jax.language.spans import Located

SPACE = "▁"  # stands for a space in the vocabularies of sentencepiece


@dataclasses.dataclass(frozen=True)
class Tokenizer:
    """Encodes text as token ids, and back.

    Attributes:
      backend: a `tokenizers.Tokenizer` of byte pairs, over bytes (GPT-2's) or over letters with bytes for the others
        (sentencepiece's).
      eos, pad: ids of the token that ends an answer and of padding.
      bos: id of the token that begins a document; None where the model has none.
      prefix_space: whether a document's first word gets a space in front, as those within have (sentencepiece).
      source: where it came from, for messages.
    """

    backend: Any
    eos: int
    pad: int
    bos: int | None = None
    prefix_space: bool = False
    source: str = "the tokenizer"

    def __post_init__(self) -> None:
        for name in ("eos", "pad", "bos"):
            token = getattr(self, name)
            if token is not None and not 0 <= token < self.vocab_size:
                raise ValueError(f"{self.source}: {name} is {token}, outside of its {self.vocab_size} tokens")

    @functools.cached_property
    def vocab_size(self) -> int:
        """Ids lie below it; a model may have room for more."""
        return 1 + max(self.backend.get_vocab(with_added_tokens=True).values())

    @functools.cached_property
    def special(self) -> frozenset[int]:
        """Ids of the tokens that mark and are no text."""
        return frozenset(id for id, token in self.backend.get_added_tokens_decoder().items() if token.special)

    def encode(self, text: str, bos: bool = False) -> np.ndarray:
        """Token ids, int32 [T]; special tokens that are spelled out in the text are read as such.

        Args:
          bos: whether the text begins a document. Without it the tokens may be appended to others.

        Raises:
          ValueError: the text is not Unicode, or a document's first token is asked for and there is none.
        """
        if bos and self.bos is None:
            raise ValueError(f"{self.source} has no token that begins a document: encode with bos=False")
        try:
            text = (" " if bos and self.prefix_space else "") + text
            tokens = self.backend.encode(text, add_special_tokens=False).ids
        except TypeError:
            raise ValueError(f"{text!r} is not Unicode text: repair what it was read from") from None
        return np.asarray([self.bos, *tokens] if bos else tokens, np.int32)

    def decode(self, tokens: Sequence[int], special: bool = False) -> str:
        """The text of tokens; bytes that make no letter become U+FFFD.

        Args:
          special: whether special tokens are spelled out or left out.

        Raises:
          ValueError: a token lies outside of the vocabulary.
        """
        pieces = self._pieces(tokens)
        kept = (piece for token, piece in pieces if special or token not in self.special)
        return b"".join(kept).decode("utf-8", "replace")

    def located(self, tokens: Sequence[int]) -> Located:
        """The text of tokens, special ones spelled out, and the characters of each.

        Raises:
          ValueError: a token lies outside of the vocabulary.
        """
        decoder = codecs.getincrementaldecoder("utf-8")("replace")
        text, starts, ends, length = [], [], [], 0
        for _, piece in self._pieces(tokens):
            text.append(decoder.decode(piece))
            starts.append(length)
            length += len(text[-1])
            ends.append(length + bool(decoder.getstate()[0]))  # a letter that is not complete yet is this token's too
        text.append(decoder.decode(b"", final=True))
        return Located("".join(text), np.asarray(starts, np.int32), np.asarray(ends, np.int32))

    def single_token(self, text: str) -> int:
        """The id of a text that must be one token, such as a label whose probability is asked for.

        Raises:
          ValueError: it is several tokens, or none.
        """
        tokens = self.encode(text).tolist()
        if len(tokens) != 1:
            names = ", ".join(repr(self.name(token)) for token in tokens) or "nothing"
            raise ValueError(f"{text!r} is not one token of {self.source} but {names}: choose another label")
        return tokens[0]

    def name(self, token: int) -> str:
        """The text of one token by itself."""
        return self._bytes[token].decode("utf-8", "replace")

    def names(self) -> dict[str, str]:
        """The special tokens as tokenizer_config.json and chat templates name them."""
        special = {"eos_token": self.eos, "pad_token": self.pad, "bos_token": self.bos}
        return {name: self.name(token) for name, token in special.items() if token is not None}

    def _pieces(self, tokens: Sequence[int]) -> list[tuple[int, bytes]]:
        """Tokens with their bytes; the space that `encode` puts in front of a document's first word is left out."""
        found, before = [], None
        for place, token in enumerate(np.asarray(tokens, np.int64).tolist()):
            if not 0 <= token < self.vocab_size:
                said = f"token {token} at place {place} lies outside of the {self.vocab_size} tokens of {self.source}"
                raise ValueError(f"{said}: decode with the tokenizer of the model that gave it, up to the row's length")
            piece = self._bytes[token]
            starts = self.prefix_space and before is not None and before == self.bos
            found.append((token, piece.removeprefix(b" ") if starts else piece))
            before = token
        return found

    @functools.cached_property
    def _bytes(self) -> list[bytes]:
        """The bytes of every token."""
        added = self.backend.get_added_tokens_decoder()
        to_byte = {letter: byte for byte, letter in enumerate(BYTE_LETTERS)}
        over_bytes = '"ByteLevel"' in json.dumps(json.loads(self.backend.to_str()).get("decoder"))
        found = [b""] * self.vocab_size
        for piece, token in self.backend.get_vocab(with_added_tokens=True).items():
            if token in added:
                found[token] = added[token].content.encode()
            elif over_bytes and to_byte.keys() >= set(piece):
                found[token] = bytes(to_byte[letter] for letter in piece)
            elif fallback := re.fullmatch(r"<0x([0-9A-F]{2})>", piece):
                found[token] = bytes([int(fallback[1], 16)])
            else:
                found[token] = piece.replace(SPACE, " ").encode()
        return found


def load_tokenizer(folder: str | Path, settings: dict[str, Any]) -> Tokenizer:
    """The tokenizer of tokenizer.json in a folder.

    Args:
      settings: the content of tokenizer_config.json, which names the special tokens.

    Raises:
      FileNotFoundError: there is no tokenizer.json.
      ValueError: it is damaged, of another kind, or a special token is not in it.
    """
    file = Path(folder) / "tokenizer.json"
    if not file.is_file():
        raise FileNotFoundError(f"{file} is missing: save the tokenizer with transformers' save_pretrained (fast form)")
    library = require("tokenizers", "language")
    try:
        backend, prefix_space = _unprefixed(library.Tokenizer.from_file(str(file)))
        kind = json.loads(backend.to_str())["model"]["type"]
    except Exception as error:  # noqa: BLE001: tokenizers raises Exception itself
        raise ValueError(f"{file} is damaged, it is no tokenizer ({error}): copy it again") from None
    if kind != "BPE":
        raise ValueError(f"{file} is a {kind} tokenizer, and only BPE is read here")
    backend.no_truncation()
    backend.no_padding()

    def special(name: str) -> int | None:
        named = settings.get(name)
        named = named.get("content") if isinstance(named, dict) else named
        if named is None:
            return None
        if not isinstance(named, str) or (token := backend.token_to_id(named)) is None:
            raise ValueError(f"{file} has no {named!r}, the {name} of tokenizer_config.json: copy both from one model")
        return token

    eos, pad = special("eos_token"), special("pad_token")
    if eos is None:
        raise ValueError(f"{file.with_name('tokenizer_config.json')} names no eos_token, so that no answer would end")
    return Tokenizer(backend, eos, eos if pad is None else pad, special("bos_token"), prefix_space, str(file))


def save_tokenizer(tokenizer: Tokenizer, folder: Path) -> dict[str, Any]:
    """Writes tokenizer.json; returns what tokenizer_config.json must say for `load_tokenizer` and for transformers."""
    written = json.loads(tokenizer.backend.to_str())
    if tokenizer.prefix_space:
        steps = [{"type": "Prepend", "prepend": SPACE}, written["normalizer"]]
        written["normalizer"] = {"type": "Sequence", "normalizers": [step for step in steps if step]}
    (folder / "tokenizer.json").write_text(json.dumps(written, ensure_ascii=False), encoding="utf-8")
    return {"tokenizer_class": "PreTrainedTokenizerFast", "clean_up_tokenization_spaces": False, **tokenizer.names()}


def _unprefixed(backend: Any) -> tuple[Any, bool]:
    """Takes a first word's space out of the normaliser: `encode` adds it where a document begins, and only there."""
    content = json.loads(backend.to_str())
    normalizer = content.get("normalizer") or {}
    steps = normalizer.get("normalizers", [normalizer])
    kept = [step for step in steps if step.get("type") != "Prepend"]
    if len(kept) == len(steps):
        return backend, False
    content["normalizer"] = {"type": "Sequence", "normalizers": kept} if kept else None
    return type(backend).from_str(json.dumps(content)), True
