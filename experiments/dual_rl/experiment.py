"""Dual RL: offline RL from rewards, imitation, and whether a loss of V diverges."""

from ml_collections import ConfigDict

from rl_jax.control.imitation import imitation_experiment
from rl_jax.control.offline import load, offline_experiment
from rl_jax.control.stability import stability_experiment
from rl_jax.core.experiment import Experiment
from rl_jax.reports.policy_runs import with_learning_curve


def experiment(config: ConfigDict) -> Experiment:
    """What a configuration of configs/dual_rl.py says."""
    dataset = load(config.dataset)
    if "judged_rows" in config:
        return stability_experiment(config, dataset)
    make = imitation_experiment if "expert" in config else offline_experiment
    return with_learning_curve(config, make(config, dataset), dataset.behaviour_returns)
