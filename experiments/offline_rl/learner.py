"""A learner: an agent joined with the data that it learns from. Training, benchmarks and notebooks start here."""

import functools
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import numpy as np
from ml_collections import ConfigDict

from rl_jax.agents.agent import Agent, Batch
from rl_jax.agents.awac import awac
from rl_jax.agents.bc import bc
from rl_jax.agents.cql import cql
from rl_jax.agents.dt import dt
from rl_jax.agents.edac import edac
from rl_jax.agents.fdvl import fdvl
from rl_jax.agents.iq_learn import iq_learn
from rl_jax.agents.iql import iql
from rl_jax.agents.oril import oril
from rl_jax.agents.rebrac import rebrac
from rl_jax.agents.recoil import recoil
from rl_jax.agents.recoil_v import recoil_v
from rl_jax.agents.sac import sac
from rl_jax.agents.smodice import smodice
from rl_jax.agents.td3_bc import td3_bc
from rl_jax.agents.xql import xql
from rl_jax.core.config import unknown
from rl_jax.core.mesh import shard_batch
from rl_jax.core.program import Key, Metrics, PyTree, TrainState
from rl_jax.core.runtime import from_main_process
from rl_jax.core.sweep import swept_settings, with_settings
from rl_jax.data.episodes import Episodes
from rl_jax.data.load import Dataset, load_dataset
from rl_jax.data.preprocess import normalize_observations, prepare_episodes
from rl_jax.data.sequences import sample_sequences, sequences_at, to_trajectories
from rl_jax.data.transitions import Demonstrations, sample, sample_demonstrations
from rl_jax.evaluation.context import Context

AGENTS = {
    "bc": bc, "td3_bc": td3_bc, "awac": awac, "cql": cql, "iql": iql, "xql": xql, "rebrac": rebrac, "sac": sac,
    "edac": edac, "dt": dt, "fdvl": fdvl, "recoil": recoil, "recoil_v": recoil_v, "smodice": smodice, "oril": oril,
    "iq_learn": iq_learn,
}
IMITATORS = ("recoil", "recoil_v", "smodice", "oril", "iq_learn")  # they learn from Demonstrations
EXPERT = "expert"  # the per-step field that marks an expert's demonstrations
TARGET = "target_return"  # a field of the agents that read sequences


class Learner(NamedTuple):
    """What an offline RL Program is made of.

    Attributes:
      data: what a step samples from; host arrays.
      init: (key, settings of the run) -> TrainState of one run. The statistics of the observations and the settings
        travel with the state, so that a checkpoint is a policy of raw observations.
      step: (state, data, key) -> (state, metrics): draws a batch on the device and updates the agent.
      act: ((params, extra), raw observations, key, temperature) -> actions, for one run. An agent with a memory takes
        Sequences with raw observations.
      settings: the swept fields, of all runs; see `Program.settings`.
      batch_at: (data, rows [B]) -> the batch of these rows, in host arrays where data and rows are.
      context: what an agent with a memory is shown when it is evaluated; None without one.
    """

    agent: Agent
    data: PyTree
    init: Callable[..., TrainState]
    step: Callable[[TrainState, PyTree, Key], tuple[TrainState, Metrics]]
    act: Callable[[Any, Any, Key, jax.Array | float], jax.Array]
    settings: dict[str, np.ndarray]
    batch_at: Callable[[PyTree, np.ndarray], Batch]
    context: Context | None


def load(dataset: ConfigDict) -> Dataset:
    """The set that `config.dataset` names; the main process makes or decodes it, the others find it made."""
    fields = {"path": dataset.path, "seed": dataset.seed, "data_dir": dataset.data_dir}
    loaded: list[Dataset] = []

    def read() -> None:
        loaded.append(load_dataset(dataset.name, num_steps=dataset.num_steps or None, **fields))

    from_main_process(read)
    if not loaded:
        read()
    return loaded[0]


