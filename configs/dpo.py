"""Direct preference optimisation and its kin.

    python -m experiments.dpo.train --config=configs/dpo.py:PRESET --workdir=DIR

Presets:
  quick                  DPO of stories260k on the pairs of HH-RLHF (harmless) that have at most 384 tokens: minutes
                         on 2 CPU cores.
  <loss>/<model>/<set>   dpo, ipo, kto, orpo, simpo or nca; stories260k or smollm2 (`make smollm2`); hh_harmless or
                         dpo_en. SmolLM2 trains adapters, and is for a GPU. KTO also learns from answers that were
                         judged one by one: kto/<model>/kto_en.
  tiny, tiny-kto         seconds: what the tests run.

--config.model.name=RUN starts, and has its reference, in the model of a finished run of experiments.sft.
"""

import functools

from ml_collections import ConfigDict

from rl_jax.core.config import from_preset
from rl_jax.language import dpo
from rl_jax.language.presets import MODELS, language_config, tiny

QUICK = "stories260k", "hh_harmless"
# SimPO's beta is of mean log-probs; its authors take 2 to 10. IPO's is of mean ratios.
BETAS = {"simpo": 2.0, "ipo": 0.5}


def get_config(preset: str = "quick") -> ConfigDict:
    """The configuration of a preset; an unknown one raises ValueError with the near names."""
    presets = {"quick": lambda: _config("dpo", *QUICK)}
    presets |= {name: lambda loss=loss: tiny(_config(loss, *QUICK)) for name, loss in TINY.items()}
    presets |= {
        f"{loss}/{model}/{name}": functools.partial(_config, loss, model, name)
        for loss in dpo.LOSSES for model in MODELS for name in ("hh_harmless", "dpo_en")
    }
    presets |= {f"kto/{model}/kto_en": functools.partial(_config, "kto", model, "kto_en") for model in MODELS}
    return from_preset("dpo", presets, preset)


# Fewer pairs than a tiny model can remember: a low rate, and as many as the cores compute.
OF_PAIRS = {"batch_size": 8, "data.longest": 384, "agent.learning_rate": 3e-4}
TINY = {"tiny": "dpo", "tiny-kto": "kto"}


def _config(loss: str, model: str, name: str) -> ConfigDict:
    config = language_config(model, name, dpo.default_config())
    config.agent.loss = loss
    config.update_from_flattened_dict(OF_PAIRS if model == "stories260k" else {})
    config.agent.beta = BETAS.get(loss, config.agent.beta)
    return config
