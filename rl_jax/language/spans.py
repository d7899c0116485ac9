"""Where steps, tags and changes stand in a row of tokens, as ranges of it: no text is encoded again."""

import difflib
import re
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

Span = tuple[int, int]  # from the first one to the one after the last


class Located(NamedTuple):
    """The text of a row of tokens, and where each token stands in it.

    Attributes:
      starts, ends: [T] int32, the first character of a token and the one after its last. A character that several
        tokens make together belongs to each.
    """

    text: str
    starts: np.ndarray
    ends: np.ndarray

    def tokens(self, start: int, end: int) -> Span:
        """The fewest tokens that hold the characters from `start` to before `end`; empty where there are none."""
        first = int(np.searchsorted(self.ends, start, side="right"))
        return first, max(first, int(np.searchsorted(self.starts, end, side="left")))

    def spans(self, pattern: str) -> list[Span]:
        """Token ranges of what a regular expression finds: of its first group, or of the whole where it has none."""
        found = re.finditer(pattern, self.text, re.DOTALL)
        return [self.tokens(*match.span(1 if match.re.groups else 0)) for match in found]

    def tags(self, name: str) -> list[Span]:
        """Token ranges of what stands between <name> and </name>."""
        return self.spans(rf"<{re.escape(name)}>(.*?)</{re.escape(name)}>")

    def steps(self, separator: str = "\n") -> list[Span]:
        """Token ranges of the steps of an answer; together they are all of its tokens.

        A step ends with the last token of a separator, and one of blanks alone is part of the one before.

        Args:
          separator: a regular expression, such as "\n\n" or "(?=Step [0-9]+:)".
        """
        cuts, begin = [0], 0
        for match in re.finditer(separator, self.text):
            _, cut = self.tokens(0, match.end())
            if self.text[begin : match.end()].strip() and self.text[match.end() :].strip() and cut > cuts[-1]:
                cuts.append(cut)
                begin = match.end()
        return list(zip(cuts, [*cuts[1:], len(self.starts)], strict=True)) if len(self.starts) else []


def changes(before: Sequence[int], after: Sequence[int]) -> tuple[list[Span], list[Span]]:
    """Where two rows of token ids differ: ranges of the first and of the second, by difflib's longest matches."""
    matcher = difflib.SequenceMatcher(None, list(map(int, before)), list(map(int, after)), autojunk=False)
    differ = [code for code in matcher.get_opcodes() if code[0] != "equal"]
    return [(i, j) for _, i, j, _, _ in differ if j > i], [(i, j) for _, _, _, i, j in differ if j > i]
