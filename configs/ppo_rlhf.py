"""PPO of language models with a critic: a small decoder learns to add and subtract; RLHF by a learned reward.

    python -m experiments.ppo_rlhf.train --config=configs/ppo_rlhf.py:PRESET --workdir=DIR

Presets:
  quick           PPO on sums and differences of two numbers below 100, 3 seeds: minutes on 2 cores.
  ppo, adaptive, reinforce_pp
                  the same; with an adaptive coefficient of the KL penalty; by returns without a critic.
  rlhf/<model>    PPO of stories260k, smollm2 (`make smollm2`), qwen2.5-0.5b or llama-3-8b (your folder,
                  --config.model.name=FOLDER) on the prompts of HH-RLHF (harmless) by a learned reward,
                  --config.reward.model=FOLDER, the folder of a run of experiments.reward_model.
  paper           rlhf/smollm2 with 3 seeds: for a GPU.
  <model>/<set>   the same models on gsm8k, whose answers are numbers. All but stories260k are for a GPU.
  tiny            seconds: what the tests run, and so tiny-adaptive.
"""

import functools

from ml_collections import ConfigDict

from rl_jax.core.config import from_preset
from rl_jax.language.rl_presets import MODELS, arithmetic_config, text_config, tiny

PREFERENCES = "hh_harmless"


def get_config(preset: str = "quick") -> ConfigDict:
    """The configuration of a preset; an unknown one raises ValueError with the near names."""
    arms = {"ppo": ppo, "adaptive": adaptive, "reinforce_pp": functools.partial(learning, "reinforce_pp")}
    presets = arms | {"quick": ppo, "paper": paper}
    presets |= {"tiny": lambda: tiny(ppo()), "tiny-adaptive": lambda: tiny(adaptive())}
    presets |= {f"rlhf/{model}": functools.partial(text_config, model, PREFERENCES, "ppo") for model in MODELS}
    presets |= {f"{model}/gsm8k": functools.partial(text_config, model, "gsm8k", "ppo") for model in MODELS}
    return from_preset("ppo_rlhf", presets, preset)


def learning(method: str) -> ConfigDict:
    config = arithmetic_config(method)
    config.agent.samples = 1  # of all arms: as many questions as answers
    config.num_steps = 200
    config.loop.eval_every = 25
    return config


def ppo() -> ConfigDict:
    config = learning("ppo")
    config.agent.critic_learning_rate = 1e-3
    return config


def paper() -> ConfigDict:
    config = text_config("smollm2", PREFERENCES, "ppo")
    config.num_seeds = 3
    return config


def adaptive() -> ConfigDict:
    config = ppo()
    config.agent.update({"kl_control": "adaptive", "kl_target": 0.3, "kl_horizon": 10_000})
    config.agent.critic_warmup = 10
    return config
