"""How hard prompts are for a model: the share of its own responses that are right."""

import jax
import numpy as np

from rl_jax.core.program import Key, PyTree
from rl_jax.language.decoder import DecoderConfig
from rl_jax.language.questions import Questions, Scores, Words, judged
from rl_jax.language.rewards import SCORED
from rl_jax.language.sampler import Sampling, sample


def pass_rates(
    decoder: DecoderConfig, params: PyTree, questions: Questions, n: int, sampling: Sampling, words: Words,
    scorer: Scores, key: Key, *, at_once: int = 64,
) -> np.ndarray:
    """The mean score of n responses to each question, [N] float64; NaN where no check of them came to an end.

    With rewards of 0 and 1 it is the share that is right. A prompt's responses depend on its number and the key, and
    not on `at_once`, the prompts that are sampled together.
    """
    size, rates = len(questions.rows), []
    at_once = min(at_once, size)
    for start in range(0, size, at_once):
        # The last part is filled with the first questions again, which are left out: one shape is compiled.
        chosen = np.arange(start, start + at_once) % size
        found = jax.device_get(sample(
            decoder, params, questions.tokens[chosen], questions.lengths[chosen], n, sampling, key, prompt_ids=chosen
        ))
        chosen = chosen[: size - start]
        found = jax.tree.map(lambda x, count=len(chosen) * n: x[:count], found)
        rows = [questions.rows[number] for number in chosen for _ in range(n)]
        scores = judged(found, rows, words, scorer, 1.0)
        known = np.array([x.outcome == SCORED for x in scores]).reshape(-1, n).sum(1)
        total = np.array([x.score for x in scores]).reshape(-1, n).sum(1)
        rates.append(np.divide(total, known, out=np.full(len(chosen), np.nan), where=known > 0))
    return np.concatenate(rates)
