"""What the stages of the curriculum need of a task: problems with a teacher's traces, models, a check of answers."""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np

from rl_jax.core.loop import Result
from rl_jax.core.program import PyTree
from rl_jax.language.decoder import DecoderConfig
from rl_jax.language.questions import Questions, Scores, Words
from rl_jax.language.rows import Builder, Document
from rl_jax.language.sampler import padded


class Problem(NamedTuple):
    """A question with the teacher's verified trace, which ends with the answer.

    Attributes:
      prompt, trace: tokens; those of the trace end with the stop token.
      row: what the reward reads: "answer", and "source", which names the level.
      text: of the question.
      level: of difficulty, the steps of the trace.
    """

    prompt: np.ndarray
    trace: np.ndarray
    row: dict[str, Any]
    text: str
    level: int


class Domain(NamedTuple):
    """A task.

    Attributes:
      decoder: the shape of its models.
      words: of its tokenizer.
      pools: problems to train on by name, "broad", "deep" and "mixed".
      hard, easy: problems that are judged and never trained on.
      load: (field, run) -> the models of all seeds, of a finished run or, where it is "", of the start.
      scorer: makes the check of answers; it is closed by who asks for it.
      finish: what a run that trains "policy" leaves behind.
    """

    decoder: DecoderConfig
    words: Words
    pools: dict[str, list[Problem]]
    hard: list[Problem]
    easy: list[Problem]
    load: Callable[[str, str], list[PyTree]]
    scorer: Callable[[], Scores]
    finish: Callable[[Result, Any], dict[str, Any]] = lambda result, workdir: {}


def document(domain: Domain, problem: Problem, answer: Sequence[int] | None = None) -> Document:
    """The question with tokens that answer it, the teacher's if none are given; the answer is learnt."""
    builder = Builder(domain.decoder.vocab_size, domain.decoder.context_length).append(problem.prompt, sampled=False)
    return builder.append(problem.trace if answer is None else answer, sampled=True).document()


def questions(problems: Sequence[Problem], width: int = 0) -> Questions:
    """The problems as they are asked, prompts padded to the longest or to `width` tokens if that is more."""
    tokens, lengths = padded([problem.prompt for problem in problems])
    tokens = np.pad(tokens, ((0, 0), (0, max(0, width - tokens.shape[1]))))
    return Questions(tokens, lengths, [problem.row for problem in problems])
