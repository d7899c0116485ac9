"""Pre-training and tuning of one model on many tasks."""

from ml_collections import ConfigDict

from rl_jax.control.continual import continual_experiment
from rl_jax.core.experiment import Experiment


def experiment(config: ConfigDict) -> Experiment:
    """What a configuration of configs/l2m.py says."""
    return continual_experiment(config)
