"""The stages of RLHF Workflow; each is a run that starts from what the one before has trained, seed by seed.

sft -> a reward model or a pairwise preference model of the policy's own answers -> rounds: n answers to each question,
the best and the worst of them by that model make a pair, DPO on the pairs, and again from the policy as it then is.
Best and worst of n play the two agents of the theory (Xiong et al. 2023, arXiv 2312.11456): one exploits, the other
makes the pair as informative as it can be.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
from ml_collections import ConfigDict

from experiments.rlhf_workflow.features import features_of, head_program
from experiments.rlhf_workflow.rankings import REWARDS, SELECTORS, Rank, comparing, rankings
from experiments.rlhf_workflow.tasks import TASKS, Task, twice_as_long
from rl_jax.core.config import flat, unknown
from rl_jax.core.experiment import Experiment, Metric
from rl_jax.core.members import side_by_side
from rl_jax.core.program import Program
from rl_jax.language import sorting
from rl_jax.language.judge import comparison_pairs, judge_program
from rl_jax.language.own_answers import with_own_answers
from rl_jax.language.pairs import compared
from rl_jax.language.questions import Questions, texts_of
from rl_jax.language.reward_model import reward_model_program
from rl_jax.language.rounds import rounds_program
from rl_jax.language.rows import pad
from rl_jax.language.sampler import Samples
from rl_jax.language.sft import sft_program
from rl_jax.language.training import Trainable

GOLD = Metric("eval/gold", "gold reward")
ACCURACY = Metric("eval/accuracy", "held-out accuracy")
PROXY = Metric("eval/reward", "learned reward")
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
