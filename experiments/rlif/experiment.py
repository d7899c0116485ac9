"""RLIF and what it is held against, or the reference Q that its value-based expert decides by."""

from ml_collections import ConfigDict

from rl_jax.control.interactive import interactive_experiment, reference_experiment
from rl_jax.core.experiment import Experiment


def experiment(config: ConfigDict) -> Experiment:
    """What a configuration of configs/rlif.py says."""
    return interactive_experiment(config) if "intervention" in config else reference_experiment(config)
