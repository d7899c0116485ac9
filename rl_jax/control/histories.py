"""Offline RL with observation histories: agents with a memory, on whole episodes, judged in pure-JAX environments or in
simulators.
"""

from collections.abc import Callable, Mapping
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from ml_collections import ConfigDict

from rl_jax.agents.agent import Agent
from rl_jax.agents.history_bc import history_bc
from rl_jax.agents.history_cql import history_cql
from rl_jax.agents.ilql import ilql
from rl_jax.control.tasks import Task, judge_in
from rl_jax.core.config import unknown
from rl_jax.core.fused import default_seed_axis, over_runs
from rl_jax.core.mesh import gather, shard_batch
from rl_jax.core.program import Evaluation, Key, Metrics, Program, PyTree, TrainState
from rl_jax.data.episodes import Episodes
from rl_jax.data.sequences import RewardedSequences, sample_episodes, to_rewarded_trajectories
from rl_jax.envs.environment import Environment
from rl_jax.envs.recording import remembering
from rl_jax.evaluation.context import Context
from rl_jax.evaluation.episodes import episode_returns

# (state of S runs, resident, key) -> returns [S, E] of episodes, by the environment's name.
Play = Callable[[TrainState, PyTree, Key], dict[str, np.ndarray]]
AGENTS = {"history_cql": history_cql, "history_bc": history_bc, "ilql": ilql}


class Judged(NamedTuple):
    """Where policies are judged.

    Attributes:
      environment: a policy is shown its history in it.
      success: the least return that counts as success.
      temperature: of the policy; 0 is its mode.
      beside: other environments of as many steps, by the outcome that says whether an episode there is a success.
    """

    environment: Environment
    success: float
    temperature: float = 0.0
    beside: Mapping[str, Environment] = {}

    @property
    def horizon(self) -> int:
        return self.environment.horizon

    def play(self, agent: Agent, config: ConfigDict) -> Play:
        """Plays `config.eval_episodes` episodes of each run in `environment`, named "return", and in those beside."""

        def act(state: TrainState, history: PyTree, time: jax.Array) -> jax.Array:
            return agent.act(state.params, history, jax.random.fold_in(jax.random.key(0), time), self.temperature)

        returns = {
            name: episode_returns(remembering(environment), act, config.eval_episodes)
            for name, environment in {"return": self.environment, **self.beside}.items()
        }
        return lambda state, resident, key: {name: np.asarray(of(state, key)) for name, of in returns.items()}


class JudgedInSimulator(NamedTuple):
    """A Gymnasium task in place of `Judged.environment`, whose actions are a number for each move.

    Attributes:
      task: of it.
      horizon: most steps of an episode.
      success: see Judged.
    """

    task: Task
    horizon: int
    success: float

    def play(self, agent: Agent, config: ConfigDict) -> Play:
        """See Judged; policies are judged at their mode."""

        def act(policy: PyTree, history: PyTree, key: Key, temperature: jax.Array) -> jax.Array:
            chosen = agent.act(policy[0], history, key, temperature)
            return jax.nn.one_hot(chosen, history.actions.shape[-1])

        evaluate = judge_in(self.task, config)(act, Context(self.horizon + 1, 0.0))
        return lambda *run: {"return": evaluate(*run).outcomes["return"]}


def make_history_agent(config: ConfigDict, num_actions: int) -> Agent:
    """The agent that `config.agent.name` names."""
    if config.agent.name not in AGENTS:
        raise ValueError(unknown("agent", config.agent.name, AGENTS))
    return AGENTS[config.agent.name](config.agent, num_actions)


def history_program(config: ConfigDict, episodes: Episodes, judged: Judged | JudgedInSimulator) -> Program:
    """The Program of an agent with a memory on resident episodes with one-hot actions.

    Outcomes: `return`, `success` and what is judged beside it [S, E], of `config.eval_episodes` episodes;
    `bisimulation_loss` and `latent_variance` [S, 1], on `config.judged_rows` episodes of the data, the same ones at
    every time.
    """
    agent = make_history_agent(config, episodes.actions.shape[-1])

    def draw(resident: PyTree, key: Key, batch_size: int) -> RewardedSequences:
        return sample_episodes(resident, key, batch_size, judged.horizon)

    def init(key: Key, resident: PyTree) -> TrainState:
        return agent.init(key, draw(resident, key, 1))

    def step(state: TrainState, resident: PyTree, batch: None, key: Key) -> tuple[TrainState, Metrics]:
        del batch
        batch_key, update_key = jax.random.split(key)
        return agent.update(state, shard_batch(draw(resident, batch_key, config.batch_size)), update_key)

    play = judged.play(agent, config)

    @jax.jit
    def latents(state: TrainState, resident: PyTree) -> tuple[jax.Array, jax.Array]:
        """(L_bis, variance of the latents), [S] each: what an update would report."""
        key = jax.random.key(0)
        batch = draw(resident, key, config.judged_rows)
        metrics = over_runs(lambda own: agent.update(own, batch, key)[1], default_seed_axis())(state)
        return metrics["bisimulation/loss"], metrics["bisimulation/latent_variance"]

    def evaluate(state: TrainState, resident: PyTree, key: Key) -> Evaluation:
        loss, variance = (np.asarray(x)[:, None] for x in gather(latents(state.replace(step=None), resident)))
        returns = {name: found.astype(np.float64) for name, found in play(state, resident, key).items()}
        outcomes = {name: (found >= judged.success).astype(np.float64) for name, found in returns.items()}
        outcomes |= {"return": returns["return"], "success": outcomes["return"]}
        return Evaluation(outcomes=outcomes | {"bisimulation_loss": loss, "latent_variance": variance})

    return Program(init, step, evaluate, jax.tree.map(jnp.asarray, to_rewarded_trajectories(episodes)))
