"""Online RL: agents that learn from scratch, in simulators on the host and in environments on the devices."""

from collections.abc import Callable
from typing import Any

import jax
import numpy as np
from ml_collections import ConfigDict

from rl_jax.agents.agent import Agent
from rl_jax.agents.online import OnlineAgent
from rl_jax.control.agents import FROM_SCRATCH, make_agent
from rl_jax.control.tasks import ActionBox, Task, action_box, headline_of, judge_in
from rl_jax.core.config import unknown
from rl_jax.core.experiment import Experiment
from rl_jax.core.mesh import shard_batch
from rl_jax.core.program import Evaluate, Key, Metrics, Program, PyTree, TrainState, nothing_to_evaluate
from rl_jax.data.replay import ReplayBuffer
from rl_jax.data.transitions import Transitions
from rl_jax.envs.collector import Act, Collector
from rl_jax.envs.gym_pool import EnvPool


def on_device_program(
    make: Callable[[PyTree], OnlineAgent], resident: PyTree = (), evaluate: Evaluate = nothing_to_evaluate
) -> Program:
    """The Program of an agent in a pure-JAX environment.

    Args:
      make: resident -> agent in its environment, which may be made of tables that are resident; computes nothing.
    """

    def step(state: TrainState, resident: PyTree, batch: None, key: Key) -> tuple[TrainState, Metrics]:
        del batch
        return make(resident).step(state, key)

    return Program(lambda key, resident: make(resident).init(key), step, evaluate, resident)


def collector(config: ConfigDict, pool: EnvPool, *, discount: float | None = None, for_mixing: bool) -> Collector:
    """The collector of `config.collect` and `config.replay` in the environments of `pool`, one a run.

    Args:
      discount: of the Monte-Carlo returns of the steps; None for none.
      for_mixing: whether the step mixes its batch with prior data.
    """
    sizes = *pool.observation_space.shape, *pool.action_space.shape
    replay = ReplayBuffer(config.num_seeds, config.replay.capacity, *sizes, discount=discount)
    return Collector(
        pool, replay, seed=config.seed, batch_size=config.batch_size, env_steps=config.collect.env_steps,
        random_steps=config.collect.random_steps, for_mixing=for_mixing,
    )


def from_scratch_experiment(config: ConfigDict) -> Experiment:
    """An untrained agent in the task `config.env_id`; agents act in [-1, 1], whatever the task's bounds are.

    Raises:
      ValueError: the agent does not explore, or the task's actions have no bounds.
    """
    if config.agent.name not in FROM_SCRATCH:
        raise ValueError(unknown("agent that learns from scratch", config.agent.name, FROM_SCRATCH))
    pool = EnvPool(config.env_id, config.num_seeds, savable=True)
    actions = pool.action_space
    if not np.isfinite([actions.low, actions.high]).all():
        raise ValueError(f"actions of {pool.env_id} have no bounds: {actions}")
    box = action_box(pool)
    shapes = pool.observation_space.shape, actions.shape, ()
    observation, action, one = (np.zeros((1, *shape), np.float32) for shape in shapes)
    example = Transitions(observation, action, one, one, observation)
    own_steps, judge = collector(config, pool, for_mixing=False), judge_in(Task(config.env_id), config)

    def program(config: ConfigDict) -> Program:
        agent = make_agent(config, *actions.shape)

        def step(state: TrainState, resident: PyTree, batch: Transitions, key: Key) -> tuple[TrainState, Metrics]:
            del resident
            batch = shard_batch(batch.replace(actions=box.to_agent(batch.actions)))
            return agent.update(state, batch, key)

        act = on_task_actions(agent, box)
        return Program(
            lambda key, resident: agent.init(key, example), step, judge(act, None), feed=own_steps.feed(act)
        )

    return Experiment(program, {"env_id": config.env_id}, headline_of(config.env_id, config))


def on_task_actions(agent: Agent, box: ActionBox) -> Act:
    """The policy of `(state.params, state.extra)` of one run, with the task's actions."""

    def act(policy: Any, observations: jax.Array, key: Key, temperature: jax.Array | float) -> jax.Array:
        return box.to_task(agent.act(policy[0], observations, key, temperature))

    return act
