"""A reward model of pairs of answers.

    python -m experiments.reward_model.train --config=configs/reward_model.py:PRESET --workdir=DIR

Presets:
  quick           stories260k on the pairs of HH-RLHF (harmless) that have at most 256 tokens: minutes on 2 CPU cores.
  <model>/<set>   stories260k or smollm2 (`make smollm2`) on hh_harmless or dpo_en. SmolLM2 trains adapters, and is for a
                  GPU.
  tiny            seconds: what the tests run.
"""

import functools

from ml_collections import ConfigDict

from rl_jax.core.config import from_preset
from rl_jax.language import reward_model
from rl_jax.language.presets import MODELS, language_config, tiny

QUICK = "stories260k", "hh_harmless"


def get_config(preset: str = "quick") -> ConfigDict:
    """The configuration of a preset; an unknown one raises ValueError with the near names."""
    presets = {"quick": lambda: _config(*QUICK), "tiny": lambda: tiny(_config(*QUICK))}
    sets = ("hh_harmless", "dpo_en")
    presets |= {f"{model}/{name}": functools.partial(_config, model, name) for model in MODELS for name in sets}
    return from_preset("reward_model", presets, preset)


def _config(model: str, name: str) -> ConfigDict:
    return language_config(model, name, reward_model.default_config())
