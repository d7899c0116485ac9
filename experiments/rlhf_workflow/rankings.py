"""How answers are ranked, by a learned reward, a tournament or the true reward, and which of them make a pair."""

from collections.abc import Callable, Mapping

import jax
import numpy as np
from ml_collections import ConfigDict

from experiments.rlhf_workflow.tasks import Task, characters, twice_as_long
from rl_jax.core.program import PyTree
from rl_jax.language.comparisons import (
    Comparisons,
    best_and_random,
    best_and_worst,
    distinct,
    documents,
    knockout,
    sampled_documents,
)
from rl_jax.language.documents import PairDocuments
from rl_jax.language.judge import judge_of
from rl_jax.language.own_answers import Drawn
from rl_jax.language.questions import Questions, texts_of
from rl_jax.language.reward_model import learned
from rl_jax.language.rounds import Compare
from rl_jax.language.sampler import Samples, prompts_and_answers
from rl_jax.language.stages import trained_models
from rl_jax.language.training import DTYPES, in_parts

REWARDS = ("bradley_terry", "pairwise", "features", "gold")
SELECTORS = ("max_min", "max_random", "max_max")

# (host samples [P n, ...], questions, their numbers [P n], n) -> scores [P, n]
Rank = Callable[[Samples, Questions, np.ndarray, int], np.ndarray]


def rankings(config: ConfigDict, task: Task) -> list[Rank]:
    """How each seed ranks answers: by its own model of `config.reward.run`, or by the true reward.

    Raises:
      ValueError: the true reward is not known, or a kind of model is not of this task.
    """
    told, shape = config.reward, task.decoder
    if told.kind == "gold" and task.gold is None or (told.kind == "features") != (config.task == "text"):
        raise ValueError(f"config.reward.kind={told.kind} cannot rank answers of config.task={config.task}")
    if told.kind == "gold":
        def by_gold(samples: Samples, asked: Questions, numbers: np.ndarray, n: int) -> np.ndarray:
            return task.golds(asked, numbers, texts_of(samples, task.words)).reshape(-1, n)

        return [by_gold] * len(task.seeds)
    head = jax.ShapeDtypeStruct((shape.width,), np.float32)
    if told.kind == "pairwise":
        judges = trained_models("reward.run", told.run, task.starts[0], task.seeds, "judge")
        return [by_knockout(config, task, params) for params in judges]
    like = {"head": head} if told.kind == "features" else {"decoder": task.starts[0], "head": head}
    models = [
        {"decoder": pi_0, **found} for pi_0, found in zip(
            task.starts, trained_models("reward.run", told.run, like, task.seeds, "reward"), strict=True)
    ]
    compiled = jax.jit(learned(shape, *models[0].values(), DTYPES[config.agent.dtype]).rewards)

    def by_reward(model: PyTree) -> Rank:
        model = jax.tree.map(jax.numpy.asarray, model)

        def rank(samples: Samples, asked: Questions, numbers: np.ndarray, n: int) -> np.ndarray:
            del asked, numbers
            rows = (samples.tokens, samples.lengths)
            return in_parts(lambda part: compiled(model, *part), rows, config.rounds.at_once).reshape(-1, n)

        return rank

    return [by_reward(model) for model in models]


def by_knockout(config: ConfigDict, task: Task, params: PyTree) -> Rank:
    """1 for the winner of a tournament, -1 for that of one of the losers, and no score for all others: n - 1
    comparisons each, in both orders, where all pairs would be n (n - 1) / 2.
    """
    compare = judge_of(twice_as_long(task.decoder), task.layout, at_once=config.rounds.at_once)

    def rank(samples: Samples, asked: Questions, numbers: np.ndarray, n: int) -> np.ndarray:
        del asked, numbers
        prompts, answers = jax.device_get(prompts_and_answers(samples, config.rounds.max_new_tokens))
        size = len(samples.lengths) // n

        def beats(first: np.ndarray, second: np.ndarray) -> np.ndarray:
            one, other = ((np.arange(size)[:, None] * n + columns).ravel() for columns in (first, second))
            texts = [(tokens[rows], lengths[rows]) for (tokens, lengths), rows in (
                (prompts, one), (answers, one), (answers, other))]
            return (compare(params, *texts) > 0.5).reshape(first.shape)

        scores, rows = np.full((size, n), np.nan), np.arange(size)
        scores[rows, knockout(lambda first, second: ~beats(first, second), size, n)] = -1.0
        scores[rows, knockout(beats, size, n)] = 1.0
        return scores

    return rank


def selected(
    selector: str, scores: np.ndarray, same: np.ndarray, rng: np.random.Generator
) -> Comparisons:
    """Which answers make a pair, as the authors' scripts name it: the best with the worst, a random or the second."""
    if selector == "max_random":
        return best_and_random(scores, rng, same)
    if selector == "max_max":
        second = np.sort(scores, axis=1)[:, -2:-1]
        scores = np.where(scores >= second, scores, np.nan)
    return best_and_worst(scores, same)


def comparing(config: ConfigDict, task: Task, rank: Rank) -> Compare:
    """How the pairs of a round are made; ties and equal answers are left out."""
    n = config.rounds.samples

    def compare(
        numbers: np.ndarray, drawn: Drawn, rng: np.random.Generator
    ) -> tuple[list[PairDocuments], Mapping[str, float]]:
        samples, of_answers = drawn.samples, np.repeat(numbers, n)
        texts = texts_of(samples, task.words)
        scores = rank(samples, task.train, of_answers, n)
        scores = scores - config.reward.length_penalty * characters(texts).reshape(-1, n)
        found = selected(config.selector, scores, distinct(samples, n), rng)
        said = {"round/kl": float(np.mean(drawn.log_ratio))}
        if task.gold is not None:
            golds = task.golds(task.train, of_answers, texts).reshape(-1, n)
            lead = golds[found.prompt, found.better] - golds[found.prompt, found.worse]
            said |= {"round/gold": float(golds.mean()), "round/gold_lead": float(lead.mean()) if len(found) else 0.0}
        return documents(found, sampled_documents(samples, n, numbers)), said

    return compare
