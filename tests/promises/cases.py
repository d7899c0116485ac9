"""The programs that every promise is tested on: the papers' tiny presets, made smaller, and the toy regression."""

from collections.abc import Mapping
from typing import Any

from ml_collections import ConfigDict

from rl_jax.core.experiment import Experiment
from tests.core import binary, binary_config
from tests.papers import Case, by_name, get_config, make_experiment, smaller

# Every test starts from these: intervals that do not divide one another, and one chunk length to compile.
STEPS = 24
COMMON = {
    "num_seeds": 1,
    "num_steps": STEPS,
    "loop.chunk": 2,
    "loop.log_every": 6,
    "loop.eval_every": 12,
    "loop.eval_at_start": False,
    "checkpoint.every": 8,
    "tensorboard": False,
}
# One chunk from the first step to the last.
WHOLE = {"loop.chunk": 250, "loop.log_every": STEPS, "loop.eval_every": 0, "checkpoint.every": 0}
# Schedules have their length whatever a test trains; the rest is for speed.
LIMITS = {
    "batch_size": 8, "eval_episodes": 1, "evaluation_images": 10, "agent.num_steps": 32, "dataset.context_length": 4,
    "agent.warmup_steps": 9, "agent.decay_steps": 50,
}
TOY = Case("toy", "toy", "quick")


def case_of(name: str) -> Case:
    return TOY if name == TOY.name else by_name(name)


def make_config(case: Case, overrides: Mapping[str, Any] | None = None) -> ConfigDict:
    if case == TOY:
        config = binary_config.get_config()
    else:
        config = smaller(get_config(case.config, case.preset, COMMON), LIMITS)
    config.update_from_flattened_dict({**COMMON, **(overrides or {})})
    return config


def experiment_of(case: Case, config: ConfigDict) -> Experiment:
    return binary.experiment(config) if case == TOY else make_experiment(case.paper, config)
