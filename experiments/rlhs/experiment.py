"""The stages of RLHS; each is a run that starts from the models of the one before, seed by seed.

  sft      the start in the token marketplace: a seller's answers, of whose claims a share is wrong
  dpo      pairs of the start's own chats, labelled by a judge after the hindsight of `config.feedback`
  reward   a Bradley-Terry reward model of the same pairs
  rl       reinforcement by it, where `config.reward.run` names its run, or else by the customers' ratings themselves
"""

import functools
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from ml_collections import ConfigDict

from experiments.rlhs import market, texts
from experiments.rlhs.domain import HINDSIGHTS, Domain, Rated, preferences
from rl_jax.core.config import flat, unknown
from rl_jax.core.experiment import Experiment, Metric
from rl_jax.core.files import write_atomically
from rl_jax.core.loop import Result
from rl_jax.core.members import side_by_side
from rl_jax.core.mesh import first_run
from rl_jax.core.program import Program, PyTree
from rl_jax.language import comparisons, pairs
from rl_jax.language.documents import PairDocuments
from rl_jax.language.dpo import dpo_program
from rl_jax.language.grpo import grpo_program
from rl_jax.language.own_answers import drawer, of_model, with_own_answers
from rl_jax.language.questions import texts_of
from rl_jax.language.reward_model import learned, reward_model_program
from rl_jax.language.rows import pad
from rl_jax.language.sampler import Sampling, sample
from rl_jax.language.sft import sft_program
from rl_jax.language.stages import trained_models
from rl_jax.language.training import Trainable

DOMAINS: dict[str, Callable[[ConfigDict], Domain]] = {"tokens": market.domain, "texts": texts.domain}
UTILITY = Metric("eval/utility", "true utility")
HELD_OUT = 10  # of as many pairs of a reward model, one is judged
DIALOGUES = 4


def experiment(config: ConfigDict) -> Experiment:
    """What a configuration of configs/rlhs.py says.

    Raises:
      FileNotFoundError or ValueError: a field names what does not exist.
    """
    for field, known in {"domain": DOMAINS, "stage": STAGE, "feedback.hindsight": HINDSIGHTS}.items():
        value = flat(config)[field]
        if value not in known:
            raise ValueError(unknown(f"config.{field}", value, known))
    domain = DOMAINS[config.domain](config)
    starts = domain.load("start", config.start)
    make, read = STAGE[config.stage](config, domain, starts)

    def program(config: ConfigDict) -> Program:
        return side_by_side([make(config, number, start) for number, start in enumerate(starts)], config.seed)

    inputs = {"start": config.start, "reward": config.reward.run, "feedback": dict(config.feedback)}
    if config.stage == "reward":
        return Experiment(program, inputs | read, Metric("eval/accuracy", "held-out accuracy"))
    return Experiment(program, inputs | read, UTILITY, functools.partial(finish, config, domain, starts[0]))


# The stages: functions that make a program of one seed, from its number among the seeds and the model it starts from

Make = Callable[[ConfigDict, int, PyTree], Program]


def sft_stage(config: ConfigDict, domain: Domain, starts: Sequence[PyTree]) -> tuple[Make, dict[str, Any]]:
    """The seller's answers; its honest ones to the held-out scenarios are judged.

    Raises:
      ValueError: the domain has no seller.
    """
    del starts
    if domain.demonstrations is None:
        raise ValueError(f"config.stage=sft: the models of domain {config.domain!r} can talk: begin with stage dpo")
    length = domain.decoder.context_length
    train, held_out = pad(domain.demonstrations, length), pad(domain.honest, length)

    def make(config: ConfigDict, number: int, start: PyTree) -> Program:
        del number
        return watched(sft_program(config, domain.decoder, start, train, held_out), config, domain)

    return make, {}


def dpo_stage(config: ConfigDict, domain: Domain, starts: Sequence[PyTree]) -> tuple[Make, dict[str, Any]]:
    """Preferences between chats of each seed's own start."""
    found = own_pairs(config, domain, starts)
    train = [pairs.compared(own, domain.decoder.context_length) for own in found]

    def make(config: ConfigDict, number: int, start: PyTree) -> Program:
        return watched(dpo_program(config, domain.decoder, start, train[number], None), config, domain)

    return make, {"pairs": [len(own) for own in found]}


