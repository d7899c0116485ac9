"""A reward model of pairs of answers.

    python -m experiments.reward_model.train --config=configs/reward_model.py:PRESET --workdir=DIR

Presets:
  quick           stories260k on the pairs of HH-RLHF (harmless) that have at most 384 tokens: minutes on 2 CPU cores.
  <model>/<set>   stories260k or smollm2 (`make smollm2`) on hh_harmless or dpo_en. SmolLM2 trains adapters, and is for
                  a GPU.
  tiny            seconds: what the tests run.
"""

import functools

from ml_collections import ConfigDict

from rl_jax.core.config import from_preset
from rl_jax.language import reward_model
from rl_jax.language.presets import MODELS, language_config, tiny

QUICK = "stories260k", "hh_harmless"
# Fewer pairs than a tiny model can remember, and as many as the cores compute.
OF_PAIRS = {"batch_size": 16, "data.longest": 384, "agent.learning_rate": 1e-3, "agent.weight_decay": 0.1}


def get_config(preset: str = "quick") -> ConfigDict:
    """The configuration of a preset; an unknown one raises ValueError with the near names."""
    presets = {"quick": lambda: _config(*QUICK), "tiny": lambda: tiny(_config(*QUICK))}
    sets = ("hh_harmless", "dpo_en")
    presets |= {f"{model}/{name}": functools.partial(_config, model, name) for model in MODELS for name in sets}
    return from_preset("reward_model", presets, preset)


def _config(model: str, name: str) -> ConfigDict:
    config = language_config(model, name, reward_model.default_config())
    config.update_from_flattened_dict(OF_PAIRS if model == "stories260k" else {})
    return config
