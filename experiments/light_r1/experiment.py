"""The stages of Light-R1's curriculum; each is a run that starts from the models of the one before, seed by seed.

What a stage reads is made by the model that it trains: the hardest problems, its own wrong traces, the problems that it
sometimes solves. Samples are drawn at the temperature of training under a seed that the run records.
"""

from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np
from ml_collections import ConfigDict

from experiments.light_r1 import chains, texts
from experiments.light_r1.problems import Domain, Problem, document, questions
from rl_jax.core.config import flat, unknown
from rl_jax.core.experiment import Experiment, Metric
from rl_jax.core.members import side_by_side
from rl_jax.core.program import Evaluation, Key, Program, PyTree, TrainState
from rl_jax.core.recent import with_recent
from rl_jax.language import pairs
from rl_jax.language.anchors import soup
from rl_jax.language.curriculum import pass_rates
from rl_jax.language.documents import PairDocuments
from rl_jax.language.dpo import dpo_program
from rl_jax.language.grpo import grpo_program
from rl_jax.language.pairs import Pairs
from rl_jax.language.questions import judged
from rl_jax.language.rows import pack, pad
from rl_jax.language.sampler import Sampling, answers, sample
from rl_jax.language.sft import sft_program
from rl_jax.language.training import Trainable

DOMAINS: dict[str, Callable[[ConfigDict], Domain]] = {"chains": chains.domain, "texts": texts.domain}
FILTERS = ("none", "hardest", "band")
HARD = Metric("eval/hard", "accuracy on the hard split")
RECENT = ("reward/mean", "group/zero_variance", "response/length", "response/truncated")


def experiment(config: ConfigDict) -> Experiment:
    """What a configuration of configs/light_r1.py says.

    Raises:
      FileNotFoundError or ValueError: a field names what does not exist, or nothing passes the filter.
    """
    named = {"domain": DOMAINS, "stage": STAGE, "filter.kind": FILTERS}
    for field, known in named.items():
        value = flat(config)[field]
        if value not in known:
            raise ValueError(unknown(f"config.{field}", value, known))
    domain = DOMAINS[config.domain](config)
    if config.pool not in domain.pools:
        raise ValueError(unknown("config.pool", config.pool, domain.pools))
    if config.stage == "average":
        loaded = [domain.load(f"average.{name}", run) for name, run in config.average.items()]
        starts = [average(models) for models in zip(*loaded, strict=True)]
        inputs: dict[str, Any] = {"average": dict(config.average)}
    else:
        starts, inputs = domain.load("start", config.start), {"start": config.start}
    make, read = STAGE[config.stage](config, domain, starts)

    def program(config: ConfigDict) -> Program:
        judged_programs = [
            with_judge(make(config, number, start), config, domain, start) for number, start in enumerate(starts)
        ]
        whole = side_by_side(judged_programs, config.seed)
        return with_recent(whole, RECENT, config.recent) if config.stage == "grpo" else whole

    return Experiment(program, inputs | read, HARD, domain.finish)


# The stages: functions that make a program of one seed, from its number among the seeds and the model it starts from

Make = Callable[[ConfigDict, int, PyTree], Program]


def sft_stage(config: ConfigDict, domain: Domain, starts: Sequence[PyTree]) -> tuple[Make, dict[str, Any]]:
    """Supervised learning of the teacher's traces of a pool, of all of it or of what the filter keeps for each seed."""
    kept, read = filtered(config, domain, starts)
    longest = domain.decoder.context_length
    different = kept if read else kept[:1]  # without a filter all seeds read the same
    documents = [[document(domain, problem) for problem in own] for own in different]
    rows = [pack(own, config.packing) if config.packing else pad(own, longest) for own in documents]
    held_out = pad([document(domain, problem) for problem in domain.hard], longest)

    def make(config: ConfigDict, number: int, start: PyTree) -> Program:
        return sft_program(config, domain.decoder, start, rows[number % len(rows)], held_out)

    return make, read


