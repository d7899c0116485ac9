"""How hard prompts are for a model, by the share of its own responses that are right, and which are asked next.

A prompt that is always or never solved teaches a policy nothing by comparison. `PassRates` counts as training goes on,
and `pass_rates` measures a model that does not train (the difficulty filter of Light-R1, Wen et al. 2025, arXiv
2503.10460).
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from ml_collections import ConfigDict

from rl_jax.core.program import Key, PyTree
from rl_jax.language.decoder import DecoderConfig
from rl_jax.language.questions import Questions, Scores, Words, judged
from rl_jax.language.rewards import SCORED
from rl_jax.language.sampler import Sampling, sample


def default_config() -> ConfigDict:
    """Which prompts are asked: all, until a bound is set."""
    return ConfigDict(
        {
            "low": 0.0, "high": 1.0,  # prompts are asked whose pass rate so far lies between,
            "least": 8,  # and those with fewer responses
            "memory": 1.0,  # what of the counts is kept at a batch
        }
    )


class PassRates(NamedTuple):
    """Rewards of the responses to each of N prompts so far, of S runs.

    Attributes:
      total: float64 [S, N], the sum of rewards.
      seen: float64 [S, N], their number.
    """

    total: np.ndarray
    seen: np.ndarray

    @classmethod
    def empty(cls, runs: int, prompts: int) -> "PassRates":
        return cls(np.zeros((runs, prompts)), np.zeros((runs, prompts)))

    def after(self, groups: np.ndarray, rewards: np.ndarray, known: np.ndarray, memory: float) -> "PassRates":
        """The rates after a batch.

        Args:
          groups: [S, B], the prompt of each response.
          rewards: [S, B].
          known: [S, B] bool, the responses that were scored.
          memory: in (0, 1], what of the counts is kept: below 1 a prompt that is no longer asked is one day unknown
            again, and gets another chance.
        """
        total, seen = memory * self.total, memory * self.seen
        run = np.arange(len(groups))[:, None]
        np.add.at(total, (run, groups), np.where(known, rewards, 0.0))
        np.add.at(seen, (run, groups), known)
        return PassRates(total, seen)

    def allowed(self, low: float, high: float, least: int) -> np.ndarray:
        """[S, N] bool: the prompts whose rate lies in [low, high], and those with fewer than `least` responses."""
        rates = self.total / np.maximum(self.seen, 1e-9)
        return (self.seen < least) | (low <= rates) & (rates <= high)


def chosen_prompts(key: Key, allowed: jax.Array, number: int) -> jax.Array:
    """The numbers of `number` prompts, int32, at random and each once; of those that are allowed [N] as far as they go.

    What is missing is filled with the others, so that shapes do not change.
    """
    order = jax.random.permutation(key, len(allowed))
    return order[jnp.argsort(~allowed[order], stable=True)][:number].astype(jnp.int32)


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
