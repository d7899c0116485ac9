"""Offline RL on the `locomotion-2`, `pointmaze` and `adroit` sets.

    python -m experiments.offline_rl.train --config=configs/offline_rl.py:PRESET --workdir=DIR

Presets:
  quick               TD3+BC on 100,000 steps of halfcheetah-medium, 3 seeds, 25,000 updates each: 6 minutes on 2 CPU
                      cores, data included; expected score about 35, where the behaviour policy has 29 and BC 32.
  quick-bc            BC on the same data, 10,000 updates, for --config.rival of quick.
  <agent>/<data set>  one seed with the authors' own settings and length, e.g. iql/hopper-medium or
                      rebrac/walker2d-medium-expert. On 2 CPU cores 1,000,000 updates of IQL, XQL, AWAC or TD3+BC take
                      about an hour or two; CQL, EDAC, ReBRAC and DT are for a GPU. Agents: bc, bc10, td3_bc, awac, cql,
                      cal_ql, iql, xql, rebrac, sac_n, edac, dt. Scores that they reached with fewer updates stand in
                      experiments/offline_rl/README.md.
  <agent>/pointmaze-<maze>
                      CORL's settings for D4RL's maze2d: umaze, medium, large, each also with -dense behind it, e.g.
                      td3_bc/pointmaze-umaze or iql/pointmaze-large-dense. Agents: bc, bc10, td3_bc, awac, iql, and
                      for sparse rewards rebrac.
  <agent>/adroit-door-human
                      25 demonstrations of people at Adroit's door, with CORL's settings: bc, bc10, td3_bc, awac, cql or
                      iql. Needs the extra adroit; CORL's scores on D4RL's set are between -1 and 6 (docs/data.md).
  full                the authors' settings with 16 seeds side by side on the whole hopper-medium: for one GPU.
  tiny                seconds: what the tests run.
  tiny-<agent>        the same with another agent.
"""

import functools

from ml_collections import ConfigDict

from rl_jax.control.recipes import RECIPES, from_recipe, sets_of, tiny
from rl_jax.core.config import from_preset


def get_config(preset: str = "quick") -> ConfigDict:
    """The configuration of a preset; an unknown one raises ValueError with the near names."""
    # BC has its score after 5,000 updates (31.6) and keeps it up to 40,000 (31.8).
    presets = {"quick": functools.partial(quick, "td3_bc", 25_000), "quick-bc": functools.partial(quick, "bc", 10_000)}
    presets |= {"full": full, "tiny": functools.partial(tiny, RECIPES["iql"])}
    presets |= {f"tiny-{agent}": functools.partial(tiny, recipe) for agent, recipe in RECIPES.items()}
    presets |= {
        f"{agent}/{name}": functools.partial(from_recipe, recipe, name)
        for agent, recipe in RECIPES.items() for name in sets_of(agent)
    }
    return from_preset("offline_rl", presets, preset)


def quick(agent: str, num_steps: int) -> ConfigDict:
    config = from_recipe(RECIPES[agent], "halfcheetah-medium")
    config.update_from_flattened_dict(
        {"num_seeds": 3, "num_steps": num_steps, "dataset.num_steps": 100_000, "loop.eval_every": 5000,
         "checkpoint.every": 10_000, "eval_episodes": 20}
    )
    return config


def full() -> ConfigDict:
    config = from_recipe(RECIPES["iql"], "hopper-medium")
    config.num_seeds = 16
    return config
