"""Programs that learn in a problem with a finite horizon, until every seed has solved it or its samples are spent.

The horizon is a part of the problem: nothing is earned after it, and nothing is bootstrapped through it.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np

from rl_jax.agents.timed import TimedAgent
from rl_jax.control.online import on_device_program
from rl_jax.core.mesh import gather
from rl_jax.core.program import Evaluation, Key, Program, PyTree, TrainState
from rl_jax.envs.environment import Environment, ending_at_the_horizon
from rl_jax.evaluation.episodes import episode_returns
from rl_jax.tabular.environment import environment, pictures
from rl_jax.tabular.evaluation import exact_returns
from rl_jax.tabular.mdp import Screens, TabularMDP

Make = Callable[[Environment], TimedAgent]


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
