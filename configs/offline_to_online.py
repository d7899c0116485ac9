"""Learning online in the MuJoCo tasks: SAC from scratch, and the fine-tuning of what was trained offline.

    python -m experiments.offline_rl.finetune --config=configs/offline_to_online.py:PRESET --workdir=DIR

Presets:
  quick           SAC from scratch in Hopper-v4 for 60,000 steps: 10 minutes of CPU time. One seed's policy returned
                  2,447 at 50,000 steps and 837 at 60,000: at this length it jumps from one evaluation to the next.
  sac/<task>      SAC from scratch with its authors' settings and length: hopper, halfcheetah, walker2d,
                  pointmaze-umaze.
  iql/<set>       IQL goes on from --config.init_from.run=DIR, the finished run of configs/offline_rl.py:iql/<set>; with
                  --config.dataset.num_steps=N and the other fields of the data as there.
  cal_ql/<set>    the same of Cal-QL: half of every batch comes from the data set.
  tiny            seconds: SAC in InvertedPendulum-v4, for the tests; tiny-iql and tiny-cal_ql go on from runs of
                  configs/offline_rl.py:tiny-iql and tiny-cal_ql.
"""

import functools

from ml_collections import ConfigDict

from rl_jax.agents import sac
from rl_jax.control import recipes
from rl_jax.control.recipes import RECIPES, sets_of
from rl_jax.core.config import core_config, from_preset
from rl_jax.data.locomotion.sets import ENV_IDS
from rl_jax.data.pointmaze.sets import SETS as POINTMAZE

FINE_TUNED = ("iql", "cal_ql")
FROM_SCRATCH = {  # task and steps
    "hopper": (ENV_IDS["hopper"], 1_000_000), "halfcheetah": (ENV_IDS["halfcheetah"], 3_000_000),
    "walker2d": (ENV_IDS["walker2d"], 3_000_000), "pointmaze-umaze": (POINTMAZE["umaze"].env_id, 1_000_000),
}
NEVER = 1_000_000_000  # a cosine schedule so long is constant


def get_config(preset: str = "quick") -> ConfigDict:
    """The configuration of a preset; an unknown one raises ValueError with the near names."""
    presets = {"quick": quick, "tiny": tiny_from_scratch}
    presets |= {f"sac/{name}": functools.partial(from_scratch, *task) for name, task in FROM_SCRATCH.items()}
    presets |= {f"tiny-{agent}": functools.partial(tiny_tuned, agent) for agent in FINE_TUNED}
    presets |= {
        f"{agent}/{name}": functools.partial(tuned, agent, name) for agent in FINE_TUNED for name in sets_of(agent)
    }
    return from_preset("offline_to_online", presets, preset)


def online(config: ConfigDict) -> ConfigDict:
    """The configuration with the fields of learning in a simulator."""
    config.side_by_side = ()  # the simulators are opened for one combination of a sweep
    config.collect = {
        "env_steps": 1,  # of each run's environment at an update
        "random_steps": 0,  # uniformly random ones, before the first update
    }
    config.replay = {
        "capacity": 1_000_000,  # collected steps of each run; the oldest go first
        "offline_fraction": -1.0,  # of a batch from the data set; below 0: every row, old or new, is as likely
    }
    config.loop.log_every = 1000
    config.loop.eval_every = 10_000
    return config


def from_scratch(env_id: str, num_steps: int) -> ConfigDict:
    """SAC with its authors' settings."""
    config = online(core_config())
    config.env_id = env_id
    config.agent = sac.default_config()
    config.batch_size = 256
    config.num_steps = num_steps
    config.collect.random_steps = 10_000  # ten episodes of the longest kind, as the authors have it
    config.checkpoint.every = 50_000
    config.eval_episodes = 10
    return config


def tuned(agent: str, name: str) -> ConfigDict:
    """The agent's own settings for the set, as in its offline run."""
    return as_tuned(recipes.from_recipe(RECIPES[agent], name))


def as_tuned(config: ConfigDict) -> ConfigDict:
    """An offline run's configuration -> the one of its fine-tuning."""
    config = online(config)
    # The offline run has annealed the policy's learning rate to nothing; the authors tune with a constant one.
    if "decay_steps" in config.agent:
        config.agent.decay_steps = NEVER
    if "mc_returns" in config.dataset.columns:
        config.replay.offline_fraction = 0.5  # Cal-QL's mixing ratio
    config.loop.eval_at_start = True
    return config


def quick() -> ConfigDict:
    config = from_scratch("Hopper-v4", 60_000)
    config.collect.random_steps = 5_000
    return config


def as_tiny(config: ConfigDict) -> ConfigDict:
    config.update_from_flattened_dict(
        {"agent.hidden_dims": (16, 16), "batch_size": 32, "num_seeds": 2, "num_steps": 40, "loop.log_every": 10,
         "loop.eval_every": 20, "checkpoint.every": 10, "eval_episodes": 2, "replay.capacity": 2000}
    )
    return config


def tiny_from_scratch() -> ConfigDict:
    config = as_tiny(from_scratch("InvertedPendulum-v4", 40))
    config.collect.random_steps = 40
    return config


def tiny_tuned(agent: str) -> ConfigDict:
    return as_tiny(as_tuned(recipes.tiny(RECIPES[agent])))
