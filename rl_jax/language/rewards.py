"""Rewards that a rule can check: registered functions of a row, a response and the training's progress, from options.

A row is what is known of a question, a dictionary of plain values; each reward says which it reads. Training and
evaluation score by the same function, so they share one way to read an answer. Nothing here is evaluated as code: an
arithmetic expression is parsed, and numbers are exact fractions. The module imports quickly and touches no device: it
is what the processes of reward_pool.py run.
"""

import ast
import inspect
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from fractions import Fraction
from typing import Any, NamedTuple

from rl_jax.core.config import unknown
from rl_jax.core.extras import require
from rl_jax.language import patches

SCORED = "scored"
FAILURES = ("timed_out", "out_of_memory", "raised", "died")  # outcomes of items that have no score
MOST_DIGITS = 100  # of a number, and MOST_LETTERS of an expression, that is still read
MOST_LETTERS = 1000
NUMBER = re.compile(r"-?(?:\d{1,3}(?:,\d{3})+|\d+)(?:\.\d+)?(?:/\d+)?|-?\.\d+")


class Score(NamedTuple):
    """What a reward says of one response.

    Attributes:
      score: 0 where the outcome is a failure, which is no score at all.
      parts: numbers that go beside it in the metrics, by name.
      outcome: SCORED, or one of FAILURES.
    """

    score: float
    parts: Mapping[str, float] = {}
    outcome: str = SCORED


# (row, response, share of the training that is done, in [0, 1]) -> Score
Reward = Callable[[Mapping[str, Any], str, float], Score]


def reward(name: str, **options: Any) -> Reward:
    """Makes a registered reward.

    Raises:
      ValueError: there is none of that name, or it has no such option.
    """
    return make(REWARDS, name, options)


def make(registry: Mapping[str, Callable[..., Reward]], name: str, options: Mapping[str, Any]) -> Reward:
    """The same from a registry of a paper's own."""
    if name not in registry:
        raise ValueError(unknown("reward", name, registry))
    known = inspect.signature(registry[name]).parameters
    for option in options:
        if option not in known:
            said = f"its options are {', '.join(known)}" if known else "it has no options"
            raise ValueError(f"reward {name!r} does not know {option}: {said}")
    return registry[name](**options)


# Reading answers


def parse_number(text: str) -> Fraction | None:
    """The number that a text is, exactly: "-7", "1,234.50", "$3", "20%", "3/4"; None if it is anything else."""
    text = text.strip().removesuffix(".").removesuffix("%").replace("$", "").strip()
    if len(text) > MOST_DIGITS or not NUMBER.fullmatch(text):
        return None
    try:
        return Fraction(text.replace(",", ""))
    except ZeroDivisionError:
        return None


def final_number(response: str, marker: str = "") -> Fraction | None:
    """The last number of a response, or of what follows the last `marker`; None without one."""
    if marker and marker not in response:
        return None
    found = NUMBER.findall(response.rpartition(marker)[2] if marker else response)
    return parse_number(found[-1]) if found else None


OPERATORS: dict[type, Callable[[Fraction, Fraction], Fraction]] = {
    ast.Add: lambda a, b: a + b, ast.Sub: lambda a, b: a - b, ast.Mult: lambda a, b: a * b, ast.Div: lambda a, b: a / b,
}


class Expression(NamedTuple):
    """An arithmetic expression: its exact value, and the numbers that it is made of."""

    value: Fraction
    numbers: tuple[int, ...]


