"""Dual RL: f-DVL beside XQL and IQL on the built-in sets, and ReCOIL beside other ways to imitate.

    python -m experiments.dual_rl.train --config=configs/dual_rl.py:PRESET --workdir=DIR

Presets:
  quick               f-DVL (total variation) on 100,000 steps of hopper-medium-replay, 3 seeds, 10,000 updates: about 2
                      minutes on 2 CPU cores, data included.
  <method>/<data set> offline RL from rewards, one seed at the authors' length, 1,000,000 updates (hours on 2 CPU
                      cores). Methods: fdvl_tv, fdvl_chi2, fdvl_chi2_coded, xql, iql, bc; the locomotion-2 and
                      pointmaze sets of docs/data.md.
  <method>/<setting>  imitation without rewards. Methods: recoil, recoil_objective, recoil_v, smodice, oril, iq_learn,
                      bc_all (clones everything), bc_expert (clones the demonstrations). A setting is
                      <task>-<level>-with-expert (200 hidden expert episodes, walker2d 100) or
                      <task>-<level>-with-few-expert (30), for three tasks and the levels random and medium.
  stability/<arm>     whether a loss of V diverges: 5 seeds, 3000 updates of batch 256, about 1 minute on 2 CPU cores.
                      Arms: xql_raw (equation 11 as it stands), xql_unclipped, xql, with the temperature agent.beta;
                      fdvl_tv, fdvl_chi2, fdvl_chi2_coded, with the temperature agent.lam.
  full                f-DVL (total variation) with 5 seeds on the whole hopper-medium-replay: for one GPU.
  tiny                f-DVL (total variation) in seconds, and so tiny-<method> and tiny-stability/<arm>: what the tests
                      run.

Scores that they reached stand in experiments/dual_rl/README.md.
"""

import functools
import math
from collections.abc import Callable

from ml_collections import ConfigDict

from rl_jax.agents import bc, fdvl, iq_learn, oril, recoil, recoil_v, smodice
from rl_jax.control.recipes import DATA_SETS, POINTMAZE, RECIPES, Recipe, from_recipe, tiny
from rl_jax.core.config import from_preset
from rl_jax.data.locomotion.sets import SETS

# The authors' batch; rewards are scaled by the range of returns before any lambda is chosen.
_FDVL = {"dataset.normalize_rewards": True, "batch_size": 1024}
OFFLINE = {
    "fdvl_tv": Recipe(fdvl.default_config, _FDVL),
    "fdvl_chi2": Recipe(fdvl.default_config, _FDVL | {"agent.surrogate": "chi2_hinged"}),
    "fdvl_chi2_coded": Recipe(fdvl.default_config, _FDVL | {"agent.surrogate": "chi2_coded"}),
    **{agent: RECIPES[agent] for agent in ("xql", "iql", "bc")},
}

STABILITY = {  # a loss of V: method and settings
    "xql_raw": ("xql", {"agent.max_clip": math.inf, "agent.scaled": False}),
    "xql_unclipped": ("xql", {"agent.max_clip": math.inf}),
    **{method: (method, {}) for method in ("xql", "fdvl_tv", "fdvl_chi2", "fdvl_chi2_coded")},
}

# ReCOIL's authors use larger batches and do not standardise observations; the others see standardised ones.
_RECOIL = {"batch_size": 1024}
_IMITATION = {"dataset.normalize_observations": True}
# `learn_from`: what of the demonstrations and the offline data is shown.
IMITATION = {
    "recoil": (Recipe(recoil.default_config, _RECOIL), "both"),
    "recoil_objective": (Recipe(recoil.default_config, _RECOIL | {"agent.form": "objective"}), "both"),
    "recoil_v": (Recipe(recoil_v.default_config, _IMITATION), "both"),
    "smodice": (Recipe(smodice.default_config, _IMITATION), "both"),
    "oril": (Recipe(oril.default_config, _IMITATION), "both"),
    "iq_learn": (Recipe(iq_learn.default_config, _IMITATION), "both"),
    "bc_all": (Recipe(bc.default_config, _IMITATION), "all"),
    "bc_expert": (Recipe(bc.default_config, _IMITATION), "demonstrations"),
}
TASKS = ("hopper", "halfcheetah", "walker2d")
# Hidden expert episodes in the offline data, as in the paper.
_HIDDEN = {"expert": {"hopper": 200, "halfcheetah": 200, "walker2d": 100}, "few-expert": dict.fromkeys(TASKS, 30)}
SETTINGS = {
    f"{task}-{level}-with-{kind}": (f"{task}-{level}", f"{task}-expert", hidden[task])
    for task in TASKS for level in ("random", "medium") for kind, hidden in _HIDDEN.items()
}


