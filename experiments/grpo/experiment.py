"""A small decoder that learns to calculate from verified answers alone; and the supervised start of it."""

import functools
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
from ml_collections import ConfigDict

from experiments.grpo.arithmetic import LETTERS, WORDS, expressions, questions, solved
from rl_jax.core.config import unknown
from rl_jax.core.experiment import Experiment, Metric
from rl_jax.core.loop import Result
from rl_jax.core.mesh import first_run
from rl_jax.data.cache import files_checksum
from rl_jax.language.decoder import DecoderConfig, init_decoder
from rl_jax.language.grpo import grpo_program
from rl_jax.language.questions import Scores
from rl_jax.language.reward_pool import RewardPool, Scorer
from rl_jax.language.sft import sft_program
from rl_jax.networks.model_file import load_model, save_model

START = Path(__file__).parent / "start.npz"
TASKS = ("grpo", "pretrain")
ACCURACY = Metric("eval/score", "exact match, held out")
LOSS = Metric("eval/loss", "held-out loss", "lower", "nats a token")


def experiment(config: ConfigDict) -> Experiment:
    """What a configuration of configs/grpo.py says.

    Raises:
      FileNotFoundError or ValueError: a field names what does not exist.
    """
    if config.task not in TASKS:
        raise ValueError(unknown("config.task", config.task, TASKS))
    shape = DecoderConfig(vocab_size=len(LETTERS), **config.decoder)
    split = expressions(config.data.largest, config.data.operators, config.data.judged)
    if config.task == "pretrain":
        train, held_out = (solved(part, shape.context_length) for part in split)
        fresh = init_decoder(shape, jax.random.key(config.decoder_seed))
        return Experiment(
            lambda config: sft_program(config, shape, fresh, train, held_out), {}, LOSS, leaves_start
        )
    path = Path(config.start or START)
    params = jax.tree.map(jnp.asarray, load_model(path, "start", "arithmetic", functools.partial(init_decoder, shape)))
    train, held_out = map(questions, split)

    def program(config: ConfigDict) -> Any:
        return grpo_program(config, shape, params, WORDS, train, held_out, scorer_of(config))

    return Experiment(program, {"start": files_checksum(path)}, ACCURACY)


def scorer_of(config: ConfigDict) -> Scores:
    """The reward in this process, or in `config.reward.workers` of its own."""
    told = config.reward
    if not told.workers:
        return Scorer(told.name)
    return RewardPool(told.name, workers=told.workers, deadline=told.deadline)


def leaves_start(result: Result, workdir: Path) -> dict[str, Any]:
    save_model(workdir / "model.npz", first_run(result.state.params["policy"]), kind="start", domain="arithmetic")
    return {"model": str(workdir / "model.npz")}
