"""Reinforcement learning from verified answers: a small decoder learns to add and subtract; language models on text.

    python -m experiments.grpo.train --config=configs/grpo.py:PRESET --workdir=DIR

Presets:
  quick           GRPO on sums and differences of two numbers below 100, 3 seeds: minutes on 2 cores.
  <method>        the same by grpo, dr_grpo, rloo, remax, reinforce_pp, dapo or gspo.
  <model>/<set>   GRPO of stories260k, smollm2 (`make smollm2`), qwen2.5-0.5b or llama-3-8b (your folder,
                  --config.model.name=FOLDER) on gsm8k, whose answers are numbers. All but the first are for a GPU.
  paper/<method>  SmolLM2 on gsm8k by each method, 3 seeds: for a GPU.
  pretrain        the committed start: supervised learning that ends before the decoder calculates well.
  tiny            seconds: what the tests run, and so tiny-<method>, tiny-pool (answers scored in processes of their
                  own, a batch ahead), tiny-curriculum (groups refilled, prompts chosen by pass rates), tiny-pretrain.
"""

import functools

from ml_collections import ConfigDict

from rl_jax.core.config import from_preset
from rl_jax.language.grpo import METHODS
from rl_jax.language.rl_presets import MODELS, arithmetic_config, pretrain_config, text_config, tiny

OWN = [method for method in METHODS if method != "ppo"]


def get_config(preset: str = "quick") -> ConfigDict:
    """The configuration of a preset; an unknown one raises ValueError with the near names."""
    presets = {"quick": functools.partial(learning, "grpo"), "pretrain": pretrain_config}
    presets |= {method: functools.partial(learning, method) for method in OWN}
    presets |= {f"{model}/gsm8k": functools.partial(text_config, model, "gsm8k", "grpo") for model in MODELS}
    presets |= {f"paper/{method}": functools.partial(paper, method) for method in OWN}
    presets |= {"tiny": lambda: tiny(learning("grpo")), "tiny-pretrain": lambda: tiny(pretrain_config())}
    presets |= {f"tiny-{method}": lambda method=method: tiny(learning(method)) for method in OWN}
    presets |= {"tiny-pool": lambda: pooled(tiny(learning("dapo"))), "tiny-curriculum": chosen}
    return from_preset("grpo", presets, preset)


def learning(method: str) -> ConfigDict:
    config = arithmetic_config(method)
    config.agent.samples = 8  # of all methods, so that they are compared
    return config


def paper(method: str) -> ConfigDict:
    config = text_config("smollm2", "gsm8k", method)
    config.agent.samples = 8  # of all methods, so that they are compared
    config.num_seeds = 3
    return config


def pooled(config: ConfigDict) -> ConfigDict:
    config.reward.workers, config.overlap, config.agent.refill = 1, 1, 0
    return config


def chosen() -> ConfigDict:
    config = tiny(learning("dapo"))
    config.curriculum.update({"low": 0.1, "high": 0.9, "least": 4, "memory": 0.9})
    return config
