"""SQIRL, GORP, PPO or DQN in a problem with a finite horizon, until it is solved or the samples are spent."""

import functools
import math
from pathlib import Path
from typing import Any

import jax
import numpy as np
from ml_collections import ConfigDict

from configs.sqirl import BUILT
from rl_jax.agents.dqn import dqn
from rl_jax.agents.gorp import gorp
from rl_jax.agents.ppo import ppo
from rl_jax.agents.sqirl import sqirl
from rl_jax.agents.timed import TimedAgent, untimed
from rl_jax.control.solving import Goal, game_program, solved_at, tabular_program
from rl_jax.core.config import unknown
from rl_jax.core.experiment import Experiment, Metric
from rl_jax.core.outcomes import read_outcomes
from rl_jax.envs.atari import atari
from rl_jax.envs.environment import Environment
from rl_jax.tabular.effective_horizon import analyze
from rl_jax.tabular.files import BRIDGE, bridge_path, load_mdp, load_screens
from rl_jax.tabular.gorp_bound import gorp_bound
from rl_jax.tabular.mdp import checksum

AGENTS = ("sqirl", "gorp", "ppo", "dqn")
RETURN = Metric("eval/return", "return")
SHARE = 0.99  # of the way from the random policy's return to the best one, from which on a problem counts as solved


def experiment(config: ConfigDict) -> Experiment:
    """In a tabular MDP, or, with `config.atari.rom`, in a game on the host. Sets `config.num_steps` where it is 0."""
    if config.agent.name not in AGENTS:
        raise ValueError(unknown("agent", config.agent.name, AGENTS))
    if config.observations not in ("state", "screen"):
        raise ValueError(f"config.observations is {config.observations!r}: choose state or screen")
    if config.agent.name == "gorp" and config.sticky:
        raise ValueError(f"config.sticky is {config.sticky}: GORP fixes actions ahead, give 0")
    return in_a_game(config) if config.atari.rom else in_a_table(config)


def in_a_table(config: ConfigDict) -> Experiment:
    path = bridge_path(config.mdp) if config.mdp in BRIDGE else BUILT / f"{config.mdp}.npz"
    path = path if path.exists() else Path(config.mdp)
    mdp = load_mdp(path, config.horizon or None)
    screens, encoder = None, f"one_hot_{mdp.num_states}"
    if config.observations == "screen":
        screens = load_screens(path)
        # MiniGrid's cells are few, and pixels are many.
        encoder = "nature_cnn" if min(screens.images.shape[1:3]) >= 36 else "minigrid_cnn"
    analysis = analyze(mdp, sticky=config.sticky)
    enough = analysis.random_return + SHARE * (analysis.best_return - analysis.random_return)
    config.num_steps = config.num_steps or most_steps(config, mdp.horizon)

    def program(config: ConfigDict) -> Any:
        make = functools.partial(make_agent, config, encoder)
        return tabular_program(make, mdp, screens, sticky=config.sticky, goal=Goal(enough, config.samples))

    def finish(result: Any, workdir: Path) -> dict[str, Any]:
        samples, solved = solved_at(read_outcomes(workdir / "outcomes.npz").values)
        horizon = analysis.stochastic_effective_horizon
        bound = 2.0 * math.log10(mdp.horizon) + horizon * math.log10(mdp.num_actions)
        if config.agent.name == "gorp":
            bound = math.log10(gorp_bound(mdp, max_k=config.agent.k).steps.get(config.agent.k, math.inf))
        returns = np.atleast_1d(result.evaluations[-1]["eval/return"])
        return {
            "returns": returns.tolist(), "samples": samples.tolist(), "solved": solved.tolist(),
            "random_return": analysis.random_return, "best_return": analysis.best_return, "min_k": analysis.min_k,
            "effective_planning_window": analysis.effective_planning_window,
            "stochastic_effective_horizon": horizon, "log10_bound": bound,
        }

    inputs = {"mdp": config.mdp, "checksum": checksum(mdp), "horizon": mdp.horizon}
    return Experiment(program, inputs, RETURN, finish)


def in_a_game(config: ConfigDict) -> Experiment:
    if config.observations != "screen":
        raise ValueError("config.observations is state: an Atari game gives screens alone")
    if jax.default_backend() == "cpu" and jax.device_count() > 1:
        # A callback waits for a copy to the first device, which waits, as all of the program's, for the callback.
        raise ValueError(
            f"config.atari.rom: a step calls the host, which hangs on {jax.device_count()} CPU devices at once: start "
            "with one, without --xla_force_host_platform_device_count in XLA_FLAGS"
        )
    settings = {name: config.atari[name] for name in ("frameskip", "frame_stack", "reward_scale")}
    game = atari(config.atari.rom, horizon=config.horizon, sticky=config.sticky, **settings)
    config.num_steps = config.num_steps or most_steps(config, config.horizon)
    inputs = {"rom": config.atari.rom, "frameskip": config.atari.frameskip, "horizon": config.horizon}
    return Experiment(
        lambda config: game_program(functools.partial(make_agent, config, "nature_cnn"), game, config.atari.episodes),
        inputs, RETURN,
    )


def make_agent(config: ConfigDict, encoder: str, environment: Environment) -> TimedAgent:
    """The agent of a configuration; the encoder fits the observations."""
    agent = config.agent.copy_and_resolve_references()
    if agent.name == "gorp":
        return gorp(agent, environment)
    agent.encoder = encoder if agent.encoder == "none" or config.observations == "state" else agent.encoder
    if agent.name == "sqirl":
        return sqirl(agent, environment, config.samples)
    return untimed((ppo if agent.name == "ppo" else dqn)(agent, environment), samples_a_step(agent))


def samples_a_step(agent: ConfigDict) -> int:
    """Environment steps in a step of PPO or DQN."""
    return agent.num_envs * (agent.num_steps if agent.name == "ppo" else agent.train_every)


def most_steps(config: ConfigDict, horizon: int) -> int:
    """Steps in which the samples are surely spent: each episode of SQIRL and GORP takes one at least."""
    agent = config.agent
    if agent.name not in ("sqirl", "gorp"):
        return -(-config.samples // samples_a_step(agent))
    attempts = 1
    while agent.growth > 1 and agent.num_episodes * agent.growth ** (attempts - 1) < config.samples:
        attempts += 1
    return attempts * (horizon if agent.name == "sqirl" else 1)
