"""Chains of additions and multiplications modulo 100 with written scratch work; their length is the difficulty.

"37+5*4=" asks for (37 + 5) * 4 from left to right, and the teacher's trace is "+5=42*4=68": each step is copied and
followed by the running value, so that the last number is the answer. A text of k steps has 6 k + 4 letters at most.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from ml_collections import ConfigDict

from experiments.light_r1.problems import Domain, Problem
from rl_jax.language.decoder import DecoderConfig
from rl_jax.language.questions import Words
from rl_jax.language.rewards import Score, final_number, length
from rl_jax.language.stages import starting_models

LETTERS = "\n0123456789+*="  # the first one ends a text, and fills rows
MODULUS = 100


def encode(text: str) -> np.ndarray:
    """A letter a token."""
    return np.array([LETTERS.index(letter) for letter in text], np.int32)


def decode(tokens: Sequence[int]) -> str:
    """The text of tokens."""
    return "".join(LETTERS[token] for token in tokens)


WORDS = Words(decode, (0,))


def solve(start: int, steps: Sequence[tuple[str, int]]) -> tuple[str, int]:
    """The trace and the last value of a chain."""
    value, trace = start, ""
    for operator, operand in steps:
        value = (value + operand if operator == "+" else value * operand) % MODULUS
        trace += f"{operator}{operand}={value}"
    return trace, value


def chains(count: int, levels: tuple[int, int], seed: int, without: set[str] = frozenset()) -> list[Problem]:
    """Different random chains with the given numbers of steps, both ends included; operands are 2 to 9.

    Args:
      without: the texts of chains that may not come.
    """
    rng, found = np.random.default_rng(seed), {}
    while len(found) < count:
        start, level = int(rng.integers(MODULUS)), int(rng.integers(levels[0], levels[1] + 1))
        steps = [("+*"[rng.integers(2)], int(rng.integers(2, 10))) for _ in range(level)]
        text = f"{start}" + "".join(f"{operator}{operand}" for operator, operand in steps)
        trace, value = solve(start, steps)
        if text not in without:
            row = {"answer": value, "source": f"{level} steps"}
            found[text] = Problem(encode(f"{text}="), encode(f"{trace}\n"), row, text, level)
    return list(found.values())


class Checker:
    """1 where a response ended by itself and its last number is the answer; less `weight` times what it is too long.

    A response that was cut off is wrong, whatever number it happens to end with. The penalty of the length is DAPO's
    (`rewards.length`); the authors say of theirs that it is mild, and not what it is.
    """

    def __init__(self, limit: int, weight: float = 0.0):
        self._weight, self._length = weight, length(limit, max(1, limit // 4))

    def scores(self, rows: Sequence[Mapping[str, Any]], responses: Sequence[str], progress: float) -> list[Score]:
        """One score an item, in their order."""
        found = []
        for row, response in zip(rows, responses, strict=True):
            ended = len(response) < row["response_tokens"]  # the letter that ends it is no part of its text
            right = float(ended and final_number(response) == row["answer"])
            over = self._length(row, response, progress).score if self._weight else 0.0
            found.append(Score(right + self._weight * over, {"right": right}))
        return found

    def close(self) -> None:
        """Nothing is open."""


def domain(config: ConfigDict) -> Domain:
    """The chains that `config.data` says, and models with `config.decoder`'s shape of `config.num_seeds` seeds."""
    shape, data = DecoderConfig(vocab_size=len(LETTERS), **config.decoder), config.data
    hard = chains(data.judged, tuple(data.hard), 1)
    easy = chains(data.judged, tuple(data.broad), 2)
    judged = {problem.text for problem in (*hard, *easy)}
    pools = {
        name: chains(count, tuple(data[name]), seed, judged)
        for seed, (name, count) in enumerate([("broad", data.size), ("deep", data.pool), ("mixed", data.pool)], 3)
    }
    seeds = range(config.seed, config.seed + config.num_seeds)

    return Domain(
        shape, WORDS, pools, hard, easy, lambda field, run: starting_models(field, run, shape, seeds),
        lambda: Checker(config.agent.get("max_new_tokens", config.judge.max_new_tokens), config.reward.length_weight),
    )
