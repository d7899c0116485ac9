"""Off-policy evaluation judged by exact values, or by roll-outs."""

from ml_collections import ConfigDict

from rl_jax.control.tabular_evaluation import tabular_evaluation
from rl_jax.core.experiment import Experiment


def experiment(config: ConfigDict) -> Experiment:
    """What a configuration of configs/scope_rl.py says."""
    return tabular_evaluation(config)
