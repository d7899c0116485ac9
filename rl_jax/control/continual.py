"""A model of many tasks that learns new ones in sequence: data of all tasks resident, judged in all simulators.

One program for L2M and what it is held against: `config.stage` pre-trains on all of `config.tasks.old`, or tunes what
`config.init_from` gives on one of `config.tasks.new` after the other, `config.tasks.steps` updates each. Nobody says at
evaluation which task it is.
"""

import functools
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from ml_collections import ConfigDict

from rl_jax.agents.l2m import TaskBatch, l2m
from rl_jax.core.config import unknown
from rl_jax.core.experiment import Experiment, Metric
from rl_jax.core.fused import evaluated
from rl_jax.core.mesh import gather, shard_batch
from rl_jax.core.program import Evaluation, Key, Metrics, Program, PyTree, TrainState
from rl_jax.core.runtime import from_main_process
from rl_jax.data.episodes import Episodes, concatenate_episodes
from rl_jax.data.sequences import Sequences, Trajectories, sequences_at, to_trajectories
from rl_jax.envs.multi_domain import ACTION_DIM, PLACES, STATE_DIM, Task, load_task, open_task, padded
from rl_jax.evaluation.context import Context, LastSteps
from rl_jax.evaluation.rollouts import episode_seeds
from rl_jax.networks.modulation import purity
from rl_jax.networks.multi_domain_transformer import UNUSED

OLD = Metric("eval/old_success", "success on pre-training tasks")
NEW = Metric("eval/new_success", "success on new tasks")
LEAST = 0.05  # of a number's standard deviation: smaller ones do not blow up what hardly changes
MOST = 5.0  # standard deviations that a state is shown of
JUDGED = 256  # windows a task by which selections are judged


class TaskData(NamedTuple):
    """Data of T tasks, the old ones first; host arrays.

    Attributes:
      trajectories: of all tasks, end to end, standardised.
      first, count: [T] uint32, where a task's steps begin and how many there are.
      target: [T] the return that is asked for: the 0.9 quantile of the data's.
      mean, std: [STATE_DIM] by which states are standardised.
      success: [T] of the data's episodes without noise.
    """

    trajectories: Trajectories
    first: np.ndarray
    count: np.ndarray
    target: np.ndarray
    mean: np.ndarray
    std: np.ndarray
    success: np.ndarray

    def standardise(self, states: np.ndarray) -> np.ndarray:
        """States [..., STATE_DIM] of the layout; what a domain does not have, exactly 0, stays 0."""
        return np.where(states == 0.0, 0.0, np.clip((states - self.mean) / self.std, -MOST, MOST)).astype(np.float32)


def statistics(old: Sequence[Episodes], new: Sequence[Episodes], domains: Sequence[str]) -> tuple[np.ndarray, ...]:
    """Mean and deviation of each number over the pre-training tasks of its domain, or over the new ones if none is."""
    mean, std = np.zeros(STATE_DIM, np.float32), np.ones(STATE_DIM, np.float32)
    for domain, place in PLACES.items():
        for part, names in ((old, domains[: len(old)]), (new, domains[len(old):])):
            found = [own.observations[:, place] for own, name in zip(part, names, strict=True) if name == domain]
            if found:
                states = np.concatenate(found)
                mean[place], std[place] = states.mean(0), np.maximum(states.std(0), LEAST)
                break
    return mean, std


