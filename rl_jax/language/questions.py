"""What is asked of a model whose answers are checked: questions, what of a tokenizer that needs, who scores."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple, Protocol

import jax
import numpy as np

from rl_jax.core.runtime import from_every_process
from rl_jax.language.rewards import Score
from rl_jax.language.sampler import Samples, answers


class Questions(NamedTuple):
    """What is asked, N prompts.

    Attributes:
      tokens: [N, T0] int32, right-padded.
      lengths: [N] int32.
      rows: N dictionaries, what the reward reads; "source" names where a question is from.
      anchors: (tokens [N, A] int32, right-padded, lengths [N]), an answer to each that responses are compared with.
    """

    tokens: np.ndarray
    lengths: np.ndarray
    rows: Sequence[Mapping[str, Any]]
    anchors: tuple[np.ndarray, np.ndarray] | None = None


class Words(NamedTuple):
    """What of a tokenizer a trainer needs.

    Attributes:
      decode: tokens -> text.
      stop: tokens that end a response; they are no part of its text.
    """

    decode: Callable[[Sequence[int]], str]
    stop: tuple[int, ...]


class Scores(Protocol):
    """`reward_pool.Scorer`, or `reward_pool.RewardPool`."""

    def scores(self, rows: Sequence[Mapping[str, Any]], responses: Sequence[str], progress: float) -> list[Score]: ...

    def close(self) -> None: ...


def judged(
    samples: Samples, rows: Sequence[Mapping[str, Any]], words: Words, scorer: Scores, progress: float
) -> list[Score]:
    """What the scorer says of host samples [R, T], each the response to the question of its row.

    `response_tokens` is added to the row. Every process must call it with
    the same samples: each scores its share of them, and all get all scores.
    """
    bounds = len(rows) * np.arange(jax.process_count() + 1) // jax.process_count()
    first, after = bounds[jax.process_index()], bounds[jax.process_index() + 1]

    def of_share() -> list[Score]:
        own = jax.tree.map(lambda x: x[first:after], samples)
        taken = (own.lengths - own.prompt_lengths).tolist()
        asked = [{**row, "response_tokens": number} for row, number in zip(rows[first:after], taken, strict=True)]
        return scorer.scores(asked, texts_of(own, words), progress)

    return [Score(*found) for share in from_every_process(of_share) for found in share]


def texts_of(samples: Samples, words: Words) -> list[str]:
    """The texts of host samples [R, T], without the token that ended them."""
    return [
        words.decode(tokens[: None if cut else -1].tolist())
        for tokens, cut in zip(answers(samples), samples.truncated, strict=True)
    ]
