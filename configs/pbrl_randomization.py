"""Preference-based RL made efficient by randomisation: PR-LSVI and PbTS in random and linear MDPs, RiverSwim, DeepSea.

    python -m experiments.pbrl_randomization.train --config=configs/pbrl_randomization.py:PRESET --workdir=DIR

Presets:
  quick            PR-LSVI that asks where it is unsure, 50 random MDPs.
  <method>/<mdp>   50 seeds side by side. Methods: always (every pair is asked about), active_02, active, active_06,
                   active_1 (where the rule is above 0.2, 0.3, 0.6 and 1), random (a share of all rounds), greedy
                   (always, nothing is drawn), thresholds (always, alpha_L and alpha_U), stacked (always, a reward of
                   each step), pbts (always), pbts_active (rule above 0.3).
                   MDPs: random (4 states, 2 actions, 3 steps, one MDP a seed), linear (12 states, 3 actions, 5
                   features, one MDP a seed), riverswim, deep_sea, and three tables of rl_jax/tabular/bridge.
  full-<method>    100,000 rounds in random MDPs: for an accelerator.
  tiny             seconds: what the tests run, and so tiny-<method>, tiny-linear and tiny-bridge.
"""

import functools

from ml_collections import ConfigDict

from rl_jax.agents import pbts, pr_lsvi
from rl_jax.control.dueling import TABLES
from rl_jax.core.config import core_config, from_preset

METHODS = {
    "always": {},
    "active": {"rounds.query": "active"},
    "active_02": {"rounds.query": "active", "rounds.epsilon": 0.2},
    "active_06": {"rounds.query": "active", "rounds.epsilon": 0.6},
    "active_1": {"rounds.query": "active", "rounds.epsilon": 1.0},
    "random": {"rounds.query": "random"},
    "greedy": {"agent.sigma_reward": 0.0, "agent.sigma_transitions": 0.0},
    "thresholds": {"agent.alpha_low": 0.3, "agent.alpha_high": 0.6},
    "stacked": {"rounds.stacked": True},
    "pbts": {},
    "pbts_active": {"rounds.query": "active"},
}
MDPS = {
    "random": {},
    "linear": {"mdp.states": 12, "mdp.actions": 3, "mdp.horizon": 4},
    "riverswim": {"mdp.states": 6, "mdp.horizon": 12, "mdp.count": 1},
    "deep_sea": {"mdp.states": 5, "mdp.count": 1},
    **{name: {"mdp.count": 1} for name in TABLES},
}


def get_config(preset: str = "quick") -> ConfigDict:
    """The configuration of a preset; an unknown one raises ValueError with the near names."""
    presets = {"quick": functools.partial(dueling, "active", "random")}
    presets |= {f"{method}/{mdp}": functools.partial(dueling, method, mdp) for method in METHODS for mdp in MDPS}
    presets |= {f"full-{method}": functools.partial(full, method) for method in METHODS}
    presets |= {f"tiny-{method}": functools.partial(tiny, method, "random") for method in METHODS}
    presets |= {"tiny": functools.partial(tiny, "active", "random")}
    presets |= {"tiny-linear": functools.partial(tiny, "always", "linear")}
    presets |= {"tiny-bridge": functools.partial(tiny, "always", "freeway_10_fs30")}
    return from_preset("pbrl_randomization", presets, preset)


def dueling(method: str, mdp: str) -> ConfigDict:
    config = core_config()
    config.mdp = {
        "kind": mdp,
        "states": 4,  # of DeepSea: the rows
        "actions": 2,
        "dimension": 5,  # features of a linear MDP
        "horizon": 3,
        "count": 1000,  # MDPs with seeds seed, seed + 1, ..., of which each run draws one
        "seed": 0,
        "reward_scale": 5.0,  # over the horizon: what a reward of 1 is at a step; too small a one makes answers coins
    }
    config.rounds = {
        "query": "always",  # or "active", "random"
        "epsilon": 0.3,  # active: asked where the rule is above
        "share": 0.035,  # random: of the rounds
        "stacked": False,  # whether each step has a reward of its own: the features of a trajectory are [H d]
        "newton_steps": 2,  # after an answer, from the estimate before it
        "capacity": 4096,  # answers that there is room for
    }
    config.agent = pbts.default_config() if method.startswith("pbts") else pr_lsvi.default_config()
    config.side_by_side = ("agent.*", "rounds.epsilon", "rounds.share")
    config.num_seeds = 50
    config.num_steps = 4000
    config.loop.update({"chunk": 250, "log_every": 250, "eval_every": 250})
    config.checkpoint.every = 0
    config.tensorboard = False
    config.update_from_flattened_dict(METHODS[method] | MDPS[mdp])
    return config


def full(method: str) -> ConfigDict:
    config = dueling(method, "random")
    config.num_steps = config.rounds.capacity = 100_000
    config.loop.update({"chunk": 1250, "log_every": 6250, "eval_every": 6250})
    return config


def tiny(method: str, mdp: str) -> ConfigDict:
    config = dueling(method, mdp)
    config.num_seeds, config.num_steps, config.mdp.count, config.rounds.capacity = 2, 40, min(config.mdp.count, 2), 256
    config.loop.update({"chunk": 10, "log_every": 10, "eval_every": 20})
    config.checkpoint.every = 10
    return config
