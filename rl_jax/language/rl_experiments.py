"""Experiments that learn from rewards of their own answers: a calculator, or a language model on a set of text."""

import functools
from pathlib import Path

import jax
import jax.numpy as jnp
from ml_collections import ConfigDict

from rl_jax.core.config import unknown
from rl_jax.core.experiment import Experiment, Metric
from rl_jax.core.program import Program
from rl_jax.data.cache import files_checksum
from rl_jax.data.text.records import Pair
from rl_jax.language.arithmetic import LETTERS, START, WORDS, expressions, questions, solved
from rl_jax.language.decoder import DecoderConfig, init_decoder
from rl_jax.language.documents import questions as questions_of_text
from rl_jax.language.experiments import leaves_model, leaves_start, load_reward, start
from rl_jax.language.grpo import grpo_program
from rl_jax.language.questions import Words
from rl_jax.language.reward_pool import scorer_of
from rl_jax.language.sft import sft_program
from rl_jax.networks.model_file import load_model

ACCURACY = Metric("eval/score", "exact match, held out")
REWARD = Metric("eval/score", "reward, held out")
LOSS = Metric("eval/loss", "held-out loss", "lower", "nats a token")


def experiment(config: ConfigDict) -> Experiment:
    """What a configuration of rl_presets.py says.

    Raises:
      FileNotFoundError or ValueError: a field names what does not exist.
    """
    if config.task not in TASKS:
        raise ValueError(unknown("config.task", config.task, TASKS))
    return TASKS[config.task](config)


def arithmetic_experiment(config: ConfigDict) -> Experiment:
    """A small decoder that learns to calculate, from a supervised start."""
    shape = DecoderConfig(vocab_size=len(LETTERS), **config.decoder)
    path = Path(config.start or START)
    params = jax.tree.map(jnp.asarray, load_model(path, "start", "arithmetic", functools.partial(init_decoder, shape)))
    train, held_out = map(questions, expressions(config.data.largest, config.data.operators, config.data.judged))

    def program(config: ConfigDict) -> Program:
        return grpo_program(config, shape, params, WORDS, train, held_out, scorer_of(config.reward, config.reward.name))

    return Experiment(program, {"start": files_checksum(path)}, ACCURACY)


def pretrain_experiment(config: ConfigDict) -> Experiment:
    """Its start: supervised learning of right answers."""
    shape = DecoderConfig(vocab_size=len(LETTERS), **config.decoder)
    split = expressions(config.data.largest, config.data.operators, config.data.judged)
    train, held_out = (solved(part, shape.context_length) for part in split)
    fresh = init_decoder(shape, jax.random.key(config.decoder_seed))

    return Experiment(
        lambda config: sft_program(config, shape, fresh, train, held_out), {}, LOSS, leaves_start("arithmetic")
    )


def text_experiment(config: ConfigDict) -> Experiment:
    """A language model on the prompts of a set: answers that are checked, or judged by a learned reward.

    Writes the folder `model`, as supervised fine-tuning does.
    """
    found, told = start(config), config.reward
    if not told.model and isinstance(found.train[0], Pair):
        raise ValueError(
            f"config.data.name={config.data.name} holds pairs, which have no answer to check: name the folder of a "
            "reward model, --config.reward.model=FOLDER, or a set of answers"
        )
    model, data = found.model, config.data
    train, held_out = (
        questions_of_text(model, part, data.name, data.longest, data.most) for part in (found.train, found.held_out)
    )
    words = Words(model.tokenizer.decode, (model.tokenizer.eos,))
    learned = load_reward(told.model, model, config.agent.dtype) if told.model else None

    def program(config: ConfigDict) -> Program:
        scorer = learned or scorer_of(config.reward, config.reward.name)
        return grpo_program(config, model.config, model.params, words, train, held_out, scorer)

    inputs = found.inputs | ({"reward": str(told.model)} if told.model else {})
    return Experiment(program, inputs, REWARD if told.model else ACCURACY, leaves_model(config, model))


TASKS = {"arithmetic": arithmetic_experiment, "pretrain": pretrain_experiment, "text": text_experiment}
