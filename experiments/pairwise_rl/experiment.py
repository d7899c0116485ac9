"""The stages of Pairwise-RL: a policy's start, scorers that learn from pairs of its answers, reinforcement by them.

Each stage is a run that starts from those before it, seed by seed. All scorers of a seed read the same pairs.
"""

from collections.abc import Callable, Sequence

import jax
import numpy as np
from ml_collections import ConfigDict

from experiments.pairwise_rl.tasks import TASKS, Problem, Task
from rl_jax.core.config import flat, unknown
from rl_jax.core.experiment import Experiment, Metric
from rl_jax.core.members import side_by_side
from rl_jax.core.program import Evaluation, Key, Program, PyTree, TrainState
from rl_jax.language import comparisons, training
from rl_jax.language.documents import PairDocuments
from rl_jax.language.grpo import grpo_program
from rl_jax.language.judge import Texts, anchored_judge, comparison_pairs, judge_program
from rl_jax.language.own_answers import drawer, of_model, with_own_answers
from rl_jax.language.pairs import compared
from rl_jax.language.questions import texts_of
from rl_jax.language.reward_model import anchored_reward, learned, reward_model_program
from rl_jax.language.rollouts import Anchored, Learned
from rl_jax.language.rows import pad
from rl_jax.language.sampler import Samples, Sampling, answers, padded
from rl_jax.language.sft import sft_program
from rl_jax.language.stages import trained_models
from rl_jax.language.training import DTYPES, Trainable
from rl_jax.losses.advantages import centred_advantages

SCORERS = ("bt", "bt_scaled", "bt_anchored", "judge")
ANCHORS = ("sft", "gold")
GOLD = Metric("eval/gold", "gold reward of samples")
ACCURACY = Metric("eval/accuracy", "accuracy on held-out pairs")

Make = Callable[[ConfigDict, int], Program]  # of one seed, from its number among the seeds


def experiment(config: ConfigDict) -> Experiment:
    """What a configuration of configs/pairwise_rl.py says.

    Raises:
      FileNotFoundError or ValueError: a field names what does not exist, or settings do not go together.
    """
    named = {"task": TASKS, "stage": STAGES, "scorer.kind": SCORERS, "anchor": ANCHORS}
    for field, known in named.items():
        value = flat(config)[field]
        if value not in known:
            raise ValueError(unknown(f"config.{field}", value, known))
    asked = config.curriculum
    if config.num_seeds > 1 and (config.overlap or asked.low > 0.0 or asked.high < 1.0):
        raise ValueError(
            f"config.overlap={config.overlap} and config.curriculum remember batches, and {config.num_seeds} seeds "
            "share what samples: set config.num_seeds=1"
        )
    task = TASKS[config.task](config)
    starts = task.starts("start", config.start)
    make, headline = STAGES[config.stage](config, task, starts)

    def program(config: ConfigDict) -> Program:
        found = [make(config, number) for number in range(len(starts))]
        # Seeds differ in what they read alone, which is `resident`: one is compiled for all.
        return side_by_side([found[0]._replace(resident=own.resident) for own in found], config.seed)

    inputs = {"start": config.start, "scorer": dict(config.scorer)}
    finish = task.finish if config.stage in ("sft", "rl") else lambda result, workdir: {}
    return Experiment(program, inputs, headline, finish)


# Stages


def sft_stage(config: ConfigDict, task: Task, starts: Sequence[PyTree]) -> tuple[Make, Metric]:
    """Supervised learning of the demonstrations."""
    length = task.prompt_width + config.answers.max_new_tokens
    train, held_out = (
        pad([task.document(x, x.demonstration, group) for group, x in enumerate(part)], length)
        for part in (task.train, task.held_out)
    )

    def make(config: ConfigDict, number: int) -> Program:
        program = sft_program(config, task.decoder, starts[number], train, held_out)
        return with_gold(program, config, task)

    return make, GOLD


def bt_stage(config: ConfigDict, task: Task, starts: Sequence[PyTree]) -> tuple[Make, Metric]:
    """Bradley and Terry's model of the pairs: a number an answer."""
    length = task.prompt_width + config.answers.max_new_tokens
    data = [[compared(part, length) for part in own_pairs(config, task, *own)] for own in seeded(config, starts)]
    texts = [shifted_texts(config, task, *own) for own in seeded(config, starts)]

    def make(config: ConfigDict, number: int) -> Program:
        program = reward_model_program(config, task.decoder, starts[number], *data[number])
        return with_shift(program, config, task, texts[number])

    return make, ACCURACY


