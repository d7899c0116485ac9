"""Small edits of one line of a Python function, found in its syntax tree: what breaks a function, and what repairs it.

An edit is an operator at one of its places on a line, counted from the left. The operators are

  to <=, ...          a comparison becomes another one (`COMPARISONS` says which)
  add 1, subtract 1   an integer constant
  swap                the operands of an order comparison, or of an operator whose operands do not commute
  insert not          before a condition
  drop not            of a condition
  name                a variable becomes another one of the function's own

Whatever one of them breaks, another one repairs. The text around an edit stays as it is.
"""

import ast
import functools
import re
from collections.abc import Iterator, Mapping
from types import MappingProxyType
from typing import NamedTuple

COMPARISONS = {
    "==": ("!=",), "!=": ("==",), "<": ("<=", ">"), "<=": ("<", ">="), ">": (">=", "<"), ">=": (">", "<="),
    "is": ("is not",), "is not": ("is",), "in": ("not in",), "not in": ("in",),
}
OPERATORS = (*(f"to {name}" for name in COMPARISONS), "add 1", "subtract 1", "swap", "insert not", "drop not", "name")
# What a mutation is called; nothing here inserts a `not`, for the method's data only drops them.
KINDS = {operator: operator for operator in ("swap", "drop not", "name")}
KINDS |= {f"to {name}": "comparison" for name in COMPARISONS} | {"add 1": "constant", "subtract 1": "constant"}

NOT_COMMUTING = (ast.Sub, ast.Div, ast.FloorDiv, ast.Mod, ast.Pow, ast.LShift, ast.RShift)
ORDER = (ast.Lt, ast.LtE, ast.Gt, ast.GtE, ast.In, ast.NotIn)
COMPARISON = re.compile(r"not\s+in\b|is\s+not\b|is\b|in\b|[=!<>]=|[<>]")


class Edit(NamedTuple):
    """An operator at its `site`-th place on a line, both counted from 0; `name` needs the new variable."""

    line: int
    operator: str
    site: int
    argument: str = ""


class _Place(NamedTuple):
    """Characters `start` to `end` of a line may become one of some texts, by operator and argument."""

    line: int
    kind: str
    start: int
    end: int
    texts: Mapping[tuple[str, str], str]


@functools.lru_cache(maxsize=2**14)
def edits(source: str) -> Mapping[Edit, str]:
    """All edits of a function, and what each makes of its line.

    Args:
      source: ASCII, of one function.

    Raises:
      SyntaxError: it is no Python.
    """
    lines, found, counts = source.split("\n"), {}, {}
    for place in sorted(_places(ast.parse(source), lines), key=lambda place: (place.line, place.start, place.kind)):
        line = lines[place.line]
        site = counts.setdefault((place.line, place.kind), 0)
        counts[place.line, place.kind] += 1
        for (operator, argument), text in place.texts.items():
            edited = line[: place.start] + text + line[place.end :]
            if edited != line:
                found[Edit(place.line, operator, site, argument)] = edited
    return MappingProxyType(found)


def changed(source: str, edit: Edit) -> str:
    """The function after an edit of `edits`."""
    lines = source.split("\n")
    lines[edit.line] = edits(source)[edit]
    return "\n".join(lines)


def variables(tree: ast.AST) -> list[str]:
    """The variables that a function makes: its parameters, and what it assigns; sorted."""
    names = {node.arg for node in ast.walk(tree) if isinstance(node, ast.arg)}
    names |= {node.id for node in ast.walk(tree) if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store)}
    return sorted(names)


def _places(tree: ast.AST, lines: list[str]) -> Iterator[_Place]:
    """Every place within a line."""
    own = variables(tree)
    conditions = {
        id(part) for node in ast.walk(tree) for part in (
            *([node.test] if isinstance(node, ast.If | ast.While | ast.IfExp | ast.Assert) else ()),
            *(node.values if isinstance(node, ast.BoolOp) else ()),
            *(node.ifs if isinstance(node, ast.comprehension) else ()),
            *([node.value] if isinstance(node, ast.Return) and node.value is not None else ()),
        )
    }
    for node in ast.walk(tree):
        if not isinstance(node, ast.expr) or node.lineno != node.end_lineno:
            continue
        at, start, end = node.lineno - 1, node.col_offset, node.end_col_offset
        text = lines[at]
        if isinstance(node, ast.Compare) and len(node.ops) == 1:
            left, right = node.left.end_col_offset, node.comparators[0].col_offset
            if match := COMPARISON.search(text, left, right):
                now = re.sub(r"\s+", " ", match[0])
                yield _Place(at, "to", *match.span(), {(f"to {name}", ""): name for name in COMPARISONS[now]})
            if isinstance(node.ops[0], ORDER):
                yield _swap(at, text, node.left, node.comparators[0])
        if isinstance(node, ast.BinOp) and (
            isinstance(node.op, NOT_COMMUTING) or isinstance(node.op, ast.Add) and _is_text(node)
        ):
            yield _swap(at, text, node.left, node.right)
        if isinstance(node, ast.Constant) and type(node.value) is int and text[start:end] == str(node.value):
            up, down = (str(node.value + step) for step in (1, -1))
            yield _Place(at, "constant", start, end, {("add 1", ""): up, ("subtract 1", ""): down})
        if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.Not):
            yield _Place(at, "drop not", start, end, {("drop not", ""): text[start:end].removeprefix("not").lstrip()})
        elif id(node) in conditions:
            yield _Place(at, "insert not", start, start, {("insert not", ""): "not "})
        if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Load) and node.id in own:
            yield _Place(at, "name", start, end, {("name", name): name for name in own if name != node.id})


def _swap(at: int, text: str, left: ast.expr, right: ast.expr) -> _Place:
    start, middle, then, end = left.col_offset, left.end_col_offset, right.col_offset, right.end_col_offset
    return _Place(at, "swap", start, end, {("swap", ""): text[then:end] + text[middle:then] + text[start:middle]})


def _is_text(node: ast.BinOp) -> bool:
    """Whether an operand is a string or a list, so that a sum does not commute."""
    parts = node.left, node.right
    return any(isinstance(x, ast.List | ast.JoinedStr) or isinstance(getattr(x, "value", None), str) for x in parts)
