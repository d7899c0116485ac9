"""The language of the edit policy: a function as at most 64 tokens, an edit of it as three or four.

A prompt is the function, each line after its number, with the variables that are not frequent by their order: "L1 def
v0 ( self ) : L2 return self . v1 =>". A response is a line, an operator of edits.py, a place and, for `name`, a
variable: "L2 add 1 #0". `rendered` writes it as the response of the full contract (rl_jax/language/patches.py), and
that is what is rewarded. A response that is no edit of the function becomes one that breaks the contract, or a block
that searches for nothing or changes nothing: the reward refuses all of them.
"""

import keyword
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from experiments.swe_rl.edits import OPERATORS, Edit, edits
from rl_jax.language.patches import Block
from rl_jax.language.patches import rendered as as_response
from rl_jax.language.questions import Questions, Words

LINES, TOKENS, SITES, VARIABLES, FREQUENT = 8, 64, 6, 16, 128
LONGEST = 5  # tokens of a response
TOKEN = re.compile(
    r"""[rbfuRBFU]{0,2}(?:"(?:\\.|[^"\\\n])*"|'(?:\\.|[^'\\\n])*')|\d[\w.]*|\w+"""
    r"""|\*\*=|//=|<<=|>>=|\.\.\.|->|:=|[=!<>+\-*/%&|^@]=|\*\*|//|<<|>>|\S"""
)
SIGNS = ("**=", "//=", "<<=", ">>=", "...", "->", ":=", *(f"{x}=" for x in "=!<>+-*/%&|^@"), "**", "//", "<<", ">>",
         *"+-*/%&|^~@=<>()[]{},:.;")
END, ASK, NUMBER, TEXT, OTHER = "<end>", "=>", "<number>", "<text>", "<other>"
NUMBERS = tuple(str(number) for number in range(-1, 17))
KEYWORDS = (*keyword.kwlist, "self", "cls")


class Spelled(NamedTuple):
    """The words of a function, and the variable that each name among them stands for."""

    words: list[str]
    names: dict[str, str]


def spelled(source: str, frequent: Iterable[str]) -> Spelled:
    """A function in words of the policy's language."""
    frequent, own, found = {*KEYWORDS, *frequent}, {}, []
    for number, line in enumerate(source.split("\n")[:-1], 1):
        found.append(f"L{number}")
        for word in TOKEN.findall(line):
            if word in frequent or word in SIGNS or word in NUMBERS:
                found.append(word)
            elif word.isidentifier():
                found.append(own.setdefault(word, f"v{len(own)}" if len(own) < VARIABLES else OTHER))
            else:
                found.append(NUMBER if word[0].isdigit() else TEXT if word[-1] in "\"'" else OTHER)
    names = {word: name for name, word in own.items() if word != OTHER}
    return Spelled(found, names | {word: word for word in frequent})


class Language(NamedTuple):
    """A vocabulary: 0 ends a response and fills rows."""

    frequent: tuple[str, ...]
    vocabulary: tuple[str, ...]

    @property
    def words(self) -> Words:
        return Words(lambda tokens: "\t".join(self.vocabulary[token] for token in tokens), (0,))

    def encode(self, words: Iterable[str]) -> list[int]:
        place = {word: number for number, word in enumerate(self.vocabulary)}
        return [place[word] for word in words]

    def prompt(self, source: str) -> list[int]:
        return self.encode([*spelled(source, self.frequent).words, ASK])

    def answer(self, source: str, edit: Edit) -> list[int] | None:
        """An edit and the end; None if it is beyond the language."""
        names = {name: word for word, name in spelled(source, self.frequent).names.items()}
        words = [f"L{edit.line + 1}", edit.operator, f"#{edit.site}", *([names.get(edit.argument, OTHER)]
                 if edit.argument else []), END]
        return None if edit.site >= SITES or OTHER in words else self.encode(words)

    def questions(self, rows: Sequence[Mapping[str, Any]]) -> Questions:
        prompts = [self.prompt(source_of(row)) for row in rows]
        lengths = np.array([len(prompt) for prompt in prompts], np.int32)
        tokens = np.zeros((len(prompts), lengths.max()), np.int32)
        for row, prompt in zip(tokens, prompts, strict=True):
            row[: len(prompt)] = prompt
        return Questions(tokens, lengths, rows)

    def reads(self, source: str, longest: int = TOKENS) -> bool:
        """Whether a function has few enough lines, and at most so many tokens."""
        return source.count("\n") <= LINES and len(self.prompt(source)) <= longest

    def rendered(self, row: Mapping[str, Any], text: str) -> str:
        """The response of the full contract that a response of the policy stands for."""
        ((path, source),) = row["files"].items()
        said, lines = text.split("\t"), source.split("\n")[:-1]
        kinds = [r"L\d", "|".join(OPERATORS), r"#\d", *([r".+"] if "name" in said[1:2] else [])]
        if len(said) != len(kinds) or not all(map(re.fullmatch, kinds, said)):
            return f"<think>\n{' '.join(said)}\n</think>"
        number, site = int(said[0][1:]) - 1, int(said[2][1:])
        before = lines[number] if number < len(lines) else ""
        argument = spelled(source, self.frequent).names.get(said[3], "") if len(said) > 3 else ""
        after = edits(source).get(Edit(number, said[1], site, argument), before)
        return as_response(f"Line {number + 1}: {' '.join(said[1:])}.", [Block(path, before, after)])


def language(sources: Iterable[str]) -> Language:
    """The language in which the most frequent names of some functions have words of their own."""
    counts = Counter(word for source in sources for word in TOKEN.findall(source) if word.isidentifier())
    frequent = [name for name, _ in sorted(counts.items(), key=lambda x: (-x[1], x[0])) if name not in KEYWORDS]
    frequent = tuple(frequent[:FREQUENT])
    every = (
        END, ASK, NUMBER, TEXT, OTHER, *(f"L{n}" for n in range(1, LINES + 1)), *(f"#{n}" for n in range(SITES)),
        *(f"v{n}" for n in range(VARIABLES)), *OPERATORS, *NUMBERS, *SIGNS, *KEYWORDS, *frequent,
    )
    return Language(frequent, tuple(dict.fromkeys(every)))


def source_of(row: Mapping[str, Any]) -> str:
    """The one file of a row."""
    (source,) = row["files"].values()
    return source
