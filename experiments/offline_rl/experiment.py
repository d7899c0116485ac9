"""Offline RL on a data set, its fine-tuning in the task, and SAC from scratch."""

from ml_collections import ConfigDict

from rl_jax.control.offline import load, offline_experiment
from rl_jax.control.offline_to_online import offline_to_online_experiment
from rl_jax.control.online import from_scratch_experiment
from rl_jax.core.experiment import Experiment
from rl_jax.reports.policy_runs import with_learning_curve


def experiment(config: ConfigDict) -> Experiment:
    """What a configuration of configs/offline_rl.py or configs/offline_to_online.py says."""
    if "dataset" not in config:
        return with_learning_curve(config, from_scratch_experiment(config))
    dataset = load(config.dataset)
    make = offline_to_online_experiment if "collect" in config else offline_experiment
    return with_learning_curve(config, make(config, dataset), dataset.behaviour_returns)
