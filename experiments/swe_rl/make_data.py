"""Makes the committed data: functions of the standard library with one mutation each, and QuixBugs' programs.

    python -m experiments.swe_rl.make_data --quixbugs=CHECKOUT --outdir=DIR

The functions are those of the Python that runs this, so another version makes other data: SOURCE.md says which one made
what is committed. CHECKOUT is a clone of github.com/jkoppel/QuixBugs.
"""

import argparse
import ast
import hashlib
import json
import lzma
import sysconfig
import textwrap
import warnings
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from experiments.swe_rl.bugs import held_out_packages
from experiments.swe_rl.edits import KINDS, Edit, changed, edits
from experiments.swe_rl.execution import pass_rate
from experiments.swe_rl.language import LINES, TOKENS, spelled

CHARACTERS = 200
TRAIN, HELD_OUT = 4000, 300
LEFT_OUT = {"test", "tests", "idle_test", "site-packages", "lib2to3", "turtledemo", "pydoc_data", "ensurepip"}


def functions(library: Path) -> Iterator[tuple[str, str, str]]:
    """(module, name, source) of the short functions under a folder, without decorators, docstrings and comments."""
    for path in sorted(library.rglob("*.py")):
        parts = path.relative_to(library).with_suffix("").parts
        if LEFT_OUT & set(parts):
            continue
        try:
            text = path.read_text(encoding="utf-8")
            tree = ast.parse(text)
        except (UnicodeDecodeError, SyntaxError):
            continue
        lines = text.split("\n")
        for node in ast.walk(tree):
            if not isinstance(node, ast.FunctionDef):
                continue
            body, first = list(node.body), node.lineno
            source = lines[first - 1 : node.end_lineno]
            if ast.get_docstring(node) is not None:
                here = body[0]
                if here.lineno == node.lineno or len(body) == 1:
                    continue
                source = lines[first - 1 : here.lineno - 1] + lines[here.end_lineno : node.end_lineno]
            source = [line for line in source if line.strip() and not line.lstrip().startswith("#")]
            found = textwrap.dedent("\n".join(source)) + "\n"
            if 2 <= len(source) <= LINES and len(found) <= CHARACTERS and found.isascii() and _parses(found):
                yield ".".join(parts), node.name, found


def _parses(source: str) -> bool:
    """Whether it is Python; not where a text of several lines stood further left, and none with comments is taken."""
    try:
        ast.parse(source)
    except SyntaxError:
        return False
    return "#" not in source and '"""' not in source


def mutated(fixed: str, chosen: np.random.Generator) -> tuple[str, Edit] | None:
    """A broken form of a function, and the edit that repairs it; None if no edit breaks it so that one repairs it."""
    by_kind: dict[str, list[Edit]] = {}
    for edit in edits(fixed):
        if edit.operator in KINDS:
            by_kind.setdefault(KINDS[edit.operator], []).append(edit)
    for kind in chosen.permutation(sorted(by_kind)):
        for number in chosen.permutation(len(by_kind[kind])):
            edit = by_kind[kind][number]
            buggy = changed(fixed, edit)
            line = buggy.split("\n")[edit.line]
            try:
                repairs = [x for x in edits(buggy) if x.line == edit.line and changed(buggy, x) == fixed]
            except SyntaxError:
                continue
            # A block searches for the line's text: it is to stand there once.
            if repairs and ("\n" + buggy).count("\n" + line) == 1:
                return buggy, repairs[0]
    return None


def standard_library(library: Path) -> list[dict[str, Any]]:
    """The rows of functions.jsonl.xz: first those to train on."""
    chosen, found, seen = np.random.default_rng(0), [], set()
    for module, name, fixed in functions(library):
        alike = tuple(spelled(fixed, ()).words)
        if alike in seen or (made := mutated(fixed, chosen)) is None or len(spelled(made[0], ()).words) >= TOKENS:
            continue
        seen.add(alike)
        buggy, repair = made
        wrong = buggy.split("\n")[repair.line]
        found.append({"module": module, "name": name, "code": fixed, "line": repair.line, "wrong": wrong,
                      "kind": KINDS.get(repair.operator, "drop not")})
    counts = Counter(row["module"].split(".")[0] for row in found)
    judged = held_out_packages(counts, HELD_OUT)
    parts = [[row for row in found if (row["module"].split(".")[0] in judged) == held] for held in (False, True)]
    kept = []
    for part, most in zip(parts, (TRAIN, HELD_OUT), strict=True):
        take = np.sort(chosen.permutation(len(part))[:most])
        kept += [part[number] | {"held_out": part is parts[1]} for number in take]
    return kept


def quixbugs(checkout: Path) -> list[dict[str, Any]]:
    """The rows of quixbugs.jsonl.xz: the programs that have test cases as JSON."""

    def program(path: Path) -> str:
        text = path.read_text(encoding="utf-8")
        kept = [node for node in ast.parse(text).body if not isinstance(node, ast.Expr)]
        lines = text.split("\n")
        source = [line for node in kept for line in lines[node.lineno - 1 : node.end_lineno]]
        return "".join(f"{line}\n" for line in source if line.strip() and not line.lstrip().startswith("#"))

    found = []
    for path in sorted((checkout / "json_testcases").glob("*.json")):
        cases = [json.loads(line) for line in path.read_text(encoding="utf-8").split("\n") if line.strip()]
        folders = "python_programs", "correct_python_programs"
        buggy, fixed = (program(checkout / folder / f"{path.stem}.py") for folder in folders)
        # Some run for minutes, and one is of numbers that are right but for their last digits.
        cases = [case for case in cases if pass_rate(fixed, path.stem, [case]) == 1.0]
        found.append({"name": path.stem, "buggy": buggy, "fixed": fixed, "cases": cases})
    return found


def write(path: Path, found: list[dict[str, Any]]) -> None:
    text = "".join(json.dumps(row) + "\n" for row in found).encode()
    path.write_bytes(lzma.compress(text, preset=9))
    print(path, len(found), "rows", path.stat().st_size, "bytes, sha256", hashlib.sha256(path.read_bytes()).hexdigest())


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--quixbugs", type=Path, required=True)
    parser.add_argument("--outdir", type=Path, required=True)
    told = parser.parse_args(arguments)
    warnings.simplefilter("ignore", SyntaxWarning)  # of `3 is x`, as mutations have it
    write(told.outdir / "quixbugs.jsonl.xz", quixbugs(told.quixbugs))
    write(told.outdir / "functions.jsonl.xz", standard_library(Path(sysconfig.get_path("stdlib"))))


if __name__ == "__main__":
    main()
