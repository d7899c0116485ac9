"""Programs that learn in a problem with a finite horizon, until every seed has solved it or its samples are spent.

The horizon is a part of the problem: nothing is earned after it, and nothing is bootstrapped through it.
"""

import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np
from ml_collections import ConfigDict

from rl_jax.agents.dqn import dqn
from rl_jax.agents.gorp import gorp
from rl_jax.agents.ppo import ppo
from rl_jax.agents.sqirl import sqirl
from rl_jax.agents.timed import TimedAgent, untimed
from rl_jax.control.online import on_device_program
from rl_jax.core.experiment import Experiment, Metric
from rl_jax.core.mesh import gather
from rl_jax.core.program import Evaluation, Key, Program, PyTree, TrainState
from rl_jax.envs.atari import atari
from rl_jax.envs.environment import Environment, ending_at_the_horizon
from rl_jax.evaluation.episodes import episode_returns
from rl_jax.tabular.environment import environment, pictures
from rl_jax.tabular.evaluation import exact_returns
from rl_jax.tabular.mdp import Screens, TabularMDP, checksum

Make = Callable[[Environment], TimedAgent]

AGENTS = ("sqirl", "gorp", "ppo", "dqn")
RETURN = Metric("eval/return", "return")


class Goal(NamedTuple):
    """When a problem is solved: at a return, within a number of environment steps."""

    enough: float
    samples: int


def tabular_program(make: Make, mdp: TabularMDP, screens: Screens | None, *, sticky: float, goal: Goal) -> Program:
    """An agent in a tabular MDP, whose tables are resident; it sees screens if there are any, and else state numbers.

    Outcomes [S, 1]: "return", the exact expectation; "samples", the environment steps of the attempt under way, at most
    those of the goal; "solved", 1 or 0. Samples to solve are those of the first evaluation with "solved" (`solved_at`).
    """

    def observe_in(screens: Screens | None) -> Callable[[jax.Array], jax.Array]:
        return (lambda state: state) if screens is None else pictures(screens)

    def agent_in(resident: PyTree) -> TimedAgent:
        mdp, screens = resident
        return make(ending_at_the_horizon(environment(mdp, sticky, observe_in(screens))))

    def act(run: TrainState, resident: PyTree, states: jax.Array, time: jax.Array) -> jax.Array:
        return agent_in(resident).act(run, jax.vmap(observe_in(resident[1]))(states), time)

    agent = make(environment(mdp, sticky, observe_in(None)))  # for what it is, not to act in it
    returns = exact_returns(mdp, act, sticky=sticky, timed=agent.attempt_steps > 0)

    def evaluate(state: TrainState, resident: PyTree, key: Key) -> Evaluation:
        del key
        found, samples = returns(state, resident), samples_of(agent, state)
        solved = (found >= goal.enough) & (samples <= goal.samples)
        outcomes = {"return": found, "samples": np.minimum(samples, goal.samples), "solved": solved.astype(np.float64)}
        return Evaluation(outcomes={name: values[:, None] for name, values in outcomes.items()})

    def done(evaluations: Sequence[Mapping[str, Any]]) -> bool:
        """Every seed has solved it, or the first step of an attempt alone takes all samples."""
        last = evaluations[-1]
        spent = np.min(last["eval/samples"]) >= goal.samples
        first_step = (last["step"] - 1) % (agent.attempt_steps or 1) == 0
        return bool(spent and first_step or np.any([line["eval/solved"] for line in evaluations], 0).all())

    return on_device_program(agent_in, (mdp, screens), evaluate)._replace(done=done)


def game_program(make: Make, game: Environment, episodes: int) -> Program:
    """An agent in an environment that is no table. Outcomes: "return" [S, episodes], and "samples" [S, 1]."""
    agent = make(ending_at_the_horizon(game))
    returns = episode_returns(ending_at_the_horizon(game), agent.act, episodes)

    def evaluate(state: TrainState, resident: PyTree, key: Key) -> Evaluation:
        del resident
        return Evaluation(outcomes={"return": returns(state, key), "samples": samples_of(agent, state)[:, None]})

    return on_device_program(lambda resident: agent, (), evaluate)


def samples_of(agent: TimedAgent, state: TrainState) -> np.ndarray:
    """The environment steps of the attempt under way, of each run, [S] float64."""
    return np.asarray(gather(agent.samples(state)), np.float64)


def solved_at(outcomes: Mapping[str, np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """(samples at the first evaluation of each seed that is solved [S], or its last samples; whether it is solved [S]),
    of outcomes [T, S, 1]."""
    solved, samples = outcomes["solved"][..., 0] > 0, outcomes["samples"][..., 0]
    first = samples[solved.argmax(0), np.arange(samples.shape[1])]
    return np.where(solved.any(0), first, samples[-1]), solved.any(0)


# The same from a configuration


def tabular_experiment(config: ConfigDict, mdp: TabularMDP, screens: Screens | None, enough: float) -> Experiment:
    """`config.agent` in an MDP, until it returns `enough`; `config.num_steps` is set where it is 0."""
    encoder = f"one_hot_{mdp.num_states}"
    if screens is not None:
        # MiniGrid's cells are few, and pixels are many.
        encoder = "nature_cnn" if min(screens.images.shape[1:3]) >= 36 else "minigrid_cnn"
    config.num_steps = config.num_steps or most_steps(config, mdp.horizon)

    def program(config: ConfigDict) -> Program:
        make = functools.partial(make_solver, config, encoder)
        return tabular_program(make, mdp, screens, sticky=config.sticky, goal=Goal(enough, config.samples))

    return Experiment(program, {"mdp": config.mdp, "checksum": checksum(mdp), "horizon": mdp.horizon}, RETURN)


def game_experiment(config: ConfigDict) -> Experiment:
    """`config.agent` in the Atari game of `config.atari`, on the host; `config.num_steps` is set where it is 0.

    Raises:
      ValueError: states are asked for, or there are several CPU devices.
    """
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
    return Experiment(
        lambda config: game_program(functools.partial(make_solver, config, "nature_cnn"), game, config.atari.episodes),
        {"rom": config.atari.rom, "frameskip": config.atari.frameskip, "horizon": config.horizon}, RETURN,
    )


def make_solver(config: ConfigDict, encoder: str, environment: Environment) -> TimedAgent:
    """The agent of a configuration, one of AGENTS; the encoder is the one that fits the observations."""
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
    """Steps in which the samples are surely spent: each episode of SQIRL and GORP takes one sample at least."""
    agent = config.agent
    if agent.name not in ("sqirl", "gorp"):
        return -(-config.samples // samples_a_step(agent))
    attempts = 1
    while agent.growth > 1 and agent.num_episodes * agent.growth ** (attempts - 1) < config.samples:
        attempts += 1
    return attempts * (horizon if agent.name == "sqirl" else 1)
