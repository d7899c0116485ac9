"""Offline RL: an agent joined with a data set that lies on the devices, and judged in the task of the data."""

import dataclasses
import functools
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import numpy as np
from ml_collections import ConfigDict

from rl_jax.agents.agent import Agent, Batch
from rl_jax.control.agents import IMITATORS, TARGET, context_length, make_agent
from rl_jax.control.tasks import ActionBox, Judge, action_box, check_task, headline_of, judge_in, task_of
from rl_jax.core.experiment import Experiment
from rl_jax.core.mesh import shard_batch
from rl_jax.core.program import Key, Metrics, Program, PyTree, TrainState
from rl_jax.core.runtime import from_main_process
from rl_jax.data.episodes import Episodes
from rl_jax.data.load import Dataset, load_dataset
from rl_jax.data.preprocess import normalize_observations, prepare_episodes
from rl_jax.data.sequences import Sequences, sample_sequences, to_trajectories
from rl_jax.data.transitions import EXPERT, Demonstrations, sample, sample_demonstrations
from rl_jax.evaluation.context import Context
from rl_jax.evaluation.rollouts import Act


class AgentData(NamedTuple):
    """A data set as an agent reads it.

    Attributes:
      resident: what batches are drawn from; host arrays.
      draw: (resident, key, batch size) -> batch; pure, to be called inside jit.
      statistics: "observation_mean" and "observation_std", [O]: what raw observations are standardised by. They travel
        in `TrainState.extra`, so that a checkpoint is a policy of raw observations.
      action: the shape of one.
    """

    resident: PyTree
    draw: Callable[[PyTree, Key, int], Batch]
    statistics: Mapping[str, np.ndarray]
    action: tuple[int, ...]


def load(dataset: ConfigDict) -> Dataset:
    """The set that `config.dataset` names; the main process makes or decodes it, the others find it made.

    `dataset.name` becomes what the set is called: a file that is read instead of a built-in set does not keep its name.
    """
    fields = {"path": dataset.path, "seed": dataset.seed, "data_dir": dataset.data_dir}
    loaded: list[Dataset] = []

    def read() -> None:
        loaded.append(load_dataset(dataset.name, num_steps=dataset.num_steps or None, **fields))

    from_main_process(read)
    if not loaded:
        read()
    dataset.name = loaded[0].name
    return loaded[0]


def agent_data(config: ConfigDict, episodes: Episodes) -> AgentData:
    """A set as it was loaded -> as the agent reads it; what the agent's authors do to the data is done here.

    Raises:
      ValueError: the agent learns from another kind of data.
    """
    episodes, mean, std = prepare_episodes(
        episodes, top_fraction=config.dataset.top_fraction,
        normalize_observations=config.dataset.normalize_observations, scale_rewards=config.dataset.normalize_rewards,
    )
    shows_expert = EXPERT in episodes.extras
    if shows_expert != (config.agent.name in IMITATORS):
        wanted = "demonstrations and offline data" if not shows_expert else "one set, without marks of an expert"
        raise ValueError(f"config.agent.name: {config.agent.name} learns from {wanted}")
    if length := context_length(config):
        resident, draw = to_trajectories(episodes), functools.partial(sample_sequences, context_length=length)
    else:
        resident, draw = episodes.to_transitions(config.dataset.columns, config.agent.get("discount", 1.0)), sample
        if shows_expert:
            # The demonstrations are among the offline data too, as in the code of ReCOIL's authors.
            expert = jax.tree.map(lambda x: x[episodes.extras[EXPERT]], resident)
            resident, draw = Demonstrations(expert, resident), sample_demonstrations
    statistics = {"observation_mean": mean, "observation_std": std}
    return AgentData(resident, draw, statistics, episodes.actions.shape[1:])


def standardised(observations: jax.Array, extra: Mapping[str, jax.Array]) -> jax.Array:
    """Raw observations [..., O] -> as the agent learns from them, by the statistics in `TrainState.extra`."""
    return normalize_observations(observations, extra["observation_mean"], extra["observation_std"])


def on_raw_observations(agent: Agent, box: ActionBox = ActionBox()) -> Act:
    """The agent's policy in a task: of `(state.params, state.extra)` of one run and raw observations, or `Sequences` of
    them and of the task's actions."""

    def act(policy: Any, inputs: Any, key: Key, temperature: jax.Array | float) -> jax.Array:
        params, extra = policy
        if isinstance(inputs, Sequences):
            inputs = inputs.replace(
                observations=standardised(inputs.observations, extra), actions=box.to_agent(inputs.actions)
            )
        else:
            inputs = standardised(inputs, extra)
        return box.to_task(agent.act(params, inputs, key, temperature))

    return act


def in_box(episodes: Episodes, box: ActionBox) -> Episodes:
    """The episodes with actions in [-1, 1], where agents act."""
    return dataclasses.replace(episodes, actions=box.to_agent(episodes.actions))


def offline_program(
    config: ConfigDict, data: AgentData, judge: Judge | None = None, box: ActionBox = ActionBox()
) -> Program:
    """The Program of an agent on resident data; without a judge it evaluates nothing.

    Args:
      box: of the task's actions; those of the data are in [-1, 1] already.
    """
    agent = make_agent(config, *data.action)

    def init(key: Key, resident: PyTree) -> TrainState:
        state = agent.init(key, data.draw(resident, key, 1))
        return state.replace(extra={**state.extra, **data.statistics})

    def step(state: TrainState, resident: PyTree, batch: None, key: Key) -> tuple[TrainState, Metrics]:
        del batch
        batch_key, update_key = jax.random.split(key)
        return agent.update(state, shard_batch(data.draw(resident, batch_key, config.batch_size)), update_key)

    if judge is None:
        return Program(init, step, resident=data.resident)
    length = config.dataset.context_length
    context = Context(length, config.agent[TARGET]) if length else None
    return Program(init, step, judge(on_raw_observations(agent, box), context), data.resident)


def offline_experiment(config: ConfigDict, dataset: Dataset, episodes: Episodes | None = None) -> Experiment:
    """Offline RL on a data set, judged in its task.

    Args:
      episodes: what the agent is shown in place of the set's own.
    """
    task = task_of(config, dataset)

    def check() -> list[Any]:
        with task.open(1) as pool:
            check_task(pool, dataset)
            return [np.asarray(side).tolist() for side in action_box(pool)]

    box = ActionBox(*(np.array(side, np.float32) for side in from_main_process(check)))
    data = agent_data(config, in_box(dataset.episodes if episodes is None else episodes, box))
    judge = judge_in(task, config)
    return Experiment(
        lambda config: offline_program(config, data, judge, box), dataset.inputs | {"env_id": task.label},
        headline_of(task.label, config),
    )