def get_config(preset: str = "quick") -> ConfigDict:
    """The configuration of a preset; an unknown one raises ValueError with the near names."""
    presets = {"quick": quick, "full": full, "tiny": functools.partial(tiny, OFFLINE["fdvl_tv"])}
    presets |= {f"tiny-{method}": functools.partial(tiny, recipe) for method, recipe in OFFLINE.items()}
    presets |= {f"tiny-{method}": functools.partial(tiny_imitation, method) for method in IMITATION}
    presets |= {
        f"{method}/{name}": functools.partial(from_recipe, recipe, name)
        for method, recipe in OFFLINE.items() for name in (*SETS, *POINTMAZE)
    }
    presets |= {
        f"{method}/{setting}": functools.partial(imitation, method, setting)
        for method in IMITATION for setting in SETTINGS
    }
    for arm in STABILITY:
        presets |= {f"stability/{arm}": functools.partial(stability, arm, from_recipe)}
        presets |= {f"tiny-stability/{arm}": functools.partial(stability, arm, tiny)}
    return from_preset("dual_rl", presets, preset)


def quick() -> ConfigDict:
    config = from_recipe(OFFLINE["fdvl_tv"], "hopper-medium-replay")
    config.update_from_flattened_dict(
        {"num_seeds": 3, "num_steps": 10_000, "batch_size": 256, "dataset.num_steps": 100_000, "loop.eval_every": 2500,
         "checkpoint.every": 5000}
    )
    return config


def full() -> ConfigDict:
    config = from_recipe(OFFLINE["fdvl_tv"], "hopper-medium-replay")
    config.num_seeds = 5
    return config


def stability(arm: str, make: Callable[[Recipe, str], ConfigDict]) -> ConfigDict:
    """A loss of V that is judged by whether its runs diverge, in 20 evaluations."""
    method, settings = STABILITY[arm]
    config = make(OFFLINE[method], "hopper-medium-replay")
    config.update_from_flattened_dict({"loop.on_nan": "skip", **settings})
    config.judged_rows = 4096  # of the data, on which losses and Q are evaluated
    if make is from_recipe:
        config.update_from_flattened_dict(
            {"num_seeds": 5, "num_steps": 3000, "batch_size": 256, "dataset.num_steps": 200_000,
             "loop.eval_every": 150, "checkpoint.every": 3000}
        )
    return config


def imitation(method: str, setting: str, make: Callable[[Recipe, str], ConfigDict] = from_recipe) -> ConfigDict:
    """A method in an imitation setting."""
    (recipe, learn_from), (offline, expert, hidden) = IMITATION[method], SETTINGS[setting]
    config = make(recipe, offline)
    config.expert = {
        "name": DATA_SETS[expert],
        "num_steps": 300_000,  # to make; the demonstrations and the hidden episodes are the first ones of them
        "demonstrations": 1,  # expert episodes that are known to be an expert's
        "hidden": hidden,  # expert episodes, others than these, that lie unmarked in the offline data
        "learn_from": learn_from,  # "both", or "demonstrations" or "all" for an agent that clones
    }
    return config


def tiny_imitation(method: str) -> ConfigDict:
    config = imitation(method, "hopper-random-with-few-expert", tiny)
    config.expert.hidden = 2
    config.expert.num_steps = 5000
    return config
