"""The stages of RLAIF-V on scenes: a start, labellers, and rounds of DPO from labels of the policy's own answers."""

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from ml_collections import ConfigDict

from experiments.rlaif_v.labels import errors, judged_pairs, preferred, rejected_by
from rl_jax.core.config import unknown
from rl_jax.core.experiment import Experiment, Metric
from rl_jax.core.members import side_by_side
from rl_jax.core.program import Evaluation, Key, Program, PyTree, TrainState
from rl_jax.language import scenes
from rl_jax.language.comparisons import (
    Comparisons,
    against,
    combinations,
    distinct,
    documents,
    length_balanced,
    sampled_documents,
)
from rl_jax.language.decoder import DecoderConfig
from rl_jax.language.documents import PairDocuments
from rl_jax.language.judge import comparison_pairs, judge_program
from rl_jax.language.own_answers import Drawn, drawer, with_own_answers
from rl_jax.language.rounds import Compare, rounds_program
from rl_jax.language.rows import pad
from rl_jax.language.sampler import Samples, Sampling, answers, padded, prompts_and_answers
from rl_jax.language.sft import sft_program
from rl_jax.language.stages import starting_models
from rl_jax.language.training import Trainable

KINDS = ("divide", "holistic", "truth")
WRONG = Metric("eval/hallucinated", "share of a description's mentions that are wrong", "lower")
ORDERED = Metric("eval/ordered", "pairs of descriptions that are ordered right")
CONTEXT = scenes.SLOTS + 2 * scenes.SLOTS + 1  # tokens of a scene and its longest description
Make = Callable[[ConfigDict, int, PyTree], Program]


def experiment(config: ConfigDict) -> Experiment:
    """What a configuration of configs/rlaif_v.py says.

    Raises:
      FileNotFoundError or ValueError: a field names what does not exist.
    """
    if config.stage not in STAGES:
        raise ValueError(unknown("config.stage", config.stage, STAGES))
    decoder = DecoderConfig(vocab_size=scenes.VOCABULARY, **config.decoder)
    seeds = range(config.seed, config.seed + config.num_seeds)
    starts = starting_models("start", config.start, decoder, seeds)
    make, read = STAGES[config.stage](config, decoder, seeds)

    def program(config: ConfigDict) -> Program:
        return side_by_side([make(config, number, start) for number, start in enumerate(starts)], config.seed)

    labels = config.stage in ("divide", "holistic")
    return Experiment(program, {"start": config.start} | read, ORDERED if labels else WRONG)


# The stages: functions that make a program of one seed, from its number among the seeds and what it starts from


def sft_stage(config: ConfigDict, decoder: DecoderConfig, seeds: Sequence[int]) -> tuple[Make, dict[str, Any]]:
    """The policy that all arms start from, which hallucinates as its demonstrator does."""
    found, said = demonstrated(config, config.data.size, 1)
    rows = pad([scenes.document(*own, CONTEXT, group) for group, own in enumerate(zip(found, said))], CONTEXT)
    held_out = jax.tree.map(lambda x: x[: config.data.judged], rows)

    def make(config: ConfigDict, number: int, start: PyTree) -> Program:
        return with_judge(sft_program(config, decoder, start, rows, held_out), config, decoder)

    return make, {}


def divide_stage(config: ConfigDict, decoder: DecoderConfig, seeds: Sequence[int]) -> tuple[Make, dict[str, Any]]:
    """The labeller of claims, from one claim of each of `data.labelled` descriptions."""
    found, said = demonstrated(config, config.data.labelled, 1)
    rng, rows = np.random.default_rng(config.data.seed), []
    for group, (scene, own) in enumerate(zip(found, said, strict=True)):
        asked, truths = scenes.claims(scene, own)
        chosen = rng.integers(len(truths))
        rows.append(scenes.claim_document(asked[chosen], truths[chosen], group))
    train = pad(rows, scenes.SLOTS + 3)
    held_out = jax.tree.map(lambda x: x[: config.data.judged], train)

    def order(params: PyTree, pairs: Sequence[tuple[np.ndarray, np.ndarray, np.ndarray]]) -> np.ndarray:
        found, better, worse = zip(*pairs, strict=True)
        rejected = rejected_by(decoder, params)
        gap = rejected(np.array(found), worse) - rejected(np.array(found), better)
        return np.where(gap > 0, 1.0, np.where(gap < 0, 0.0, 0.5))

    def make(config: ConfigDict, number: int, start: PyTree) -> Program:
        return with_order(sft_program(config, decoder, start, train, held_out), config, "policy", order)

    return make, {}


