"""Patches as a language model writes them, search/replace blocks, and how alike two changes of files are.

A response thinks and then answers:

    <think>
    why
    </think>
    <solution>
    ```python
    ### path/of/the/file.py
    <<<<<<< SEARCH
    lines that stand in the file
    =======
    lines that stand there afterwards
    >>>>>>> REPLACE
    ```
    </solution>

Similarity is that of SWE-RL (Wei et al. 2025, arXiv 2502.18449): of the diffs, never of the files, of which all but a
few lines are the same whatever was changed. Files are dictionaries from paths to texts that `normalised` has made.
"""

import difflib
import functools
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import NamedTuple

TAGS = ("<think>", "</think>", "<solution>", "</solution>")
FENCE, SEARCH, SEPARATOR, REPLACE = "```", "<<<<<<< SEARCH", "=======", ">>>>>>> REPLACE"

Files = Mapping[str, str]


class PatchError(ValueError):
    """A response is no patch of the files: it breaks the contract, or changes what is not there, or nothing."""


class Block(NamedTuple):
    """In the file `path`, `search` becomes `replace`; whole lines, without the last one's end."""

    path: str
    search: str
    replace: str


def normalised(text: str) -> str:
    """The text with a line feed at the end of each line, the last one too; files and targets are read through it."""
    text = text.replace("\r\n", "\n").replace("\r", "\n")
    return text if text.endswith("\n") or not text else text + "\n"


def rendered(thought: str, blocks: Sequence[Block]) -> str:
    """The response that says these blocks."""
    written = [
        f"{FENCE}python\n### {path}\n{SEARCH}\n{search}\n{SEPARATOR}\n{replace}\n{REPLACE}\n{FENCE}\n"
        for path, search, replace in blocks
    ]
    return f"<think>\n{thought}\n</think>\n<solution>\n{''.join(written)}</solution>"


def parse(response: str) -> list[Block]:
    """The blocks of a response, in their order; what is no block is left out, as the authors' reader does.

    Raises:
      PatchError: a tag does not come exactly once, the thought is empty, or there is no block.
    """
    for tag in TAGS:
        if response.count(tag) != 1:
            raise PatchError(f"{tag} comes {response.count(tag)} times")
    thought, solution = (response.partition(TAGS[at])[2].partition(TAGS[at + 1])[0].strip() for at in (0, 2))
    if not thought:
        raise PatchError("the thought is empty")
    lines, found, at = solution.replace("\r\n", "\n").split("\n"), [], 0
    while at < len(lines) - 2:
        ends = _ends(lines, at)
        if ends is None:
            at += 1
            continue
        separator, end = ends
        path = lines[at + 1].removeprefix("### ").strip()
        found.append(Block(path, "\n".join(lines[at + 3 : separator]), "\n".join(lines[separator + 1 : end])))
        at = end + 2
    if not found:
        raise PatchError("there is no search/replace block")
    return found


def _ends(lines: Sequence[str], at: int) -> tuple[int, int] | None:
    """Where the separator and the last mark of the block stand that opens with a fence at `at`, if one does."""
    if not (lines[at].startswith(FENCE) and lines[at + 1].startswith("### ") and lines[at + 2] == SEARCH):
        return None
    try:
        separator = lines.index(SEPARATOR, at + 3)
        end = lines.index(REPLACE, separator + 1)
    except ValueError:
        return None
    return (separator, end) if lines[end + 1 : end + 2] == [FENCE] else None


def applied(files: Files, blocks: Sequence[Block]) -> dict[str, str]:
    """The files that the blocks change, by path, after all of them.

    Blocks act in their order, each on what those before it have left, and on every occurrence. An occurrence begins at
    a line's begin and may end within a line. A path that is not there is an empty file. An empty search text, which by
    the authors' code would insert at every line, is refused.

    Raises:
      PatchError: a block searches for nothing or for what is not there, or changes nothing.
    """
    found: dict[str, str] = {}
    for path, search, replace in blocks:
        if not search:
            raise PatchError(f"{path}: the search text is empty")
        if search == replace:
            raise PatchError(f"{path}: the block changes nothing")
        text = "\n" + found.get(path, files.get(path, ""))
        if "\n" + search not in text:
            raise PatchError(f"{path}: the search text does not stand at the begin of a line")
        found[path] = text.replace("\n" + search, "\n" + replace)[1:]
    return found


