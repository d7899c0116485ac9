"""Off-policy evaluation judged by exact values, or by roll-outs."""

from ml_collections import ConfigDict

from rl_jax.control.off_policy import off_policy_evaluation
from rl_jax.control.off_policy_files import logged_experiment
from rl_jax.control.off_policy_problems import learner_experiment
from rl_jax.control.tabular_evaluation import tabular_evaluation
from rl_jax.core.config import unknown
from rl_jax.core.experiment import Experiment

TASKS = {
    "tabular": tabular_evaluation, "control": off_policy_evaluation, "candidate": learner_experiment,
    "logged": logged_experiment,
}


def experiment(config: ConfigDict) -> Experiment:
    """What a configuration of configs/scope_rl.py says."""
    if config.task not in TASKS:
        raise ValueError(unknown("config.task", config.task, TASKS))
    return TASKS[config.task](config)
