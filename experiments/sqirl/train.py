"""Trains SQIRL, PPO or DQN in a tabular MDP and judges the greedy policy exactly, by dynamic programming.

    python -m experiments.sqirl.train --config=configs/sqirl.py:quick --workdir=runs/sqirl

A run that was stopped goes on where it was: give the same command again. --workdir gets what every run's has
(metrics.jsonl, provenance.json, checkpoints). The last line on standard output is one JSON object: the exact return of
each seed's greedy policy, the MDP's best and random return, and the samples taken.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
from ml_collections import ConfigDict

from configs.sqirl import BUILT
from experiments.binary import run_experiment
from rl_jax.agents.dqn import dqn
from rl_jax.agents.ppo import ppo
from rl_jax.agents.sqirl import sqirl
from rl_jax.core.config import unknown
from rl_jax.core.loop import run
from rl_jax.core.program import Key, Metrics, Program, Resident, TrainState
from rl_jax.core.runtime import is_main_process
from rl_jax.envs.environment import ending_at_the_horizon
from rl_jax.envs.tabular import BRIDGE, TabularMDP, bridge_path, checksum, environment, load_mdp
from rl_jax.evaluation.planning import policy_returns

HEADLINE = "eval/return"
AGENTS = {"sqirl": sqirl, "ppo": ppo, "dqn": dqn}


class Experiment(NamedTuple):
    """A Program with what it reads.

    Attributes:
      inputs: for the provenance.
      samples: state -> environment steps of each run so far, [R].
      returns: state -> exact return of each run's greedy policy, [R].
    """

    program: Program
    inputs: dict[str, Any]
    samples: Callable[[TrainState], np.ndarray]
    returns: Callable[[TrainState], np.ndarray]


def load(config: ConfigDict) -> TabularMDP:
    """The MDP that `config.mdp` names, by name or file."""
    path = BUILT / f"{config.mdp}.npz"
    if config.mdp in BRIDGE:
        path = bridge_path(config.mdp)
    elif not path.exists():
        path = Path(config.mdp)
    return load_mdp(path, config.horizon or None)


def settle(config: ConfigDict, mdp: TabularMDP) -> ConfigDict:
    """The configuration with what follows from the MDP: the encoder of its states, and the steps of the samples."""
    config = config.copy_and_resolve_references()
    agent = config.agent
    if agent.name not in AGENTS:
        raise ValueError(unknown("agent", agent.name, AGENTS))
    agent.encoder = f"one_hot_{mdp.num_states}"
    if agent.name == "sqirl":
        steps = mdp.horizon
        agent.buffer_size = min(agent.buffer_size, mdp.horizon * mdp.horizon * agent.num_episodes)
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
    mdp = load(config)
    return make_experiment(settle(config, mdp), mdp, policy_returns(mdp, config.sticky))


def make_experiment(config: ConfigDict, mdp: TabularMDP, exact: Callable[[np.ndarray], np.ndarray]) -> Experiment:
    """The same of a settled configuration, with the MDP loaded and `evaluation.planning.policy_returns` of it made."""
    make, states = AGENTS[config.agent.name], np.arange(mdp.num_states, dtype=np.int32)

    def agent_in(mdp: TabularMDP) -> Any:
        return make(config.agent, ending_at_the_horizon(environment(mdp, config.sticky, observe=lambda state: state)))

    def step(state: TrainState, data: TabularMDP, key: Key) -> tuple[TrainState, Metrics]:
        return agent_in(data).step(state, key)

    agent = agent_in(mdp)
    times = np.arange(mdp.horizon if config.agent.name == "sqirl" else 1)

    def policy(state: TrainState) -> jax.Array:
        """Greedy actions of one run, [T or 1, S]."""
        if config.agent.name == "sqirl":
            return jax.vmap(lambda time: agent.act(state, states, time))(times)
        return agent.act(state.params, states, jax.random.key(0), 0.0)[None]

    @jax.jit
    def policies(state: TrainState) -> jax.Array:
        """[R, T or 1, S, A], float32."""
        actions = jax.vmap(lambda own: policy(own.replace(step=state.step)))(state.replace(step=None))
        return jax.nn.one_hot(actions, mdp.num_actions)

    def returns(state: TrainState) -> np.ndarray:
        return exact(jax.device_get(policies(state)))

    def samples(state: TrainState) -> np.ndarray:
        if config.agent.name == "sqirl":
            return np.asarray(state.extra["samples"], np.int64)
        runs = len(jax.tree.leaves(state.params)[0])
        return np.full(runs, int(state.step) * samples_a_step(config.agent), np.int64)

    def evaluate(state: TrainState, key: Key) -> dict[str, Any]:
        del key
        return {HEADLINE: returns(state), "eval/samples": samples(state).astype(np.float64)}

    inputs = {"mdp": config.mdp, "checksum": checksum(mdp), "horizon": mdp.horizon}
    return Experiment(Program(agent.init, step, Resident(mdp), evaluate), inputs, samples, returns)


def main(config: ConfigDict, workdir: Path) -> dict[str, Any]:
    experiment = make_program(config, workdir)
    settled = settle(config, experiment.program.source.data)
    result = run(experiment.program, settled, workdir, headline=HEADLINE, inputs=experiment.inputs)
    summary = {"paper": config.paper, "preset": config.preset, "step": result.step, "workdir": str(workdir)}
    if is_main_process() and result.evaluations:
        last = result.evaluations[-1]
        summary |= {"returns": last[HEADLINE], "samples": last["eval/samples"]}
    return summary


if __name__ == "__main__":
    run_experiment(main, "configs/sqirl.py:quick")