def judge_stage(config: ConfigDict, task: Task, starts: Sequence[PyTree]) -> tuple[Make, Metric]:
    """The generative judge of the pairs: the policy's own head says which of two answers is the better one."""
    marks = sum(len(x) for x in task.layout[:3])
    length = task.prompt_width + 2 * config.answers.max_new_tokens + marks
    data = [
        [comparison_pairs(task.layout, part, task.decoder, length) for part in own_pairs(config, task, *own)]
        for own in seeded(config, starts)
    ]

    def make(config: ConfigDict, number: int) -> Program:
        return judge_program(config, task.decoder, starts[number], task.layout, *data[number])

    return make, ACCURACY


def rl_stage(config: ConfigDict, task: Task, starts: Sequence[PyTree]) -> tuple[Make, Metric]:
    """Reinforcement by what a scorer says, beside one fixed anchor answer to each prompt where it compares."""
    width = config.agent.max_new_tokens
    asked = [
        [task.questions(part, anchor_answers(config, task, *own, part), width) for part in (task.train, task.held_out)]
        for own in seeded(config, starts)
    ]
    scorers = scorers_of(config, task, starts)

    def make(config: ConfigDict, number: int) -> Program:
        program = grpo_program(config, task.decoder, starts[number], task.words, *asked[number], scorers[number])
        return with_gold(program, config, task)

    return make, GOLD


STAGES = {"sft": sft_stage, "bt": bt_stage, "judge": judge_stage, "rl": rl_stage}


# What they read


def seeded(config: ConfigDict, starts: Sequence[PyTree]) -> list[tuple[int, PyTree]]:
    """Each seed with the policy that it starts from."""
    return list(enumerate(starts, config.seed))


def own_answers(
    config: ConfigDict, task: Task, start: PyTree, seed: int, problems: Sequence[Problem], n: int
) -> Samples:
    """Host samples of a seed's start at temperature 1, n to each problem; they depend on the seed and `pairs.seed`."""
    told = Sampling(max_new_tokens=config.answers.max_new_tokens, stop=task.words.stop)
    settings = training.default_config()
    settings.dtype = config.agent.dtype
    own, at_once = Trainable(task.decoder, settings), min(config.answers.at_once, len(problems))
    draw = drawer(own, task.questions(problems), n, told, at_once)
    return of_model(draw, start, np.arange(len(problems)), jax.random.key(config.pairs.seed + seed))


def anchor_answers(
    config: ConfigDict, task: Task, seed: int, start: PyTree, problems: Sequence[Problem]
) -> list[np.ndarray]:
    """One answer to each problem, fixed for all of the reinforcement: the ground truth, or a sample of the start."""
    if config.anchor == "gold":
        return [problem.reference for problem in problems]
    return answers(own_answers(config, task, start, seed, problems, 1))


def own_pairs(
    config: ConfigDict, task: Task, seed: int, start: PyTree
) -> tuple[list[PairDocuments], list[PairDocuments]]:
    """What the annotator compares, and held-out pairs by the gold reward.

    Two samples of the start to each of `pairs.prompts` problems, or, for the share `pairs.anchored` of them, a sample
    and the ground truth: a judge that is to compare with such anchors has seen them. Ties are dropped.

    Raises:
      ValueError: no two answers have different gold rewards.
    """
    told, rng = config.pairs, np.random.default_rng(config.pairs.seed + seed)
    problems = task.train[: told.prompts]
    documents, scores = scored_answers(config, task, seed, start, problems, 2)
    anchored = np.arange(len(problems)) < round(told.anchored * len(problems))
    references = [task.gold(x.row, task.words.decode(x.reference[:-1].tolist())) for x in problems]
    scores = np.column_stack([scores, references])
    scores[anchored, 1], scores[~anchored, 2] = np.nan, np.nan
    found = comparisons.annotated(comparisons.best_and_worst(scores), told.sharpness, rng)
    all_documents = [
        [*own, task.document(problem, problem.reference)] for own, problem in zip(documents, problems, strict=True)
    ]
    judged_documents, judged_scores = scored_answers(config, task, seed, start, task.held_out, 4)
    judged = comparisons.combinations(judged_scores, rng, most=2)
    if not len(found) or not len(judged):
        raise ValueError(
            "the start's answers to a problem all have one gold reward: train it longer, or raise config.data.size"
        )
    train, held_out = (
        comparisons.documents(part.take(np.resize(rng.permutation(len(part)), count)), own)
        for part, own, count in ((found, all_documents, told.kept), (judged, judged_documents, told.judged))
    )
    # A pair is one outcome, so that all seeds have as many.
    numbered = [
        PairDocuments(pair.chosen._replace(group=group), pair.rejected._replace(group=group), pair.margin)
        for group, pair in enumerate(held_out)
    ]
    return train, numbered


