"""Reinforcement learning from verified answers: a small decoder learns to add and subtract.

    python -m experiments.grpo.train --config=configs/grpo.py:PRESET --workdir=DIR

Presets:
  quick       GRPO on sums and differences of two numbers below 100, 3 seeds: minutes on 2 cores.
  <method>    the same by grpo, dr_grpo, rloo, reinforce_pp, dapo or gspo.
  pretrain    the committed start: supervised learning that ends before the decoder calculates well.
  tiny        seconds: what the tests run, and so tiny-<method>, tiny-pool (answers scored in processes of their own, a
              batch ahead) and tiny-pretrain.
"""

import functools

from ml_collections import ConfigDict

from rl_jax.core.config import core_config, from_preset
from rl_jax.language import curriculum, grpo, sft
from rl_jax.language.grpo import METHODS


def get_config(preset: str = "quick") -> ConfigDict:
    """The configuration of a preset; an unknown one raises ValueError with the near names."""
    presets = {"quick": functools.partial(learning, "grpo"), "pretrain": pretrain}
    presets |= {method: functools.partial(learning, method) for method in METHODS}
    presets |= {"tiny": lambda: tiny(learning("grpo")), "tiny-pretrain": lambda: tiny(pretrain())}
    presets |= {f"tiny-{method}": lambda method=method: tiny(learning(method)) for method in METHODS}
    presets["tiny-pool"] = lambda: pooled(tiny(learning("dapo")))
    return from_preset("grpo", presets, preset)


def base(agent: ConfigDict) -> ConfigDict:
    config = core_config()
    config.task = "grpo"  # or "pretrain"
    config.decoder = {
        "width": 48, "num_layers": 2, "num_heads": 4, "num_kv_heads": 4, "head_dim": 12, "hidden_width": 96,
        "context_length": 16,
    }
    config.data = {
        "largest": 99,  # number of a question
        "operators": "+-",  # of + - *
        "judged": 256,  # questions that are judged and never trained on
    }
    config.agent = agent
    config.tensorboard = False
    return config


def learning(method: str) -> ConfigDict:
    config = base(grpo.default_config(method))
    config.start = ""  # a model.npz of preset `pretrain`; "" for the committed one
    config.reward = {
        "name": "arithmetic",
        "workers": 0,  # processes that score; 0 scores in this one
        "deadline": 5.0,  # seconds of an answer there
    }
    config.overlap = 0  # batches that are scored ahead
    config.curriculum = curriculum.default_config()
    config.batch_size = 256  # answers
    config.agent.update({
        "samples": 8, "max_new_tokens": 5, "learning_rate": 3e-4, "warmup_steps": 20, "updates_per_epoch": 2,
    })
    config.num_seeds = 3
    config.num_steps = 400
    config.loop.update({"chunk": 1, "log_every": 25, "eval_every": 50, "eval_at_start": True})
    config.checkpoint.every = 200
    return config


def pretrain() -> ConfigDict:
    config = base(sft.default_config())
    config.task = "pretrain"
    config.decoder_seed = 0
    config.batch_size = 128
    config.agent.learning_rate = 3e-3
    config.agent.warmup_steps = 50
    config.num_steps = 1000
    config.loop.update({"chunk": 100, "log_every": 100, "eval_every": 500})
    return config


def tiny(config: ConfigDict) -> ConfigDict:
    config.num_seeds, config.num_steps, config.batch_size = 2, 8, 8
    config.data.largest, config.data.judged = 19, 16
    config.agent.warmup_steps = 2
    config.loop.update({"chunk": 2, "log_every": 2, "eval_every": 4})
    config.checkpoint.every = 4
    if config.task == "grpo":
        config.agent.samples, config.agent.updates_per_epoch = 4, 1
    return config


def pooled(config: ConfigDict) -> ConfigDict:
    config.reward.workers, config.overlap, config.agent.refill = 1, 1, 0
    return config
