"""The stages of RLHF Workflow; each is a run that starts from what the one before has trained, seed by seed.

sft -> a reward model or a pairwise preference model of the policy's own answers -> rounds: n answers to each question,
the best and the worst of them by that model make a pair, DPO on the pairs, and again from the policy as it then is.
Best and worst of n play the two agents of the theory (Xiong et al. 2023, arXiv 2312.11456): one exploits, the other
makes the pair as informative as it can be.
"""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
from ml_collections import ConfigDict

from experiments.rlhf_workflow.features import features_of, head_program
from rl_jax.core.config import flat, unknown
from rl_jax.core.experiment import Experiment, Metric
from rl_jax.core.loop import Result
from rl_jax.core.members import side_by_side
from rl_jax.core.program import Program, PyTree
from rl_jax.data.text.records import Pair
from rl_jax.language import sorting
from rl_jax.language.comparisons import (
    Comparisons,
    annotated,
    best_and_random,
    best_and_worst,
    distinct,
    documents,
    knockout,
    sampled_documents,
)
from rl_jax.language.decoder import DecoderConfig
from rl_jax.language.documents import PairDocuments, pair_documents, questions
from rl_jax.language.experiments import leaves_model, start
from rl_jax.language.judge import Layout, comparison_pairs, judge_of, judge_program
from rl_jax.language.own_answers import Drawn, drawer, of_model, with_own_answers
from rl_jax.language.pairs import compared
from rl_jax.language.questions import Questions, Words, texts_of
from rl_jax.language.reward_model import learned, reward_model_program
from rl_jax.language.rounds import Compare, rounds_program
from rl_jax.language.rows import pad
from rl_jax.language.sampler import Samples, Sampling, prompts_and_answers
from rl_jax.language.sft import sft_program
from rl_jax.language.stages import starting_models, trained_models
from rl_jax.language.training import DTYPES, Trainable, in_parts

GOLD = Metric("eval/gold", "gold reward")
ACCURACY = Metric("eval/accuracy", "held-out accuracy")
PROXY = Metric("eval/reward", "learned reward")
REWARDS = ("bradley_terry", "pairwise", "features", "gold")
SELECTORS = ("max_min", "max_random", "max_max")


class Task(NamedTuple):
    """What the stages work on.

    Attributes:
      decoder: the shape of its models; its context is the length of rows.
      words: of its tokenizer.
      seeds: of this run.
      starts: pi_0 of each seed, on the host.
      train, held_out: questions.
      layout: how a comparison of two answers is written.
      pairs: -> (pairs to train a reward on, pairs that are judged) of each seed.
      gold: (digits, text) -> the true reward; None where it is unknown.
      inputs: for the run's provenance.
      finish: what a run that trains "policy" leaves behind.
    """

    decoder: DecoderConfig
    words: Words
    seeds: range
    starts: list[PyTree]
    train: Questions
    held_out: Questions
    layout: Layout
    pairs: Callable[[ConfigDict, "Task"], list[tuple[list[PairDocuments], list[PairDocuments]]]]
    gold: Callable[[str, str], float] | None
    inputs: dict[str, Any]
    finish: Callable[[Result, Path], dict[str, Any]] = lambda result, workdir: {}

    def golds(self, asked: Questions, numbers: np.ndarray, texts: Sequence[str]) -> np.ndarray:
        """The true reward of answers [R] to the questions of these numbers."""
        return np.array([self.gold(asked.rows[n]["digits"], text) for n, text in zip(numbers, texts, strict=True)])


Make = Callable[[ConfigDict, int], Program]  # (configuration, number of the seed among the run's) -> its program


def experiment(config: ConfigDict) -> Experiment:
    """What a configuration of configs/rlhf_workflow.py says.

    Raises:
      FileNotFoundError or ValueError: a field names what does not exist or does not go with another one.
    """
    named = {"task": TASKS, "stage": STAGES, "reward.kind": REWARDS, "selector": SELECTORS}
    for field, known in named.items():
        if flat(config)[field] not in known:
            raise ValueError(unknown(f"config.{field}", flat(config)[field], known))
    if config.task not in STAGES[config.stage][1]:
        raise ValueError(f"config.stage={config.stage} is no stage of config.task={config.task}")
    task = TASKS[config.task](config)
    stage, _, metric = STAGES[config.stage]
    make = stage(config, task)

    def program(config: ConfigDict) -> Program:
        return side_by_side([make(config, number) for number in range(len(task.seeds))], config.seed)

    inputs = task.inputs | {"start": config.start, "reward": config.reward.run}
    if config.stage == "rounds":
        return Experiment(program, inputs, metric if task.gold else PROXY, task.finish)
    return Experiment(program, inputs, metric, lambda result, workdir: {})