def scored_answers(
    config: ConfigDict, task: Task, seed: int, start: PyTree, problems: Sequence[Problem], n: int
) -> tuple[list, np.ndarray]:
    """n answers to each problem as documents, and their gold rewards [P, n]."""
    samples = own_answers(config, task, start, seed, problems, n)
    rows = [problem.row for problem in problems for _ in range(n)]
    scores = [task.gold(row, text) for row, text in zip(rows, texts_of(samples, task.words), strict=True)]
    return comparisons.sampled_documents(samples, n), np.array(scores).reshape(-1, n)


# Scorers


def scorers_of(config: ConfigDict, task: Task, starts: Sequence[PyTree]) -> list[Learned | Anchored]:
    """What each seed's answers are scored by; without a run it is the scorer before its training.

    "bt" is Bradley and Terry's number itself, "bt_scaled" the same times `deviation_ratio` to the judge of
    `scorer.scale_by`, "bt_anchored" sigmoid(r(y) - r(anchor)), "judge" what the judge says of y beside the anchor.
    """
    told, width, dtype = config.scorer, config.agent.max_new_tokens, DTYPES[config.agent.dtype]
    if told.kind == "judge":
        judges = judges_of(config, starts, "scorer.run", told.run)
        return [anchored_judge(task.decoder, own, task.layout, width, config.agent) for own in judges]
    if told.run:
        like = {"decoder": shapes(starts[0]), "head": jax.ShapeDtypeStruct((task.decoder.width,), np.float32)}
        rewards = trained_models("scorer.run", told.run, like, range(config.seed, config.seed + len(starts)), "reward")
    else:
        rewards = [{"decoder": own, "head": np.zeros(task.decoder.width, np.float32)} for own in starts]
    if told.kind == "bt_anchored":
        return [anchored_reward(task.decoder, own["decoder"], own["head"], width, dtype) for own in rewards]
    found: list[Learned | Anchored] = []
    judges = judges_of(config, starts, "scorer.scale_by", told.scale_by if told.kind == "bt_scaled" else "")
    for (seed, start), own, judge in zip(seeded(config, starts), rewards, judges, strict=True):
        number = learned(task.decoder, own["decoder"], own["head"], dtype)
        if told.kind == "bt_scaled":
            beside = anchored_judge(task.decoder, judge, task.layout, width, config.agent)
            number = scaled(number, deviation_ratio(config, task, seed, start, number, beside))
        found.append(number)
    return found


def judges_of(config: ConfigDict, starts: Sequence[PyTree], field: str, run: str) -> list[PyTree]:
    """The judges of all seeds."""
    if not run:
        return list(starts)
    return trained_models(field, run, shapes(starts[0]), range(config.seed, config.seed + len(starts)), "judge")


def shapes(params: PyTree) -> PyTree:
    """Parameters without their values."""
    return jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype), params)


def scaled(own: Learned, factor: float) -> Learned:
    """The reward times a number, which is one of its parameters."""

    def rewards(params: PyTree, tokens: jax.Array, lengths: jax.Array) -> jax.Array:
        return params["factor"] * own.rewards(params["own"], tokens, lengths)

    return Learned({"own": own.params, "factor": np.float32(factor)}, rewards)


def deviation_ratio(
    config: ConfigDict, task: Task, seed: int, start: PyTree, own: Learned, judge: Anchored, n: int = 8
) -> float:
    """The deviation of a judge's rewards among the start's answers to one prompt over that of Bradley and Terry's.

    Of `pairs.judged` problems at most, from the training ones.
    """
    problems = task.train[: config.pairs.judged]
    samples = own_answers(config, task, start, seed, problems, n)
    anchors = task.questions(
        problems, anchor_answers(config, task, seed, start, problems), config.agent.max_new_tokens
    ).anchors
    beside = [np.repeat(x, n, axis=0) for x in anchors]
    by_judge = jax.jit(judge.rewards)(judge.params, samples, *beside)
    by_number = jax.jit(own.rewards)(own.params, samples.tokens, samples.lengths)

    def deviation(rewards: jax.Array) -> float:
        of_prompts = np.asarray(rewards).reshape(-1, n)
        return float(np.std(of_prompts - of_prompts.mean(1, keepdims=True)))

    return deviation(by_judge) / deviation(by_number) if deviation(by_number) > 0 else 1.0