def reward_stage(config: ConfigDict, domain: Domain, starts: Sequence[PyTree]) -> tuple[Make, dict[str, Any]]:
    """The same pairs for a reward model; one in ten is judged."""
    found, length = own_pairs(config, domain, starts), domain.decoder.context_length
    train = [pairs.compared([x for i, x in enumerate(own) if i % HELD_OUT], length) for own in found]
    held_out = [pairs.compared(own[::HELD_OUT], length) for own in found]

    def make(config: ConfigDict, number: int, start: PyTree) -> Program:
        return reward_model_program(config, domain.decoder, start, train[number], held_out[number])

    return make, {"pairs": [len(own) for own in found]}


def rl_stage(config: ConfigDict, domain: Domain, starts: Sequence[PyTree]) -> tuple[Make, dict[str, Any]]:
    """Policy gradient: PPO with a critic, or advantages over a group's mean, as `config.agent.advantages` says."""
    rewards: list[PyTree] = []
    if config.reward.run:
        like = {"decoder": jax.eval_shape(lambda: starts[0]), "head": np.zeros(domain.decoder.width)}
        seeds = range(config.seed, config.seed + len(starts))
        rewards = trained_models("reward.run", config.reward.run, like, seeds, "reward")

    def make(config: ConfigDict, number: int, start: PyTree) -> Program:
        scorer = Rated(domain.feedback)
        if rewards:
            scorer = learned(domain.decoder, rewards[number]["decoder"], rewards[number]["head"])
        program = grpo_program(config, domain.decoder, start, domain.words, domain.train, domain.held_out, scorer)
        return watched(program, config, domain)

    return make, {}


STAGE = {"sft": sft_stage, "dpo": dpo_stage, "reward": reward_stage, "rl": rl_stage}


def own_pairs(config: ConfigDict, domain: Domain, starts: Sequence[PyTree]) -> list[list[PairDocuments]]:
    """Two chats of each start in each training scenario, one over the other where the judge tells them apart: the
    assistant's turn alone is learnt. All seeds have as many, those of the seed with the fewest and at most `data.pairs`
    where that is not 0.

    Raises:
      ValueError: the judge tells none apart.
    """
    told, numbers = config.judge, np.arange(len(domain.train.rows))
    own = Trainable(domain.decoder, ConfigDict({**config.agent, "lora_rank": 0}))  # of starts, which have no adapters
    sampling = Sampling(max_new_tokens=told.max_new_tokens, stop=domain.words.stop)
    draw, found = drawer(own, domain.train, 2, sampling, min(told.at_once, len(numbers))), []
    for seed, start in enumerate(starts, config.seed):
        samples = of_model(draw, start, numbers, jax.random.key(config.feedback.seed + seed))
        said = texts_of(samples, domain.words)
        scores = preferences(domain.feedback, numbers, said[::2], said[1::2], config.feedback.both_orders)
        compared = comparisons.best_and_worst(scores, comparisons.distinct(samples, 2))
        if not len(compared):
            raise ValueError(
                f"config.feedback: of {len(numbers)} pairs of chats the judge tells none apart in both orders: raise "
                "data.size, or start from a model whose answers differ"
            )
        found.append(comparisons.documents(compared, comparisons.sampled_documents(samples, 2, numbers)))
    count = min([len(own) for own in found] + [config.data.pairs] * (config.data.pairs > 0))
    return [own[:count] for own in found]


# Judging


def watched(program: Program, config: ConfigDict, domain: Domain) -> Program:
    """The program, judged by the policy's own chats in the held-out scenarios."""
    return with_own_answers(
        program, domain.decoder, config.agent, config.judge, domain.held_out, domain.words.stop,
        lambda numbers, samples: domain.measure(numbers, texts_of(samples, domain.words)),
    )


def finish(config: ConfigDict, domain: Domain, start: PyTree, result: Result, workdir: Path) -> dict[str, Any]:
    """Writes whole dialogues of the first seed's policy, its most likely answers to the first held-out scenarios."""
    left = domain.finish(result, workdir)
    if jax.process_count() > 1:
        return left
    trained, asked = first_run(result.state.params["policy"]), domain.held_out
    params = Trainable(domain.decoder, config.agent).params(trained, jax.tree.map(jnp.asarray, start))
    told = Sampling(max_new_tokens=config.judge.max_new_tokens, temperature=0.0, stop=domain.words.stop)
    first = slice(DIALOGUES)
    found = jax.device_get(sample(
        domain.decoder, params, asked.tokens[first], asked.lengths[first], 1, told, jax.random.key(0)
    ))
    dialogues = [domain.told(number, text) for number, text in enumerate(texts_of(found, domain.words))]
    write_atomically(workdir / "dialogues.txt", "\n\n".join(dialogues) + "\n")
    return left | {"dialogues": str(workdir / "dialogues.txt")}
