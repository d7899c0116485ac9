"""CPL and its baselines on comparisons of segments, judged in the task of the segments."""

from ml_collections import ConfigDict

from rl_jax.control.preferences import preference_experiment
from rl_jax.core.experiment import Experiment


def experiment(config: ConfigDict) -> Experiment:
    """What a configuration of configs/cpl.py says."""
    return preference_experiment(config)