# Judging


def with_gold(program: Program, config: ConfigDict, task: Task) -> Program:
    """The program judged by the gold reward of its own samples to held-out problems, and their divergence."""
    rows = [problem.row for problem in task.held_out]

    def measure(numbers: np.ndarray, samples: Samples) -> dict[str, np.ndarray]:
        texts = texts_of(samples, task.words)
        return {"gold": np.array([task.gold(rows[number], x) for number, x in zip(numbers, texts, strict=True)])}

    judged = with_own_answers(
        program, task.decoder, config.agent, config.answers, task.questions(task.held_out), task.words.stop, measure
    )
    if config.stage != "sft":
        return judged

    def evaluate(state: TrainState, resident: PyTree, key: Key) -> Evaluation:
        found = judged.evaluate(state, resident, key)
        # How far supervised learning is from a fresh decoder says nothing.
        return found._replace(outcomes={name: x for name, x in found.outcomes.items() if name != "kl"})

    return judged._replace(evaluate=evaluate)


def shifted_texts(config: ConfigDict, task: Task, seed: int, start: PyTree) -> tuple[Texts, Texts]:
    """Held-out prompts with 4 answers of the start to each, and the same prompts with their anchors."""
    samples = own_answers(config, task, start, seed, task.held_out, 4)
    anchors = anchor_answers(config, task, seed, start, task.held_out)
    tokens, lengths = padded([np.append(x.prompt, anchor) for x, anchor in zip(task.held_out, anchors, strict=True)])
    room = samples.tokens.shape[1] - tokens.shape[1]
    return (samples.tokens, samples.lengths), (np.pad(tokens, ((0, 0), (0, room))), lengths)


def with_shift(program: Program, config: ConfigDict, task: Task, texts: tuple[Texts, Texts]) -> Program:
    """A reward model judged also by what a number that is added to all rewards of a prompt does to what RL follows.

    Outcomes [S, 1], the largest change among all held-out problems: `shift_raw` of the reward, `shift_anchored` of
    sigmoid(r(y) - r(anchor)), `shift_p3o` of half the difference of two answers' rewards, which is what P3O (Wu et al.
    2023, arXiv 2310.00212) follows, `shift_group` of the reward less its group's mean.

    Args:
      texts: `shifted_texts`.
    """
    resident = program.resident | {"shift": texts}
    own = learned(task.decoder, None, None)
    rewards = jax.jit(lambda params, texts: own.rewards(params, *texts))
    added = np.random.default_rng(0).uniform(-1.0, 1.0, (len(task.held_out), 1)).astype(np.float32)

    def evaluate(state: TrainState, resident: PyTree, key: Key) -> Evaluation:
        found = program.evaluate(state, resident, key)
        pretrained, settings = resident["model"], Trainable(task.decoder, config.agent)

        def of(run: PyTree) -> dict[str, float]:
            params = {"decoder": settings.params(run["decoder"], pretrained), "head": run["head"]}
            answered, beside = (np.asarray(rewards(params, texts)) for texts in resident["shift"])
            return shift(answered.reshape(len(added), -1), beside[:, None], added)

        runs = len(state.params["reward"]["head"])
        each = [of(jax.tree.map(lambda x, run=run: x[run], state.params["reward"])) for run in range(runs)]
        outcomes = {f"shift_{name}": np.array([[own[name]] for own in each]) for name in each[0]}
        return Evaluation(found.metrics, {**found.outcomes, **outcomes})

    return program._replace(evaluate=evaluate, resident=resident)


def shift(rewards: np.ndarray, anchors: np.ndarray, added: np.ndarray) -> dict[str, float]:
    """The largest change of each kind when `added` [P, 1] is added to rewards [P, n] and anchors' rewards [P, 1]."""
    followed = {
        "raw": lambda r, a: r,
        "anchored": lambda r, a: jax.nn.sigmoid(r - a),
        "p3o": lambda r, a: 0.5 * (r[:, 0] - r[:, 1]),
        "group": lambda r, a: centred_advantages(r),
    }
    return {
        name: float(np.max(np.abs(follow(rewards + added, anchors + added) - follow(rewards, anchors))))
        for name, follow in followed.items()
    }