def parse_expression(text: str) -> Expression | None:
    """Reads whole numbers, + - * /, signs and brackets; None if the text is anything else or divides by 0."""
    text = text.strip()
    if len(text) > MOST_LETTERS or not re.fullmatch(r"[0-9+\-*/() ]+", text) or "**" in text or "//" in text:
        return None
    numbers: list[int] = []

    def value(node: ast.expr) -> Fraction:
        if isinstance(node, ast.BinOp):
            return OPERATORS[type(node.op)](value(node.left), value(node.right))
        if isinstance(node, ast.UnaryOp):
            inside = value(node.operand)
            return -inside if isinstance(node.op, ast.USub) else inside
        if not isinstance(node, ast.Constant):
            raise ValueError(f"{ast.dump(node)} is no arithmetic")  # such as a call, 2(3)
        numbers.append(node.value)
        return Fraction(node.value)

    try:
        return Expression(value(ast.parse(text, mode="eval").body), tuple(numbers))
    except (SyntaxError, ValueError, ZeroDivisionError, RecursionError, MemoryError):  # the last two: its depth
        return None


# Rewards


def numeric(marker: str = "") -> Reward:
    """1 where the response's last number is `row["answer"]`, exactly (the answers of SVAMP; of GSM8K with "####").

    Args:
      marker: after which the answer stands; without it in the response there is none.
    """

    def score(row: Mapping[str, Any], response: str, progress: float) -> Score:
        del progress
        wanted = parse_number(str(row["answer"]).rpartition("####")[2])
        if wanted is None:
            raise ValueError(f"the row's answer {row['answer']!r} is no number: use another reward for it")
        found = final_number(response, marker)
        return Score(float(found == wanted), {"answered": float(found is not None)})

    return score


def arithmetic() -> Reward:
    """1 where the whole response is the value of `row["expression"]`, written as a number."""

    def score(row: Mapping[str, Any], response: str, progress: float) -> Score:
        del progress
        wanted, found = parse_expression(row["expression"]), parse_number(response)
        if wanted is None:
            raise ValueError(f"the row's expression {row['expression']!r} is no arithmetic")
        return Score(float(found == wanted.value), {"answered": float(found is not None)})

    return score


def countdown(format_score: float = 0.0) -> Reward:
    """1 where an expression of `row["numbers"]`, each used once, has the value `row["target"]`.

    The expression stands in the last <answer> of the response, or is all of it; what follows "=" is left out.

    Args:
      format_score: of an expression that is one, but not right.

    Source: TinyZero (Pan et al. 2025), which gives 0.1 for the format.
    """

    def score(row: Mapping[str, Any], response: str, progress: float) -> Score:
        del progress
        inside = re.findall(r"<answer>(.*?)</answer>", response, re.DOTALL)
        found = parse_expression((inside[-1] if inside else response).partition("=")[0])
        right = found is not None and found.value == row["target"] and sorted(found.numbers) == sorted(row["numbers"])
        return Score(1.0 if right else format_score * (found is not None), {"answered": float(found is not None)})

    return score


def tags(names: Sequence[str] = ("think", "answer")) -> Reward:
    """1 where the response is these tags in their order, each opened and closed once, with nothing around them.

    Source: the format reward of DeepSeek-R1 (2025), arXiv 2501.12948, section 2.2.2.
    """
    shape = re.compile(r"\s*".join(["", *(rf"<{name}>(?:.*?)</{name}>" for name in names), ""]), re.DOTALL)

    def score(row: Mapping[str, Any], response: str, progress: float) -> Score:
        del row, progress
        once = all(response.count(tag) == 1 for name in names for tag in (f"<{name}>", f"</{name}>"))
        return Score(float(once and shape.fullmatch(response) is not None))

    return score


def length(limit: int, cushion: int) -> Reward:
    """0 up to limit - cushion tokens, then falling to -1 at the limit: by `row["response_tokens"]`.

    Source: DAPO (Yu et al. 2025), arXiv 2503.14476, equation 13.
    """
    if not 0 < cushion <= limit:
        raise ValueError(f"reward 'length': cushion={cushion} of limit={limit}: 0 < cushion <= limit")

    def score(row: Mapping[str, Any], response: str, progress: float) -> Score:
        del response, progress
        over = row["response_tokens"] - (limit - cushion)
        return Score(-min(max(over / cushion, 0.0), 1.0))

    return score