def holistic_stage(config: ConfigDict, decoder: DecoderConfig, seeds: Sequence[int]) -> tuple[Make, dict[str, Any]]:
    """The labeller of whole answers, from `data.labelled` pairs of descriptions, each in both orders."""
    train, held_out = (
        comparison_pairs(scenes.LAYOUT, [
            PairDocuments(*(scenes.document(scene, own, CONTEXT, group) for own in both), 0.0)
            for group, (scene, *both) in enumerate(ordered_pairs(config, count, offset))
        ], decoder, decoder.context_length)
        for count, offset in ((config.data.labelled, 1), (config.data.judged, 2))
    )

    def order(params: PyTree, pairs: Sequence[tuple[np.ndarray, np.ndarray, np.ndarray]]) -> np.ndarray:
        found, better, worse = zip(*pairs, strict=True)
        texts = (padded([scenes.prompt(scene) for scene in found]), padded(better), padded(worse))
        wins = preferred(decoder, params, *texts)
        return np.where(wins > 0.5, 1.0, np.where(wins < 0.5, 0.0, 0.5))

    def make(config: ConfigDict, number: int, start: PyTree) -> Program:
        program = judge_program(config, decoder, start, scenes.LAYOUT, train, held_out)
        return with_order(program, config, "judge", order)

    return make, {}


