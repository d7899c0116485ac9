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


def changes(
    before: Sequence[int], after: Sequence[int], shortest: int = 1, one_sided: bool = True
) -> tuple[list[Span], list[Span]]:
    """Where two rows of token ids differ: ranges of the first and of the second, by difflib's longest matches.

    Args:
      shortest: tokens of a match; shorter ones are part of the change around them.
      one_sided: whether pure insertions and deletions count, which have nothing on the other side.
    """
    matcher = difflib.SequenceMatcher(None, list(map(int, before)), list(map(int, after)), autojunk=False)
    differ: list[tuple[Span, Span]] = []
    first, second = 0, 0  # where the change begins that the next long match ends; the last match is empty
    for match in matcher.get_matching_blocks():
        if match.size >= shortest or not match.size:
            differ.append(((first, match.a), (second, match.b)))
            first, second = match.a + match.size, match.b + match.size
    differ = [both for both in differ if one_sided or all(end > start for start, end in both)]
    first_spans, second_spans = ([both[side] for both in differ if both[side][1] > both[side][0]] for side in (0, 1))
    return first_spans, second_spans
