"""Trains SQIRL, PPO or DQN in a tabular MDP or an Atari game and judges the greedy policy.

    python -m experiments.sqirl.train --config=configs/sqirl.py:quick --workdir=runs/sqirl

In a tabular MDP the judgement is exact, by dynamic programming; in a game (config.atari.rom) it is by episodes.

  --config.observations=screen               networks see the state's screen and not its number
  --config.sweep="agent.k=1,2; agent.num_episodes=16,64"    candidates of SQIRL, side by side with all seeds

A run that was stopped goes on where it was: give the same command again. --workdir gets what every run's has
(metrics.jsonl, provenance.json, checkpoints). The last line on standard output is one JSON object: the return of each
run's greedy policy and the samples taken; of a sweep, of each combination.
"""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
from ml_collections import ConfigDict

from experiments.binary import run_experiment
from experiments.sqirl.problem import Problem, load_problem
from rl_jax.agents.dqn import dqn
from rl_jax.agents.ppo import ppo
from rl_jax.agents.sqirl import sqirl
from rl_jax.core.config import unknown
from rl_jax.core.loop import run
from rl_jax.core.program import Key, Metrics, Program, PyTree, Resident, TrainState
from rl_jax.core.runtime import is_main_process
from rl_jax.core.sweep import groups, side_by_side, swept_settings, with_settings

HEADLINE = "eval/return"
AGENTS = {"sqirl": sqirl, "ppo": ppo, "dqn": dqn}


class Experiment(NamedTuple):
    """A Program with what it reads.

    Attributes:
      inputs: for the provenance.
      samples: state -> environment steps of each run so far, [R].
      returns: (state, key) -> return of each run's greedy policy, [R].
    """

    program: Program
    inputs: dict[str, Any]
    samples: Callable[[TrainState], np.ndarray]
    returns: Callable[[TrainState, Key], np.ndarray]


def settle(config: ConfigDict, problem: Problem) -> ConfigDict:
    """The configuration with what follows from the problem and the sweep: encoder, sizes, and the number of steps."""
    config = config.copy_and_resolve_references()
    agent = config.agent
    if agent.name not in AGENTS:
        raise ValueError(unknown("agent", agent.name, AGENTS))
    if agent.encoder == "none" or config.observations == "state":
        agent.encoder = problem.encoder
    if agent.name == "sqirl":
        steps = problem.horizon
        for name in ("k", "num_episodes"):
            values = [setting.get(f"agent.{name}", agent[name]) for setting in side_by_side(config)]
            if min(values) < 1:
                raise ValueError(f"config.agent.{name} is {min(values)}: give at least 1")
            agent[f"max_{name}"] = max(values)
        agent.buffer_size = min(agent.buffer_size, problem.horizon**2 * agent.max_num_episodes)
    else:
        steps = max(config.samples // samples_a_step(agent), 1)
    config.num_steps = config.num_steps or steps
    return config


def samples_a_step(agent: ConfigDict) -> int:
    """Environment steps in one step of PPO or DQN."""
    return agent.num_envs * (agent.num_steps if agent.name == "ppo" else agent.train_every)


def make_program(config: ConfigDict, workdir: Path) -> Experiment:
    """The Program of a configuration, which `settle` settles."""
    del workdir
    problem = load_problem(config)
    return make_experiment(settle(config, problem), problem)


def make_experiment(config: ConfigDict, problem: Problem) -> Experiment:
    """The same of a settled configuration, with its problem loaded."""
    timed, settings = config.agent.name == "sqirl", swept_settings(config)

    def agent_in(data: PyTree, settings: Mapping[str, jax.Array]) -> Any:
        return AGENTS[config.agent.name](with_settings(config, settings).agent, problem.environment(data))

    def init(key: Key, settings: Mapping[str, jax.Array] = {}) -> TrainState:
        state = agent_in(problem.data, settings).init(key)
        return state.replace(extra=state.extra | ({"settings": settings} if settings else {}))

    def step(state: TrainState, data: PyTree, key: Key) -> tuple[TrainState, Metrics]:
        own = {name: state.extra[name] for name in ("settings",) if name in state.extra}
        state, metrics = agent_in(data, own.get("settings", {})).step(state, key)
        return state.replace(extra=state.extra | own), metrics

    def act(state: TrainState, observations: jax.Array, time: jax.Array) -> jax.Array:
        agent = agent_in(problem.data, state.extra.get("settings", {}))
        if timed:
            return agent.act(state, observations, time)
        return agent.act(state.params, observations, jax.random.key(0), 0.0)

    returns = problem.returns(act, timed)

    def samples(state: TrainState) -> np.ndarray:
        if timed:
            return np.asarray(state.extra["samples"], np.int64)
        runs = len(jax.tree.leaves(state.params)[0])
        return np.full(runs, int(state.step) * samples_a_step(config.agent), np.int64)

    def evaluate(state: TrainState, key: Key) -> dict[str, Any]:
        return {HEADLINE: returns(state, key), "eval/samples": samples(state).astype(np.float64)}

    program = Program(init, step, Resident(problem.data), evaluate, settings)
    return Experiment(program, problem.inputs, samples, returns)


def main(config: ConfigDict, workdir: Path) -> dict[str, Any]:
    problem = load_problem(config)
    settled = settle(config, problem)
    experiment = make_experiment(settled, problem)
    result = run(experiment.program, settled, workdir, headline=HEADLINE, inputs=experiment.inputs)
    summary = {"paper": config.paper, "preset": config.preset, "step": result.step, "workdir": str(workdir)}
    if is_main_process() and result.evaluations:
        last = {name: np.atleast_1d(values).tolist() for name, values in result.evaluations[-1].items()}
        outcomes = {
            name: {"returns": last[HEADLINE][rows], "samples": last["eval/samples"][rows]}
            for name, rows in groups(settled).items()
        }
        summary |= {"sweep": outcomes} if config.sweep else outcomes[""]
    return summary


if __name__ == "__main__":
    run_experiment(main, "configs/sqirl.py:quick")
