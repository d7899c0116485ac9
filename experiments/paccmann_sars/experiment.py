"""What a configuration of configs/paccmann_sars.py says: a stage before the policy, or the policy."""

from ml_collections import ConfigDict

from rl_jax.core.experiment import Experiment, Metric
from rl_jax.generative.molecule_design import molecule_experiment

BINDERS = Metric("eval/effective", "share of predicted binders to the held-out protein")


def experiment(config: ConfigDict) -> Experiment:
    """As `molecule_experiment`, with this paper's headline."""
    return molecule_experiment(config, BINDERS)