def latex() -> Reward:
    """1 where the response's answer equals `row["answer"]` as mathematics, by math-verify (the extra `math`).

    Its own time limits are switched off, for they are alarms, which fire in main threads alone: give it to a
    `RewardPool`, which bounds every item.
    """
    library = require("math_verify", "math")

    def score(row: Mapping[str, Any], response: str, progress: float) -> Score:
        del progress
        wanted = library.parse(f"${row['answer']}$", parsing_timeout=None)
        if not wanted:
            raise ValueError(f"math-verify reads no answer in the row's {row['answer']!r}")
        found = library.parse(response, parsing_timeout=None)
        return Score(float(library.verify(wanted, found, timeout_seconds=None)), {"answered": float(bool(found))})

    return score


def patch(exact: bool = False, longest: int = 20_000) -> Reward:
    """How like the true change a response's is: the mean over the files that either changes, or -1 if it is no patch.

    Reads `row["files"]` and `row["patched"]`, texts by path, through `patches.normalised`; the latter are the files
    that the true change touches, after it.

    Args:
      exact: 1 for the true change and 0 for any other one, in place of the similarity.
      longest: characters of a diff that is still compared.

    Source: SWE-RL (Wei et al. 2025), arXiv 2502.18449, and the authors' reward of search/replace blocks; the variant
    is that of their ablation, where we keep the -1.
    """

    def score(row: Mapping[str, Any], response: str, progress: float) -> Score:
        del progress
        try:
            after = patches.applied(row["files"], patches.parse(response))
        except patches.PatchError:
            return Score(-1.0, {"invalid": 1.0, "exact": 0.0})
        predicted, true = (patches.changes(row["files"], x) for x in (after, row["patched"]))
        right = predicted == true
        parts = {"invalid": 0.0, "exact": float(right)}
        for name, sign in (("removed_precision", "-"), ("added_precision", "+")):
            share = patches.line_precision(predicted, true, sign)
            parts |= {} if share is None else {name: share}
        found = list(patches.similarities(predicted, true, longest).values())
        similarity = sum(found) / len(found) if found else 1.0  # neither changes anything
        return Score(float(right) if exact else similarity, parts | {"similarity": similarity})

    return score


def weighted(parts: Sequence[tuple[str, float, Mapping[str, Any]]]) -> Reward:
    """The sum of other rewards, each (name, weight, options); their scores are its parts.

    Raises:
      ValueError: a name comes twice, or as `reward`.
    """
    names = [name for name, *_ in parts]
    if len(set(names)) < len(names):
        raise ValueError(f"reward 'weighted': parts={names}: each reward once, its parts are called by its name")
    made = [(name, weight, reward(name, **options)) for name, weight, options in parts]

    def score(row: Mapping[str, Any], response: str, progress: float) -> Score:
        found = {name: (weight, own(row, response, progress)) for name, weight, own in made}
        inner = {f"{name}_{part}": x for name, (_, own) in found.items() for part, x in own.parts.items()}
        return Score(
            sum(weight * own.score for weight, own in found.values()),
            inner | {name: own.score for name, (_, own) in found.items()},
        )

    return score


REWARDS: dict[str, Callable[..., Reward]] = {
    "numeric": numeric, "arithmetic": arithmetic, "countdown": countdown, "tags": tags, "length": length,
    "latex": latex, "patch": patch, "weighted": weighted,
}


def summary(scores: Iterable[Score], sources: Iterable[str]) -> dict[str, float]:
    """Metrics of a batch: the mean reward of each source and of each part, and the share of each failure.

    Means are over what was scored; a failure is counted and is no 0 among them.
    """
    values: dict[str, list[float]] = {f"outcome/{failure}": [] for failure in FAILURES}
    for score, source in zip(scores, sources, strict=True):
        for failure in FAILURES:
            values[f"outcome/{failure}"].append(float(score.outcome == failure))
        if score.outcome == SCORED:
            values.setdefault(f"reward/{source}", []).append(score.score)
            for part, value in score.parts.items():
                values.setdefault(f"reward/{source}/{part}", []).append(value)
    return {name: sum(found) / len(found) for name, found in values.items() if found}
