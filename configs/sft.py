"""Supervised fine-tuning of a language model on answers or on plain text.

    python -m experiments.sft.train --config=configs/sft.py:PRESET --workdir=DIR

Presets:
  quick           stories260k on Tiny Shakespeare, in packed rows of 512 tokens: minutes on 2 CPU cores.
  <model>/<set>   stories260k or smollm2 (`make smollm2`) on tiny_shakespeare, gsm8k, hh_harmless, dpo_en or kto_en; of
                  preferences the preferred answers are imitated. SmolLM2 trains adapters, and is for a GPU.
  tiny            seconds: what the tests run.
"""

import functools

from ml_collections import ConfigDict

from rl_jax.core.config import from_preset
from rl_jax.data.text.records import SETS
from rl_jax.language import sft
from rl_jax.language.presets import MODELS, language_config, tiny

QUICK = "stories260k", "tiny_shakespeare"


def get_config(preset: str = "quick") -> ConfigDict:
    """The configuration of a preset; an unknown one raises ValueError with the near names."""
    presets = {"quick": lambda: _config(*QUICK), "tiny": _tiny}
    presets |= {f"{model}/{name}": functools.partial(_config, model, name) for model in MODELS for name in SETS}
    return from_preset("sft", presets, preset)


def _config(model: str, name: str) -> ConfigDict:
    config = language_config(model, name, sft.default_config())
    config.packing = 2 * config.data.longest  # tokens of a row, which holds several documents; 0: a document a row
    config.batch_size = 8  # rows
    return config


def _tiny() -> ConfigDict:
    config = tiny(_config(*QUICK))
    # Hardly a document of this set is as short as the tiny ones of others.
    config.update_from_flattened_dict({"data.longest": 256, "data.most": 12, "packing": 512})
    return config
