"""What the paper trains on and judges by: committed functions and programs, or a user's own issues with their patches.

A row is what the reward "patch" reads: `files` and `patched`, texts by path, with `issue`, and `source`, where it is
from. SOURCE.md says what lies beside this file, how it was made, and by whom it is licensed.
"""

import hashlib
import json
import lzma
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from absl import logging

from rl_jax.language.patches import changes, is_test, normalised, patched, quotes

FOLDER = Path(__file__).parent / "data"
FUNCTIONS, QUIXBUGS = FOLDER / "functions.jsonl.xz", FOLDER / "quixbugs.jsonl.xz"
MOST_OF_A_PACKAGE = 60  # functions of a package that is held out

Row = dict[str, Any]


def held_out_packages(counts: Mapping[str, int], least: int) -> set[str]:
    """Packages that have at least so many functions together, by a checksum of their names; no large one."""
    found, total = set(), 0
    for package in sorted(counts, key=lambda name: hashlib.sha256(name.encode()).hexdigest()):
        if total < least and counts[package] <= MOST_OF_A_PACKAGE:
            found.add(package)
            total += counts[package]
    return found


def functions() -> tuple[list[Row], list[Row]]:
    """Broken functions of the standard library, (to train on, of packages that are held out); `source` is the kind."""
    parts = [], []
    for row in _read(FUNCTIONS):
        lines = row["code"].split("\n")
        lines[row["line"]] = row["wrong"]
        path = f"{row['module'].replace('.', '/')}.py"
        parts[row["held_out"]].append(_row(path, "\n".join(lines), row["code"], row["name"], row["kind"]))
    return parts


def quixbugs() -> list[Row]:
    """QuixBugs' programs; `name` and `cases` are what execution.py reads."""
    return [
        _row(f"{row['name']}.py", row["buggy"], row["fixed"], row["name"], "quixbugs") | {"cases": row["cases"]}
        for row in _read(QUIXBUGS)
    ]


def _row(path: str, buggy: str, fixed: str, name: str, source: str) -> Row:
    return {
        "issue": f"`{name}` does not do what it should: one of its lines is wrong.", "files": {path: buggy},
        "patched": {path: fixed}, "name": name, "source": source,
    }


def _read(path: Path) -> list[dict[str, Any]]:
    with lzma.open(path, "rt", encoding="utf-8") as file:
        return [json.loads(line) for line in file]


def issues(name: str) -> list[Row]:
    """The rows of a user's file: a JSON object a line, {"issue", "files": {path: text}, "patch": unified diff}.

    Files of tests are left out of the target, and rows whose issue quotes a line that the patch adds are left out.

    Raises:
      FileNotFoundError: there is no such file.
      ValueError: a line is no such object, its patch does not fit its files or changes tests alone, or no row is left.
    """
    path, found, leaked = Path(name).expanduser(), [], 0
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such file: give config.data.name one of issues, or leave it empty")
    for number, line in enumerate(path.read_text(encoding="utf-8").split("\n"), 1):
        if not line.strip():
            continue
        try:
            row = _issue(json.loads(line))
        except ValueError as error:
            raise ValueError(f"{path}, line {number}: {error}") from error
        if quotes(row["issue"], changes(row["files"], row["patched"])):
            leaked += 1
        else:
            found.append(row)
    if leaked:
        logging.warning("%s: %d rows whose issue quotes the patch are left out", path, leaked)
    if not found:
        raise ValueError(f"{path} holds no row to learn from, and {leaked} whose issue quotes the patch")
    return found


def _issue(row: Any) -> Row:
    kinds = {"issue": str, "files": dict, "patch": str}
    for field, kind in kinds.items():
        if not isinstance(row, dict) or not isinstance(row.get(field), kind) or not row[field]:
            raise ValueError(f"{field!r} is to be {'an object of texts by path' if kind is dict else 'a text'}")
    if not all(isinstance(text, str) for text in row["files"].values()):
        raise ValueError("'files' is to be an object of texts by path")
    files = {path: normalised(text) for path, text in row["files"].items()}
    target = {path: text for path, text in patched(files, row["patch"]).items() if not is_test(path)}
    if not changes(files, target):
        raise ValueError("the patch changes nothing but tests")
    return {"issue": row["issue"], "files": files, "patched": target, "source": "issues"}