def dpo_stage(config: ConfigDict, domain: Domain, starts: Sequence[PyTree]) -> tuple[Make, dict[str, Any]]:
    """Preferences for the teacher's trace over an own wrong one: of a pool, and of the hard split to judge by."""
    pool = domain.pools[config.pool][: config.filter.candidates]
    train, held_out = (
        [own_pairs(config, domain, start, seed, problems, count) for seed, start in enumerate(starts, config.seed)]
        for problems, count in ((pool, config.filter.kept), (domain.hard, len(domain.hard)))
    )

    def make(config: ConfigDict, number: int, start: PyTree) -> Program:
        program = dpo_program(config, domain.decoder, start, train[number], held_out[number])
        tokens = np.asarray(held_out[number].first.mask).sum(-1)[None]

        def evaluate(state: TrainState, resident: PyTree, key: Key) -> Evaluation:
            found = program.evaluate(state, resident, key)
            return Evaluation(found.metrics, {**found.outcomes, "chosen_tokens": tokens})

        return program._replace(evaluate=evaluate)

    return make, {"filter": {"seed": config.filter.seed, "samples": config.filter.samples}}


def grpo_stage(config: ConfigDict, domain: Domain, starts: Sequence[PyTree]) -> tuple[Make, dict[str, Any]]:
    """Reinforcement by verified answers to the problems that the filter keeps."""
    kept, read = filtered(config, domain, starts)
    widest = max(len(problem.prompt) for own in kept for problem in own)  # of all seeds: they run side by side
    asked, hard = [questions(own, widest) for own in kept], questions(domain.hard)

    def make(config: ConfigDict, number: int, start: PyTree) -> Program:
        return grpo_program(config, domain.decoder, start, domain.words, asked[number], hard, domain.scorer())

    return make, read


def average_stage(config: ConfigDict, domain: Domain, starts: Sequence[PyTree]) -> tuple[Make, dict[str, Any]]:
    """Nothing is trained: the averaged models are judged, and saved for the stages that follow."""
    del config, domain, starts

    def make(config: ConfigDict, number: int, start: PyTree) -> Program:
        del config, number

        def init(key: Key, resident: PyTree) -> TrainState:
            return TrainState.create({"policy": jax.tree.map(jax.numpy.copy, resident["model"])}, {})

        return Program(init, lambda state, resident, batch, key: (state, {}), resident={"model": start})

    return make, {}


STAGE = {"sft": sft_stage, "dpo": dpo_stage, "average": average_stage, "grpo": grpo_stage}


# What the stages read


def average(models: Sequence[PyTree]) -> PyTree:
    """The plain average of models of one shape, summed in float32 whatever they are stored in.

    Raises:
      ValueError: they have not the same leaves.
    """
    shapes = [jax.tree.map(np.shape, model) for model in models]
    if any(shape != shapes[0] for shape in shapes):
        raise ValueError("the models to average have different shapes: they must have one base and one tokenizer")

    return jax.tree.map(lambda mean, own: np.asarray(mean, own.dtype), soup(models), models[0])


def filtered(
    config: ConfigDict, domain: Domain, starts: Sequence[PyTree]
) -> tuple[list[list[Problem]], dict[str, Any]]:
    """The `filter.kept` problems of `config.pool` that each seed's own model is trained on, and what the run records.

    "none" keeps the first ones; "hardest" those of the lowest pass rate; "band" draws from those between `filter.low`
    and `filter.high`, several times where there are fewer.

    Raises:
      ValueError: no problem lies in the band.
    """
    told, pool = config.filter, domain.pools[config.pool]
    if told.kind == "none":
        kept = pool[: told.kept or None]
        return [kept] * len(starts), {}
    pool, found, passed = pool[: told.candidates], [], []
    for own_seed, start in enumerate(starts, config.seed):
        rates = rates_of(domain, start, pool, told.samples, 1.0, config, jax.random.key(told.seed + own_seed))
        order = np.random.default_rng(told.seed + own_seed).permutation(len(pool))
        if told.kind == "hardest":
            chosen = order[np.argsort(rates[order], kind="stable")][: told.kept]
        else:
            inside = order[(rates[order] >= told.low) & (rates[order] <= told.high)]
            if not len(inside):
                raise ValueError(
                    f"no problem of {len(pool)} has a pass rate from config.filter.low={told.low} to "
                    f"high={told.high}: their mean is {np.mean(rates):.2f}, widen the band or train the start longer"
                )
            chosen = np.resize(inside, told.kept)
        found.append([pool[place] for place in chosen])
        of_pool, of_kept = float(np.mean(rates)), float(np.mean(rates[chosen]))
        passed.append({"pool": of_pool, "kept": of_kept, "different": len(set(chosen.tolist()))})
    return found, {"filter": {"seed": told.seed, "samples": told.samples, "pass_rates": passed}}


