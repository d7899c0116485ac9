"""A learner: an agent joined with the data that it learns from. Training, benchmarks and notebooks start here."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
from ml_collections import ConfigDict

from rl_jax.agents.agent import Agent
from rl_jax.agents.bc import bc
from rl_jax.agents.iql import iql
from rl_jax.agents.td3_bc import td3_bc
from rl_jax.core.config import unknown
from rl_jax.core.mesh import shard_batch
from rl_jax.core.program import Key, Metrics, PyTree, TrainState
from rl_jax.data.episodes import Episodes
from rl_jax.data.load import Dataset, load_dataset
from rl_jax.data.preprocess import normalize_observations, prepare_episodes
from rl_jax.data.transitions import sample

AGENTS = {"bc": bc, "td3_bc": td3_bc, "iql": iql}


class Learner(NamedTuple):
    """What an offline RL Program is made of.

    Attributes:
      data: what a step samples from; host arrays.
      init: key -> TrainState of one run. The statistics of the observations travel with the state, so that a
        checkpoint is a policy of raw observations.
      step: (state, data, key) -> (state, metrics): draws a batch on the device and updates the agent.
      act: ((params, extra), raw observations, key, temperature) -> actions, for one run.
    """

    agent: Agent
    data: PyTree
    init: Callable[[Key], TrainState]
    step: Callable[[TrainState, PyTree, Key], tuple[TrainState, Metrics]]
    act: Callable[[Any, jax.Array, Key, jax.Array | float], jax.Array]


def load(dataset: ConfigDict) -> Dataset:
    """The set that `config.dataset` names."""
    fields = {"path": dataset.path, "seed": dataset.seed, "data_dir": dataset.data_dir}
    return load_dataset(dataset.name, num_steps=dataset.num_steps or None, **fields)


def make_agent(config: ConfigDict, action_dim: int) -> Agent:
    """The agent that `config.agent.name` names."""
    if config.agent.name not in AGENTS:
        raise ValueError(unknown("agent", config.agent.name, AGENTS))
    return AGENTS[config.agent.name](config.agent, action_dim)


def make_learner(config: ConfigDict, episodes: Episodes) -> Learner:
    """The learner of a configuration on a set as it was loaded; what its authors do to the data is done here."""
    episodes, mean, std = prepare_episodes(
        episodes, top_fraction=config.dataset.top_fraction,
        normalize_observations=config.dataset.normalize_observations, scale_rewards=config.dataset.normalize_rewards,
    )  # fmt: skip
    data = episodes.to_transitions(config.dataset.columns, config.agent.get("discount", 1.0))
    agent = make_agent(config, data.actions.shape[1])
    example = jax.tree.map(lambda x: x[:1], data)

    def init(key: Key) -> TrainState:
        return agent.init(key, example).replace(extra={"observation_mean": mean, "observation_std": std})

    def step(state: TrainState, data: PyTree, key: Key) -> tuple[TrainState, Metrics]:
        batch_key, update_key = jax.random.split(key)
        return agent.update(state, shard_batch(sample(data, batch_key, config.batch_size)), update_key)

    def act(policy: Any, observations: jax.Array, key: Key, temperature: jax.Array | float) -> jax.Array:
        params, extra = policy
        observations = normalize_observations(observations, extra["observation_mean"], extra["observation_std"])
        return agent.act(params, observations, key, temperature)

    return Learner(agent, data, init, step, act)