# Tasks


def sorting_task(config: ConfigDict) -> Task:
    """Digits to sort, whose true reward is known; dots after an answer make it longer and no better."""
    data, shape = config.data, DecoderConfig(vocab_size=len(sorting.LETTERS), **config.decoder)
    sizes, seeds = (data.digits, data.digits), range(config.seed, config.seed + config.num_seeds)
    judged = sorting.problems(data.judged, sizes, 1)
    train = sorting.problems(data.size, sizes, 2, judged)
    starts = starting_models("start", config.start, shape, seeds)
    return Task(
        shape, sorting.WORDS, seeds, starts, sorting.questions(train), sorting.questions(judged), sorting.LAYOUT,
        annotated_pairs, sorting.gold, {},
    )


def text_task(config: ConfigDict) -> Task:
    """The prompts of a set of pairs, which people compared, for a language model, from which all seeds start.

    Raises:
      ValueError: as `experiments.start`; the set holds no pairs, or a label is not one token.
    """
    found, data = start(config), config.data
    if not isinstance(found.train[0], Pair):
        raise ValueError(f"config.data.name={data.name} holds answers, and pairs are compared: name a set of pairs")
    model, seeds = found.model, range(config.seed, config.seed + config.num_seeds)
    parts, room = (found.train, found.held_out), data.longest - config.rounds.max_new_tokens
    asked = [questions(model, part, data.name, room, data.most) for part in parts]
    words = Words(model.tokenizer.decode, (model.tokenizer.eos,))

    def pairs(config: ConfigDict, task: Task) -> list[tuple[list[PairDocuments], list[PairDocuments]]]:
        both = tuple(pair_documents(model, part, data.name, data.longest, data.most) for part in parts)
        return [both] * len(task.seeds)

    # Each label is one token; "A" after a line's end is not the token of " A".
    marks = (tuple(model.tokenizer.encode(text).tolist()) for text in ("\n[A] ", "\n[B] ", "\n[BETTER]\n"))
    labels = (model.tokenizer.single_token("A"), model.tokenizer.single_token("B"))
    return Task(
        dataclasses.replace(model.config, context_length=data.longest), words, seeds, [model.params] * len(seeds),
        *asked, Layout(*marks, labels), pairs, None, found.inputs, leaves_model(config, model),
    )


TASKS = {"sorting": sorting_task, "text": text_task}


# Stages: functions that make what makes a seed's program


def sft_stage(config: ConfigDict, task: Task) -> Make:
    """Supervised learning of a demonstrator's answers, each seed's own."""
    longest, told = task.decoder.context_length, config.data

    def rows(asked: Questions, seed: int) -> Any:
        digits, rng = [row["digits"] for row in asked.rows], np.random.default_rng(seed)
        said = sorting.demonstrated(digits, told.noise, told.dots, rng)
        most = config.judge.max_new_tokens - 1  # the last one ends it
        found = [sorting.document(x, text[:most], longest, n) for n, (x, text) in enumerate(zip(digits, said))]
        return pad(found, longest)

    train, held_out = [rows(task.train, seed) for seed in task.seeds], rows(task.held_out, 0)

    def make(config: ConfigDict, number: int) -> Program:
        program = sft_program(config, task.decoder, task.starts[number], train[number], held_out)
        return judged_by_answers(program, config, task, None)

    return make


def reward_stage(config: ConfigDict, task: Task) -> Make:
    """Bradley and Terry's model of what the annotator says of pairs of pi_0's own answers."""
    longest = task.decoder.context_length
    sets = [[compared(part, longest) for part in both] for both in task.pairs(config, task)]
    return lambda config, number: reward_model_program(config, task.decoder, task.starts[number], *sets[number])


def pairwise_stage(config: ConfigDict, task: Task) -> Make:
    """The pairwise preference model of the same pairs: which of two answers, A or B, in both orders."""
    shape, layout = twice_as_long(task.decoder), task.layout
    sets = [
        [comparison_pairs(layout, part, shape, shape.context_length) for part in both]
        for both in task.pairs(config, task)
    ]
    return lambda config, number: judge_program(config, shape, task.starts[number], layout, *sets[number])


