"""A model of random steps, PPO in a model or in the real environment, or a distilled policy, by `config.task`."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from ml_collections import ConfigDict

from rl_jax.control.distillation import distillation_program, policy_terms
from rl_jax.control.dyna import dyna_program, equations_of, model_free_program, open_real
from rl_jax.control.dynamics import sindy_terms
from rl_jax.control.model_learning import model_program
from rl_jax.core.config import unknown
from rl_jax.core.experiment import Experiment, Metric
from rl_jax.core.loop import Result
from rl_jax.core.mesh import first_run, gather
from rl_jax.envs.surrogate import WORLDS
from rl_jax.losses.sparse_regression import equations

RETURN = Metric("eval/return", "real return")
ERROR = Metric("eval/rmse50", "RMSE after 50 steps", "lower")
TASKS = {"dyna": dyna_program, "model_free": model_free_program, "distil": distillation_program}


def experiment(config: ConfigDict) -> Experiment:
    """What a configuration of configs/sindy_rl.py says.

    Raises:
      ValueError: an unknown task or world, or settings that do not fit together.
      MissingExtraError: the world is a simulator's, which is not installed.
    """
    if config.world not in WORLDS:
        raise ValueError(unknown("config.world", config.world, WORLDS))
    if config.task != "model" and config.task not in TASKS:
        raise ValueError(unknown("config.task", config.task, ("model", *TASKS)))
    world = WORLDS[config.world]
    inputs = {"world": config.world}
    if config.task == "model":
        return Experiment(lambda config: model_program(config, world), inputs, ERROR, with_equations(config))
    if config.task == "distil" and not config.init_from.run:
        raise ValueError("config.task=distil: name the run whose policy is distilled with --config.init_from.run")
    real = open_real(config, world)
    return Experiment(lambda config: TASKS[config.task](config, world, real), inputs, RETURN, with_equations(config))


def with_equations(config: ConfigDict) -> Callable[[Result, Path], dict[str, Any]]:
    """What adds the equations of the first seed, lines of text, to a run's last line."""
    world = WORLDS[config.world]
    variables = (*world.variables, *world.actions)

    def finish(result: Result, workdir: Path) -> dict[str, Any]:
        extra, lines = gather(result.state.extra), {}
        if config.task == "distil":
            policy = np.asarray(extra["policies"])[0, 0]
            lines["policy"] = equations(policy, policy_terms(config, world), variables, world.actions)
        if config.task != "model_free" and config.model.kind == "sindy":
            made = first_run(extra["model"] if config.task == "model" else extra["fitted"].model)
            base = float(config.model.predict == "difference")
            found = equations_of(made.coefficients, world, sindy_terms(config.model, world), base)
            lefts = [f"d {name}/dt" for name in world.variables]
            lines["equations"] = equations(found, sindy_terms(config.model, world), variables, lefts)
        return lines

    return finish