def make_agent(config: ConfigDict, action_dim: int) -> Agent:
    """The agent that `config.agent.name` names."""
    if config.agent.name not in AGENTS:
        raise ValueError(unknown("agent", config.agent.name, AGENTS))
    return AGENTS[config.agent.name](config.agent, action_dim)


def make_learner(config: ConfigDict, episodes: Episodes) -> Learner:
    """The learner of a configuration on a set as it was loaded; what its authors do to the data is done here."""
    settings = swept_settings(config)
    if "agent.discount" in settings and "mc_returns" in config.dataset.columns:
        raise ValueError("config.sweep: agent.discount makes mc_returns of the data too: start a run for each")
    episodes, mean, std = prepare_episodes(
        episodes, top_fraction=config.dataset.top_fraction,
        normalize_observations=config.dataset.normalize_observations, scale_rewards=config.dataset.normalize_rewards,
    )
    shows_expert = EXPERT in episodes.extras
    if shows_expert != (config.agent.name in IMITATORS):
        wanted = "demonstrations and offline data" if not shows_expert else "one set, without marks of an expert"
        raise ValueError(f"config.agent.name: {config.agent.name} learns from {wanted}")
    if length := context_length(config):
        data = to_trajectories(episodes)
        context = Context(length, settings.get(f"agent.{TARGET}", config.agent[TARGET]))
        batch_at = functools.partial(sequences_at, context_length=length)
        draw = functools.partial(sample_sequences, context_length=length)
    else:
        data = episodes.to_transitions(config.dataset.columns, config.agent.get("discount", 1.0))
        context = None
        batch_at, draw = lambda data, rows: jax.tree.map(lambda x: x[rows], data), sample
        if shows_expert:
            marks = episodes.extras[EXPERT]
            data = Demonstrations(expert=batch_at(data, marks), offline=batch_at(data, ~marks))
            draw = sample_demonstrations
    action_dim = episodes.actions.shape[1]
    example = batch_at(data, np.arange(1))

    def agent_of(settings: Mapping[str, jax.Array]) -> Agent:
        return make_agent(with_settings(config, settings), action_dim)

    def init(key: Key, settings: Mapping[str, jax.Array] = {}) -> TrainState:
        extra = {"observation_mean": mean, "observation_std": std} | ({"settings": settings} if settings else {})
        return agent_of(settings).init(key, example).replace(extra=extra)

    def step(state: TrainState, data: PyTree, key: Key) -> tuple[TrainState, Metrics]:
        batch_key, update_key = jax.random.split(key)
        agent = agent_of(state.extra.get("settings", {}))
        return agent.update(state, shard_batch(draw(data, batch_key, config.batch_size)), update_key)

    def act(policy: Any, inputs: Any, key: Key, temperature: jax.Array | float) -> jax.Array:
        params, extra = policy
        raw = inputs if context is None else inputs.observations
        normalized = normalize_observations(raw, extra["observation_mean"], extra["observation_std"])
        inputs = normalized if context is None else inputs.replace(observations=normalized)
        return agent_of(extra.get("settings", {})).act(params, inputs, key, temperature)

    return Learner(make_agent(config, action_dim), data, init, step, act, settings, batch_at, context)


def context_length(config: ConfigDict) -> int:
    """Steps of a sequence that the agent learns from; 0 for an agent that learns from transitions.

    Raises:
      ValueError: `config.dataset` does not give what the agent reads.
    """
    length, name = config.dataset.context_length, config.agent.name
    reads_sequences = TARGET in config.agent
    if reads_sequences != (length > 0):
        wanted = "sequences: it must be positive" if reads_sequences else "single transitions: it must be 0"
        raise ValueError(f"config.dataset.context_length is {length}, and {name} reads {wanted}")
    if reads_sequences and config.dataset.normalize_rewards:
        raise ValueError(f"config.dataset.normalize_rewards: {name} is asked for a return in the task's own rewards")
    return length