def load_tasks(config: ConfigDict) -> TaskData:
    """The data of `config.tasks`, made where they are not cached.

    Raises:
      ValueError: there is no such task, or none of a kind.
    """
    names = [*config.tasks.old, *config.tasks.new]
    if not config.tasks.old or not config.tasks.new:
        raise ValueError("config.tasks: name at least one task to pre-train on, old, and one to tune on, new")
    folder, own = Path(config.dataset.data_dir).expanduser(), config.dataset
    made = [load_task(name, own.episodes, own.steps, own.seed, folder) for name in names]
    episodes = [one for one, _ in made]
    number = len(config.tasks.old)
    mean, std = statistics(episodes[:number], episodes[number:], [info["domain"] for _, info in made])
    count = np.array([len(one) for one in episodes], np.uint32)
    first = np.concatenate([[0], np.cumsum(count)[:-1]]).astype(np.uint32)
    target = np.array([np.quantile(one.returns, 0.9) for one in episodes])
    data = TaskData(
        to_trajectories(concatenate_episodes(episodes)), first, count, target, mean, std,
        np.array([info["noiseless"] for _, info in made]),
    )
    shown = data.trajectories.replace(observations=data.standardise(data.trajectories.observations))
    return data._replace(trajectories=shown)


def continual_experiment(config: ConfigDict) -> Experiment:
    """Pre-training, or tuning on a sequence of tasks, of `config.agent`.

    Outcomes [S, E]: "success" of all tasks, an old one's episodes first, and of each kind "old_success" and
    "new_success"; "purity", I(task; selected) / H(task) of the new tasks, and "kept", the share of the old tasks'
    windows that nothing modulates, by JUDGED windows of each task's data; "trained", the numbers that one window
    trains, in percent of the model's.

    Raises:
      ValueError: there is no such stage, task or setting.
    """
    if config.stage not in ("pretrain", "tune"):
        raise ValueError(unknown("stage in config.stage", config.stage, ("pretrain", "tune")))
    data, number = load_tasks(config), len(config.tasks.old)
    pretrains = config.stage == "pretrain"
    tasks = functools.cache(lambda: [open_task(name) for name in (*config.tasks.old, *config.tasks.new)])
    old_steps = int(data.count[:number].sum())

    def draw(resident: Trajectories, key: Key, first: Any, count: Any, size: int) -> Sequences:
        rows = first + jax.random.bits(key, (size,), np.uint32) % count
        return sequences_at(resident, rows, config.dataset.context_length)

    def program(config: ConfigDict) -> Program:
        agent = l2m(config.agent, ACTION_DIM, pretrains)

        def init(key: Key, resident: Trajectories) -> TrainState:
            return agent.init(key, draw(resident, key, np.uint32(0), np.uint32(old_steps), 1))

        def step(state: TrainState, resident: Trajectories, batch: None, key: Key) -> tuple[TrainState, Metrics]:
            draw_key, previous_key, update_key = jax.random.split(key, 3)
            if pretrains:  # counts are penalised all the time
                drawn = draw(resident, draw_key, np.uint32(0), np.uint32(old_steps), config.batch_size)
                return agent.update(state, TaskBatch(shard_batch(drawn), np.int32(1), np.bool_(True)), update_key)
            first, count = (jnp.asarray(x) for x in (data.first, data.count))
            task = jnp.minimum(state.step // config.tasks.steps, len(config.tasks.new) - 1)
            begins = state.step == task * config.tasks.steps
            drawn = draw(resident, draw_key, first[number + task], count[number + task], config.batch_size)
            previous = None
            if config.agent.penalty == "ewc":
                begin = jnp.where(task == 0, 0, first[number + task - 1])
                steps = jnp.where(task == 0, old_steps, count[number + task - 1]).astype(jnp.uint32)
                size = config.tasks.fisher_batches * config.batch_size
                previous = draw(resident, previous_key, begin.astype(jnp.uint32), steps, size)
                previous = jax.tree.map(lambda x: x.reshape(-1, config.batch_size, *x.shape[1:]), previous)
            return agent.update(state, TaskBatch(shard_batch(drawn), task, begins, previous), update_key)

        act = jax.jit(lambda params, context: agent.act(params, context, None, 0.0))
        judged = windows(data, config.dataset.context_length)
        choose = evaluated(lambda params: agent.chosen(params, judged))

        def evaluate(state: TrainState, resident: Trajectories, key: Key) -> Evaluation:
            params = jax.device_get(gather(state.params))
            seeds = episode_seeds(int(jax.random.bits(key)), config.eval_episodes)
            runs = len(jax.tree.leaves(params)[0])

            def roll_out() -> list:
                own = [jax.tree.map(lambda x, run=run: x[run], params) for run in range(runs)]
                return [play(act, one, tasks(), data, config, seeds).tolist() for one in own]

            success = np.array(from_main_process(roll_out), np.float64)  # [S, T, E]
            chosen = choose(state.params).reshape(runs, len(data.first), JUDGED)
            trained, size = agent.trained(params)  # both have the runs' axis
            outcomes = {
                "success": success.reshape(runs, -1), "old_success": success[:, :number].reshape(runs, -1),
                "new_success": success[:, number:].reshape(runs, -1),
                "trained": np.full((runs, 1), 100 * trained / size),
            }
            if not pretrains and config.agent.modulator:
                outcomes |= selections(chosen, number, config.agent.pool_size)
            return Evaluation(outcomes=outcomes)

        return Program(init, step, evaluate, data.trajectories)

    inputs = {"old": " ".join(config.tasks.old), "new": " ".join(config.tasks.new)}
    return Experiment(
        program, inputs, OLD if pretrains else NEW,
        lambda result, workdir: {"expert_success": float(data.success[:number].mean() if pretrains else
                                                         data.success[number:].mean())},
    )


def windows(data: TaskData, length: int) -> Sequences:
    """JUDGED windows of each task's data, evenly spread, as they are shown when acting: [T * JUDGED, K, ...]."""
    rows = [start + np.linspace(0, size - 1, JUDGED).astype(np.uint32) for start, size in zip(data.first, data.count)]
    return sequences_at(data.trajectories, np.concatenate(rows), length)


def selections(chosen: np.ndarray, old: int, pool_size: int) -> dict[str, np.ndarray]:
    """"purity" of the new tasks and "kept" of the `old` first ones, [S, 1] each, of members [S, T, N]."""
    found = {"kept": np.mean(chosen[:, :old] >= pool_size, (1, 2))[:, None]}
    new = chosen[:, old:]
    if new.shape[1] > 1:
        counts = np.stack([(new == member).sum(2) for member in range(new.max() + 1)], 2)  # [S, tasks, members]
        found["purity"] = np.array([[purity(own)] for own in counts])
    return found


def play(
    act: Any, params: PyTree, tasks: Sequence[Task], data: TaskData, config: ConfigDict, seeds: np.ndarray
) -> np.ndarray:
    """Whether one run succeeds, [T, E] bool: an episode of every task at a time, all acting together."""
    success, here = np.zeros((len(tasks), len(seeds)), bool), jax.local_devices()[0]
    params = jax.device_put(params, here)
    blank = np.full((len(tasks), ACTION_DIM), UNUSED, np.float32)
    for row, task in zip(blank, tasks, strict=True):
        row[: task.action_dim] = 0.0
    for episode, seed in enumerate(seeds):
        states = np.stack([padded(task.domain, task.reset(int(seed))) for task in tasks])
        context = Context(config.dataset.context_length, data.target)
        shown = LastSteps(context, data.standardise(states)[None], ACTION_DIM)
        rewards, over = np.zeros(len(tasks)), np.zeros(len(tasks), bool)
        for _ in range(config.dataset.steps):
            shown.inputs.actions[0, :, -1] = blank
            actions = jax.device_get(act(params, jax.device_put(jax.tree.map(lambda x: x[0], shown.inputs), here)))
            for i, task in enumerate(tasks):
                if over[i]:
                    continue
                state, rewards[i], success[i, episode], ended = task.step(actions[i, : task.action_dim])
                states[i] = padded(task.domain, state)
                over[i] = ended or success[i, episode] and task.domain == "metaworld"
            if over.all():
                break
            shown.step(actions[None], rewards[None], data.standardise(states)[None])
    return success
