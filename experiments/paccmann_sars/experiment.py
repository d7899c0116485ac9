"""What a configuration of configs/paccmann_sars.py says: a stage before the policy, or the policy."""

from ml_collections import ConfigDict

from rl_jax.core.config import unknown
from rl_jax.core.experiment import Experiment, Metric
from rl_jax.generative.molecule_design import design_program, finish, load_design
from rl_jax.generative.molecule_stages import STAGES, stage_experiment

BINDERS = Metric("eval/effective", "share of predicted binders to the held-out protein")


def experiment(config: ConfigDict) -> Experiment:
    """A stage of `config.task`, or "policy".

    Raises:
      ValueError, FileNotFoundError or MissingExtraError: a field names what does not exist, or RDKit is not there.
    """
    if config.task in STAGES:
        return stage_experiment(config)
    if config.task != "policy":
        raise ValueError(unknown("config.task", config.task, (*STAGES, "policy")))
    design = load_design(config)
    inputs = {"activities": config.activities.name, "path": config.activities.path, "models": dict(config.models)}
    return Experiment(lambda config: design_program(config, design), inputs, BINDERS, finish(config, design))