def rates_of(
    domain: Domain, params: PyTree, problems: Sequence[Problem], samples: int, temperature: float, config: ConfigDict,
    key: Key,
) -> np.ndarray:
    """The share of a model's samples that solves each problem, [N]."""
    told = Sampling(max_new_tokens=config.judge.max_new_tokens, temperature=temperature, stop=domain.words.stop)
    scorer = domain.scorer()
    try:
        return pass_rates(
            domain.decoder, params, questions(problems), samples, told, domain.words, scorer, key,
            at_once=config.judge.at_once,
        )
    finally:
        scorer.close()


def own_pairs(
    config: ConfigDict, domain: Domain, params: PyTree, seed: int, problems: Sequence[Problem], count: int
) -> Pairs:
    """`count` pairs of the teacher's trace and a wrong one of the model's own, as it sampled it, of different problems
    as far as there are; a sample that was cut off is wrong.

    Raises:
      ValueError: no sample is wrong.
    """
    told, asked = config.filter, questions(problems)
    sampling = Sampling(max_new_tokens=config.judge.max_new_tokens, stop=domain.words.stop)
    found = jax.device_get(sample(
        domain.decoder, params, asked.tokens, asked.lengths, told.samples, sampling,
        jax.random.key(told.seed + seed),
    ))
    rows = [row for row in asked.rows for _ in range(told.samples)]
    scorer = domain.scorer()
    right = np.array([x.score for x in judged(found, rows, domain.words, scorer, 1.0)]) > 0
    scorer.close()
    wrong = np.random.default_rng(told.seed + seed).permutation(np.flatnonzero(~right))
    if not len(wrong):
        raise ValueError(f"all {len(rows)} samples of the pool are right: there is no wrong trace to learn from")
    # A problem's second wrong trace comes after every problem's first.
    seen: Counter[int] = Counter()
    turns = []
    for problem in wrong // told.samples:
        turns.append(seen[problem])
        seen[problem] += 1
    chosen = np.resize(wrong[np.argsort(turns, kind="stable")], count)
    own, documents = answers(found), []
    for group, place in enumerate(chosen):
        problem = problems[place // told.samples]
        both = (document(domain, problem, text)._replace(group=group) for text in (None, own[place]))
        documents.append(PairDocuments(*both, 0.0))
    return pairs.compared(documents, domain.decoder.context_length)


# Judging


def with_judge(program: Program, config: ConfigDict, domain: Domain, start: PyTree) -> Program:
    """The program judged by samples at `config.judge.temperature`; DPO also by its pairs.

    Outcomes, [1, E], of each problem: `hard` and `easy`, the share of `judge.samples` responses that solve it.
    """
    own, told = Trainable(domain.decoder, config.agent), config.judge

    def evaluate(state: TrainState, resident: PyTree, key: Key) -> Evaluation:
        found = program.evaluate(state, resident, key) if config.stage == "dpo" else Evaluation()
        params = own.params(jax.tree.map(lambda x: x[0], state.params["policy"]), resident["model"])
        rates = {
            name: rates_of(domain, params, problems, told.samples, told.temperature, config, jax.random.key(told.seed))
            for name, problems in (("hard", domain.hard), ("easy", domain.easy))
        }
        return Evaluation(found.metrics, {**found.outcomes, **{name: x[None] for name, x in rates.items()}})

    return program._replace(evaluate=evaluate)