def features_stage(config: ConfigDict, task: Task) -> Make:
    """Bradley and Terry's model of people's pairs: a linear head on features of the frozen model, computed once."""
    own, longest = Trainable(task.decoder, config.agent), task.decoder.context_length
    both = task.pairs(config, task)[0]  # all seeds have one pi_0
    train, held_out = (features_of(own, task.starts[0], compared(part, longest)) for part in both)
    return lambda config, number: head_program(config, train, held_out)


def rounds_stage(config: ConfigDict, task: Task) -> Make:
    """Sampling, ranking, DPO, round after round."""
    ranked = rankings(config, task)

    def make(config: ConfigDict, number: int) -> Program:
        compare = comparing(config, task, ranked[number])
        program = rounds_program(
            config, task.decoder, task.starts[number], task.train, task.words.stop, compare
        )
        return judged_by_answers(program, config, task, ranked[number])

    return make


# Kind of stage: the function, the tasks that have it, what it is judged by.
STAGES = {
    "sft": (sft_stage, ("sorting",), GOLD), "reward": (reward_stage, ("sorting",), ACCURACY),
    "pairwise": (pairwise_stage, ("sorting", "text"), ACCURACY), "features": (features_stage, ("text",), ACCURACY),
    "rounds": (rounds_stage, ("sorting", "text"), GOLD),
}


# Pairs


def annotated_pairs(config: ConfigDict, task: Task) -> list[tuple[list[PairDocuments], list[PairDocuments]]]:
    """Of each seed: pairs of two answers of its own pi_0, labelled by the annotator to train on, and others to judge.

    The annotator's score is the gold reward and `annotator.length_bias` a character. A pair is labelled right with
    probability sigmoid(sharpness * difference); those that judge are labelled right. All seeds have as many pairs.

    Raises:
      ValueError: there are no two pairs.
    """
    told, said, numbers, sets = config.pairs, config.annotator, np.arange(config.pairs.prompts), []
    own = Trainable(task.decoder, config.agent)
    sampling = Sampling(max_new_tokens=config.rounds.max_new_tokens, stop=task.words.stop)
    draw = drawer(own, task.train, 2, sampling, min(config.rounds.at_once, told.prompts))
    for seed, pi_0 in zip(task.seeds, task.starts, strict=True):
        (key,) = jax.random.split(jax.random.key(seed), 1)
        samples, rng = of_model(draw, pi_0, numbers, key), np.random.default_rng(seed)
        texts = texts_of(samples, task.words)
        scores = task.golds(task.train, np.repeat(numbers, 2), texts) + said.length_bias * characters(texts)
        found = best_and_worst(scores.reshape(-1, 2), distinct(samples, 2))
        if len(found) < 2:
            raise ValueError(
                f"{len(found)} of config.pairs.prompts={told.prompts} questions has two answers of different scores: "
                "train the start longer, or ask more"
            )
        cut, answers = max(1, len(found) // 10), sampled_documents(samples, 2, numbers)
        parts = (annotated(found.take(slice(cut, None)), said.sharpness, rng), told.kept), (
            found.take(slice(cut)), told.judged
        )
        train, held_out = (
            [all_of[place] for place in np.resize(np.arange(len(all_of)), count)]
            for all_of, count in ((documents(part, answers), count) for part, count in parts)
        )
        sets.append((train, [regrouped(pair, number) for number, pair in enumerate(held_out)]))
    return sets


def regrouped(pair: PairDocuments, group: int) -> PairDocuments:
    """The pair as one that is judged by itself, also where its prompt comes twice."""
    return pair._replace(chosen=pair.chosen._replace(group=group), rejected=pair.rejected._replace(group=group))


def characters(texts: Sequence[str]) -> np.ndarray:
    """How long texts are, [R] float64."""
    return np.array([len(text) for text in texts], np.float64)


def twice_as_long(shape: DecoderConfig) -> DecoderConfig:
    """The decoder that reads a question with two answers."""
    return dataclasses.replace(shape, context_length=2 * shape.context_length)


# Ranking

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


def judged_by_answers(program: Program, config: ConfigDict, task: Task, rank: Rank | None) -> Program:
    """Outcomes `gold` where it is known, and `reward`, what the learned reward says, where each answer has one."""

    def measure(numbers: np.ndarray, samples: Samples) -> dict[str, np.ndarray]:
        found = {}
        if task.gold is not None:
            found["gold"] = task.golds(task.held_out, numbers, texts_of(samples, task.words))
        if rank is not None and config.reward.kind != "pairwise":
            found["reward"] = rank(samples, task.held_out, numbers, config.judge.samples).ravel()
        return found

    return with_own_answers(
        program, task.decoder, config.agent, config.judge, task.held_out, task.words.stop, measure
    )