def rounds_stage(config: ConfigDict, decoder: DecoderConfig, seeds: Sequence[int]) -> tuple[Make, dict[str, Any]]:
    """Rounds of DPO from each seed's own labeller."""
    kind, run = config.labels.kind, config.labels.run
    if kind not in KINDS:
        raise ValueError(unknown("config.labels.kind", kind, KINDS))
    if config.pairs.confounded and kind == "holistic":
        raise ValueError("config.pairs.confounded with config.labels.kind='holistic': take a labeller that counts")
    if kind == "truth":
        labellers = [None] * len(seeds)
    else:  # without a run labels that know nothing
        labellers = starting_models("labels.run", run, decoder, seeds, "judge" if kind == "holistic" else "policy")
    found = scenes.scenes(config.rounds.prompts * max(1, config.num_steps // config.rounds.updates),
                          np.random.default_rng(config.data.seed + 3))

    def make(config: ConfigDict, number: int, start: PyTree) -> Program:
        compare = comparing(config, decoder, labellers[number], found)
        program = rounds_program(config, decoder, start, scenes.questions(found), (scenes.END,), compare)
        program = with_judge(program, config, decoder)
        return with_best_of(program, config, decoder) if config.best_of.samples else program

    return make, {"labels": run}


STAGES = {"sft": sft_stage, "divide": divide_stage, "holistic": holistic_stage, "rounds": rounds_stage}


# What the stages read


def demonstrated(config: ConfigDict, count: int, offset: int) -> tuple[np.ndarray, list[np.ndarray]]:
    """Fresh scenes, and the demonstrator's descriptions of them; `offset` tells sets from each other."""
    rng = np.random.default_rng(config.data.seed + offset)
    found = scenes.scenes(count, rng)
    mentioned = (config.data.fewest, scenes.SLOTS)
    return found, [scenes.described(scene, config.data.noise, rng, mentioned) for scene in found]


def ordered_pairs(config: ConfigDict, count: int, offset: int) -> list[tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """`count` scenes with two descriptions, of which the first has fewer errors."""
    rng = np.random.default_rng(config.data.seed + offset)
    mentioned, pairs = (config.data.fewest, scenes.SLOTS), []
    while len(pairs) < count:
        (scene,) = scenes.scenes(1, rng)
        both = [scenes.described(scene, config.data.noise, rng, mentioned) for _ in range(2)]
        wrong = errors(np.stack([scene] * 2), both)
        if wrong[0] != wrong[1]:
            pairs.append((scene, *(both[place] for place in np.argsort(wrong))))
    return pairs


def comparing(config: ConfigDict, decoder: DecoderConfig, labeller: PyTree, found: np.ndarray) -> Compare:
    """Makes a round's pairs: own answers, labelled, at most `pairs.most` of a scene, of lengths alike.

    Metrics: `labels/right`, the share of pairs whose better answer has fewer errors, half of those with as many;
    `labels/length_gap`, by how many tokens the better answers are longer.
    """
    n, told = config.rounds.samples, config.pairs
    count = errors if config.labels.kind == "truth" else None
    if config.labels.kind == "divide":
        count = rejected_by(decoder, labeller)

    def compare(
        numbers: np.ndarray, drawn: Drawn, rng: np.random.Generator
    ) -> tuple[Sequence[PairDocuments], dict[str, float]]:
        samples, of = drawn.samples, np.repeat(found[numbers], n, axis=0)
        said, written = answers(samples), sampled_documents(samples, n, numbers)
        same, wrong = distinct(samples, n), errors(of, said).reshape(-1, n)
        lengths = (samples.lengths - samples.prompt_lengths).reshape(-1, n)
        if count is None:
            texts = jax.device_get(prompts_and_answers(samples, config.rounds.max_new_tokens))
            chosen = judged_pairs(decoder, labeller, *texts, n, told.most, same, rng)
        elif told.confounded:
            theirs = another_writers(config, found[numbers], rng)
            own = [scenes.document(scene, text, CONTEXT, int(group))
                   for scene, text, group in zip(found[numbers], theirs, numbers, strict=True)]
            written = [[*documents, other] for documents, other in zip(written, own, strict=True)]
            scores = -np.column_stack([count(of, said).reshape(-1, n), count(found[numbers], theirs)])
            wrong = np.column_stack([wrong, errors(found[numbers], theirs)])
            lengths = np.column_stack([lengths, [len(text) for text in theirs]])
            chosen = beaten_by(n, scores, told.most, told.least, rng)
        else:
            chosen = combinations(-count(of, said).reshape(-1, n), rng, same, told.least, told.most)
        if told.balanced:
            chosen = length_balanced(chosen, lengths)
        lead = wrong[chosen.prompt, chosen.worse] - wrong[chosen.prompt, chosen.better]
        longer = lengths[chosen.prompt, chosen.better] - lengths[chosen.prompt, chosen.worse]
        return documents(chosen, written), {
            "labels/right": np.mean(np.where(lead > 0, 1.0, np.where(lead < 0, 0.0, 0.5))),
            "labels/length_gap": np.mean(longer),
        }

    return compare


def another_writers(config: ConfigDict, found: np.ndarray, rng: np.random.Generator) -> list[np.ndarray]:
    """Descriptions by a demonstrator that is as often wrong and has other fillers."""
    mentioned = (config.data.fewest, scenes.SLOTS)
    return [scenes.described(scene, config.data.noise, rng, mentioned, style=1) for scene in found]


def beaten_by(
    anchor: int, scores: np.ndarray, most: int, least: float, rng: np.random.Generator
) -> Comparisons:
    """Pairs whose better answer is the anchor's column, each over one of `most` random others of its prompt."""
    others = rng.permuted(np.tile(np.arange(anchor), (len(scores), 1)), axis=1)[:, :most]
    there = np.full(scores.shape, np.nan)
    for columns in (others, np.full((len(scores), 1), anchor)):
        np.put_along_axis(there, columns, np.take_along_axis(scores, columns, axis=1), axis=1)
    found = against(there, anchor)
    return found.take((found.better == anchor) & (found.margin >= least))


# Judging


def judged_scenes(config: ConfigDict) -> np.ndarray:
    return scenes.scenes(config.data.judged, np.random.default_rng(config.data.seed + 2))


def with_judge(program: Program, config: ConfigDict, decoder: DecoderConfig) -> Program:
    """The program judged by descriptions of fresh scenes, at temperature 1: outcomes as `scenes.measured`."""
    found = judged_scenes(config)

    def measure(numbers: np.ndarray, samples: Samples) -> dict[str, np.ndarray]:
        return scenes.measured(found[numbers], samples)

    return with_own_answers(
        program, decoder, config.agent, config.judge, scenes.questions(found), (scenes.END,), measure
    )


def with_order(
    program: Program, config: ConfigDict, network: str,
    order: Callable[[PyTree, Sequence[tuple[np.ndarray, np.ndarray, np.ndarray]]], np.ndarray],
) -> Program:
    """The program judged by pairs of descriptions: outcome `ordered`, 1 where the one of fewer errors is preferred, 1/2
    for a tie.
    """
    pairs = ordered_pairs(config, config.data.judged, 2)

    def evaluate(state: TrainState, resident: PyTree, key: Key) -> Evaluation:
        found = program.evaluate(state, resident, key)
        params = jax.device_get(jax.tree.map(lambda x: x[0], state.params[network]))
        return Evaluation(found.metrics, {**found.outcomes, "ordered": order(params, pairs)[None]})

    return program._replace(evaluate=evaluate)


def with_best_of(program: Program, config: ConfigDict, decoder: DecoderConfig) -> Program:
    """The program judged also by what the policy picks of several own answers to a scene by its implicit reward.

    Outcomes: `sum_` and `mean_` with `hallucinated` and `length` of the answer with the largest log pi / pi_0, the sum
    over its tokens or their mean; `one_` of the first answer.
    """
    found, n = judged_scenes(config), config.best_of.samples
    sampling = Sampling(max_new_tokens=config.judge.max_new_tokens, stop=(scenes.END,))
    own, numbers = Trainable(decoder, config.agent), np.arange(len(found))
    draw = drawer(own, scenes.questions(found), n, sampling, config.judge.at_once)

    def evaluate(state: TrainState, resident: PyTree, key: Key) -> Evaluation:
        before = program.evaluate(state, resident, key)
        keys = jnp.stack([jax.random.key(config.judge.seed + 1)])
        samples, ratio = draw(state.params["policy"], resident["model"], numbers, keys).of_run(0)
        length = (samples.lengths - samples.prompt_lengths).astype(float).reshape(-1, n)
        wrong = scenes.measured(np.repeat(found, n, axis=0), samples)["hallucinated"].reshape(-1, n)
        total = ratio.reshape(-1, n)
        picked = {"one": np.zeros(len(found), int), "sum": total.argmax(1), "mean": (total / length).argmax(1)}
        said = {
            f"{name}_{what}": values[numbers, column][None]
            for name, column in picked.items() for what, values in (("hallucinated", wrong), ("length", length))
        }
        return Evaluation(before.metrics, {**before.outcomes, **said})

    return program._replace(evaluate=evaluate)
