"""What is asked of a model whose answers are checked: questions, what of a tokenizer that needs, who scores."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple, Protocol

import numpy as np

from rl_jax.language.rewards import Score
from rl_jax.language.sampler import Samples


class Questions(NamedTuple):
    """What is asked, N prompts.

    Attributes:
      tokens: [N, T0] int32, right-padded.
      lengths: [N] int32.
      rows: N dictionaries, what the reward reads; "source" names where a question is from.
    """

    tokens: np.ndarray
    lengths: np.ndarray
    rows: Sequence[Mapping[str, Any]]


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

    Its text is without the token that ended it; `response_tokens` is added to the row.
    """
    texts, asked = [], []
    for tokens, start, end, truncated, row in zip(
        samples.tokens, samples.prompt_lengths, samples.lengths, samples.truncated, rows, strict=True
    ):
        texts.append(words.decode(tokens[start : end if truncated else end - 1].tolist()))
        asked.append({**row, "response_tokens": int(end - start)})
    return scorer.scores(asked, texts, progress)
