"""SCOPE-RL: off-policy evaluation and selection, against exact values and against roll-outs.

    python -m experiments.scope_rl.train --config=configs/scope_rl.py:PRESET --workdir=DIR

Presets:
  quick             every estimator in a random MDP of 8 states, 3 actions and 20 steps with exact values and
                    visitations, 3 times 600 repetitions of 2,000 trajectories: a minute on a CPU.
  tabular/<models>  the same. Models: exact, biased (Q too large by 1), few (exact, 200 trajectories).
  tiny              seconds: what the tests run.
"""

from ml_collections import ConfigDict

from rl_jax.core.config import core_config, from_preset

MODELS = {"exact": {}, "biased": {"q_error": 1.0}, "few": {"trajectories": 200}}


def get_config(preset: str = "quick") -> ConfigDict:
    """The configuration of a preset; an unknown one raises ValueError with the near names."""
    presets = {"quick": lambda: tabular("exact"), "tiny": lambda: tiny(tabular("exact"))}
    presets |= {f"tabular/{models}": lambda models=models: tabular(models) for models in MODELS}
    return from_preset("scope_rl", presets, preset)


def base(task: str) -> ConfigDict:
    config = core_config()
    config.task = task  # "tabular", or "control"
    config.num_seeds = 3
    config.discount = 0.95
    config.tensorboard = False
    return config


def tabular(models: str) -> ConfigDict:
    config = base("tabular")
    # Both policies are random ones, mixed with the uniform policy by this share.
    config.mdp = {"states": 8, "actions": 3, "horizon": 20, "seed": 0, "noise": 0.0, "uniform": 0.7}
    config.trajectories = 2000
    config.q_error = 0.0  # added to the exact Q
    config.batch_size = 10  # repetitions a step
    config.num_steps = 60
    config.loop.update({"chunk": 10, "log_every": 10, "eval_every": 0})
    config.checkpoint.every = 0
    config.update(MODELS[models])
    return config


def tiny(config: ConfigDict) -> ConfigDict:
    config.num_seeds, config.num_steps, config.batch_size, config.trajectories = 2, 4, 8, 50
    config.mdp.horizon = 5
    return config