def changes(files: Files, after: Files) -> dict[str, str]:
    """Unified diffs with three lines of context, without their two lines of header, of the files that differ."""
    found = {}
    for path, text in after.items():
        lines = list(difflib.unified_diff(files.get(path, "").splitlines(), text.splitlines(), n=3, lineterm=""))
        if lines:
            found[path] = "\n".join(lines[2:])
    return found


def similarities(predicted: Files, true: Files, longest: int) -> dict[str, float]:
    """How alike two diffs are, in [0, 1], of each path that either has; 0 where one alone has it.

    Args:
      longest: characters of a predicted diff, beyond which it counts as unlike: the comparison takes quadratic time.
    """
    return {
        path: _ratio(predicted[path], true[path])
        if path in predicted and path in true and len(predicted[path]) <= longest else 0.0
        for path in sorted({*predicted, *true})
    }


@functools.lru_cache(maxsize=2**16)
def _ratio(predicted: str, true: str) -> float:
    # Not symmetric in its arguments; autojunk would leave out every frequent letter of longer diffs.
    return difflib.SequenceMatcher(None, predicted, true, autojunk=False).ratio()


def line_precision(predicted: Files, true: Files, sign: str) -> float | None:
    """The share of the lines that a prediction adds ("+") or removes ("-") that the true change does too.

    None where it adds or removes none.
    """
    found = [Counter((path, line) for path, diff in part.items() for line in diff.split("\n") if line.startswith(sign))
             for part in (predicted, true)]
    total = found[0].total()
    return (found[0] & found[1]).total() / total if total else None


# Targets


HUNK = re.compile(r"@@ -(\d+)(?:,(\d+))? \+(\d+)(?:,(\d+))? @@")
TESTS = re.compile(r"(^|/)(tests?|testing)/|(^|/)(test_[^/]*|[^/]*_tests?|conftest)\.\w+$")


def is_test(path: str) -> bool:
    """Whether a path is of tests, which are no part of a target: a repair is not to guess them."""
    return TESTS.search(path) is not None


def patched(files: Files, patch: str) -> dict[str, str]:
    """The files that a unified diff, such as git's, changes, after it.

    Args:
      files: normalised.

    Raises:
      ValueError: the diff is damaged, or does not fit the files.
    """
    lines, found, at = normalised(patch).split("\n")[:-1], {}, 0
    while at < len(lines):
        if not (lines[at].startswith("--- ") and lines[at + 1 : at + 2] and lines[at + 1].startswith("+++ ")):
            at += 1
            continue
        old, new = (re.sub(r"^[ab]/", "", line[4:].split("\t")[0].strip()) for line in lines[at : at + 2])
        path, at = (old if new == "/dev/null" else new), at + 2
        if old not in files and old != "/dev/null":
            raise ValueError(f"the patch changes {old!r}, which is none of the files: {', '.join(sorted(files))}")
        before, after, read = files.get(old, "").split("\n")[:-1], [], 0
        while at < len(lines) and (hunk := HUNK.match(lines[at])):
            start, count, new_count = (int(hunk[1]), *(int(hunk[n] or 1) for n in (2, 4)))
            start -= count > 0  # the number of no lines is that of the line before
            removed, added, at = [], [], at + 1
            while at < len(lines) and (len(removed), len(added)) != (count, new_count):
                line, at = lines[at] or " ", at + 1
                removed += [line[1:]] if line[0] in " -" else []
                added += [line[1:]] if line[0] in " +" else []
            if start < read or before[start : start + count] != removed:
                raise ValueError(f"the patch does not fit {old!r} at line {start + 1}")
            after += before[read:start] + added
            read = start + count
            at += lines[at : at + 1] == ["\\ No newline at end of file"]
        after += before[read:]
        found[path] = "".join(f"{line}\n" for line in after)
    if not found:
        raise ValueError("the patch changes no file: give a unified diff")
    return found


def quotes(issue: str, true: Files, least: int = 20) -> bool:
    """Whether an issue has a line that the true change adds, of at least so many characters: the answer has leaked."""
    added = {line[1:].strip() for diff in true.values() for line in diff.split("\n") if line.startswith("+")}
    return any(len(line) >= least and line in issue for line in added)
