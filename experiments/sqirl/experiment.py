"""SQIRL, GORP, PPO or DQN in a problem with a finite horizon, until it is solved or the samples are spent."""

import math
from pathlib import Path
from typing import Any

import numpy as np
from ml_collections import ConfigDict

from configs.sqirl import BUILT
from rl_jax.control.solving import AGENTS, game_experiment, solved_at, tabular_experiment
from rl_jax.core.config import unknown
from rl_jax.core.experiment import Experiment
from rl_jax.core.loop import Result
from rl_jax.core.outcomes import read_outcomes
from rl_jax.tabular.effective_horizon import analyze
from rl_jax.tabular.files import BRIDGE, bridge_path, load_mdp, load_screens
from rl_jax.tabular.gorp_bound import gorp_bound

SHARE = 0.99  # of the way from the random policy's return to the best one, from which on a problem counts as solved


def experiment(config: ConfigDict) -> Experiment:
    """In a tabular MDP, or, with `config.atari.rom`, in a game on the host. Sets `config.num_steps` where it is 0."""
    if config.agent.name not in AGENTS:
        raise ValueError(unknown("agent", config.agent.name, AGENTS))
    if config.observations not in ("state", "screen"):
        raise ValueError(f"config.observations is {config.observations!r}: choose state or screen")
    if config.agent.name == "gorp" and config.sticky:
        raise ValueError(f"config.sticky is {config.sticky}: GORP fixes actions ahead, give 0")
    if config.atari.rom:
        return game_experiment(config)
    path = bridge_path(config.mdp) if config.mdp in BRIDGE else BUILT / f"{config.mdp}.npz"
    path = path if path.exists() else Path(config.mdp)
    mdp = load_mdp(path, config.horizon or None)
    analysis = analyze(mdp, sticky=config.sticky)
    enough = analysis.random_return + SHARE * (analysis.best_return - analysis.random_return)

    def finish(result: Result, workdir: Path) -> dict[str, Any]:
        samples, solved = solved_at(read_outcomes(workdir / "outcomes.npz").values)
        horizon = analysis.stochastic_effective_horizon
        bound = 2.0 * math.log10(mdp.horizon) + horizon * math.log10(mdp.num_actions)
        if config.agent.name == "gorp":
            bound = math.log10(gorp_bound(mdp, max_k=config.agent.k).steps.get(config.agent.k, math.inf))
        return {
            "returns": np.atleast_1d(result.evaluations[-1]["eval/return"]).tolist(), "samples": samples.tolist(),
            "solved": solved.tolist(), "random_return": analysis.random_return, "best_return": analysis.best_return,
            "min_k": analysis.min_k, "effective_planning_window": analysis.effective_planning_window,
            "stochastic_effective_horizon": horizon, "log10_bound": bound,
        }

    screens = load_screens(path) if config.observations == "screen" else None
    return tabular_experiment(config, mdp, screens, enough)._replace(finish=finish)
