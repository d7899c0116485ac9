"""Judging policies by episodes in the task that they are made for."""

import functools
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import numpy as np
from absl import logging
from ml_collections import ConfigDict

from rl_jax.core.experiment import Metric
from rl_jax.core.mesh import gather
from rl_jax.core.program import Evaluate, Evaluation, Key, PyTree, TrainState
from rl_jax.core.runtime import from_main_process
from rl_jax.data.checks import check_actions
from rl_jax.data.load import Dataset
from rl_jax.data.scores import ReferenceReturns, has_references, reference_returns, score_between
from rl_jax.envs.gym_pool import EnvPool, find_spec
from rl_jax.evaluation.context import Context
from rl_jax.evaluation.rollouts import Act, PolicyEvaluator

# (the policy of `(state.params, state.extra)`, what it is shown if it has a memory) -> `Program.evaluate`.
Judge = Callable[[Act, Context | None], Evaluate]

SCORE = Metric("eval/normalized_score", "normalised score")
RETURN = Metric("eval/return", "return")


class Task(NamedTuple):
    """A Gymnasium id, with keyword arguments of `gymnasium.make` where the task is not as it is registered."""

    env_id: str
    env_kwargs: Mapping[str, Any] = {}

    @property
    def label(self) -> str:
        """The id, with what differs: `Hopper-v5(max_episode_steps=15)`, which has no published reference returns."""
        differs = ", ".join(f"{name}={value!r}" for name, value in self.env_kwargs.items())
        return f"{self.env_id}({differs})" if differs else self.env_id

    def open(self, num_envs: int, **kwargs: Any) -> EnvPool:
        """A pool of its environments."""
        return EnvPool(self.env_id, num_envs, env_kwargs=self.env_kwargs, **kwargs)


class ActionBox(NamedTuple):
    """The affine map between [-1, 1], where agents act, and the box of a task's actions.

    Attributes:
      centre, half_width: [A] float32; two numbers where the box is [-1, 1] and nothing is mapped.
    """

    centre: np.ndarray | float = 0.0
    half_width: np.ndarray | float = 1.0

    def to_agent(self, actions: Any) -> Any:
        """Actions of the task [..., A] -> in [-1, 1]."""
        return (actions - self.centre) / self.half_width if np.ndim(self.half_width) else actions

    def to_task(self, actions: Any) -> Any:
        """Actions in [-1, 1], [..., A] -> of the task."""
        return self.centre + self.half_width * actions if np.ndim(self.half_width) else actions


def action_box(pool: EnvPool) -> ActionBox:
    """The box of a task; that of [-1, 1] also for one whose actions have no bounds: they are left as they are."""
    low, high = (np.asarray(bound, np.float32) for bound in (pool.action_space.low, pool.action_space.high))
    if not np.isfinite([low, high]).all() or ((low == -1) & (high == 1)).all():
        return ActionBox()
    return ActionBox((low + high) / 2, (high - low) / 2)


def task_of(config: ConfigDict, dataset: Dataset) -> Task:
    """The task of a data set: the one that `config.dataset.env_id` names, and otherwise the one that the data record.

    A recorded specification holds also where the configuration repeats its id, with the module that registers it: only
    a person may say what is imported.

    Raises:
      ValueError: neither names the task, the data name a module to import, there is no such task, or the data were
        recorded in wrappers, which are not made again.
    """
    given, recorded = config.dataset.env_id, dataset.env_id
    if not given and not recorded:
        raise ValueError(f"{dataset.name} does not say its task: give --config.dataset.env_id, e.g. Hopper-v4")
    if not given and ":" in recorded:
        raise ValueError(
            f"{dataset.name} has the task {recorded!r}, which names a module to import: where that is what you want, "
            f"give --config.dataset.env_id={recorded}"
        )
    if given and given.rpartition(":")[2] != recorded.rpartition(":")[2] or not dataset.env_spec:
        return Task(given or recorded)
    return Task(given or recorded, from_main_process(lambda: _recorded(given or recorded, not given, dataset)))


def _recorded(env_id: str, strict: bool, dataset: Dataset) -> dict[str, Any]:
    """Keyword arguments of `gymnasium.make` by which the recorded task differs from the registered one."""
    spec, registered = dataset.env_spec, find_spec(env_id)
    wrappers = [one.get("name") for one in spec.get("additional_wrappers", ())]
    if wrappers != [one.name for one in registered.additional_wrappers]:
        message = f"{dataset.name} was recorded in {env_id} with the wrappers {wrappers}, which are not made again"
        if strict:
            raise ValueError(f"{message}: register the wrapped task, and name it with --config.dataset.env_id")
        logging.warning("%s", message)
    missing = object()
    kwargs = {
        name: value for name, value in spec.get("kwargs", {}).items()
        if name != "render_mode" and registered.kwargs.get(name, missing) != value
    }
    limit = spec.get("max_episode_steps")
    return kwargs if limit in (None, registered.max_episode_steps) else kwargs | {"max_episode_steps": limit}


def references_of(label: str, config: ConfigDict) -> ReferenceReturns | None:
    """What returns in the task of this label are normalised by: `config.dataset.reference_returns`, or what is
    published of the task; None where there is neither."""
    if "dataset" in config and config.dataset.get("reference_returns", ()):
        return ReferenceReturns(*config.dataset.reference_returns)
    return reference_returns(label) if has_references(label) else None


def headline_of(label: str, config: ConfigDict) -> Metric:
    """The normalised score where the task of this label has reference returns, and otherwise the return."""
    return RETURN if references_of(label, config) is None else SCORE


def check_task(pool: EnvPool, dataset: Dataset) -> None:
    """Warns of the first action of the data outside the task's box, which the task would clip.

    Raises:
      ValueError: the task's observations or actions have other shapes than the data's.
    """
    observations, actions = dataset.episodes.observations, dataset.episodes.actions
    task, data = (pool.observation_space.shape, pool.action_space.shape), (observations.shape[1:], actions.shape[1:])
    if task != data:
        raise ValueError(
            f"{pool.env_id} has observations {task[0]} and actions {task[1]}, and the data have {data[0]} and "
            f"{data[1]}: name the task that the data come from with --config.dataset.env_id"
        )
    try:
        check_actions(dataset.name, actions, pool.action_space.low, pool.action_space.high)
    except ValueError as error:
        logging.warning("%s, the box of %s", error, pool.env_id)


def judge_in(task: Task, config: ConfigDict) -> Judge:
    """Judges `config.num_seeds` runs by `config.eval_episodes` episodes each at the policy's mode.

    The outcomes are "return", "length" and, where the task has one, "normalized_score". The simulators live on the main
    process alone; they are opened at the first evaluation and shared by all policies that are judged.
    """
    episodes, references = config.eval_episodes, references_of(task.label, config)
    pool = functools.cache(lambda: task.open(config.num_seeds * episodes))

    def judge(act: Act, context: Context | None) -> Evaluate:
        evaluator = functools.cache(lambda: PolicyEvaluator(pool(), act, episodes, context))

        def evaluate(state: TrainState, resident: PyTree, key: Key) -> Evaluation:
            del resident
            policy, seed = gather((state.params, state.extra)), int(jax.random.bits(key))

            def roll_out() -> dict[str, list[list[float]]]:
                results = evaluator()(policy, seed)
                return {"return": results.returns.tolist(), "length": results.lengths.tolist()}

            outcomes = {name: np.array(values) for name, values in from_main_process(roll_out).items()}
            if references is not None:
                outcomes["normalized_score"] = score_between(references, outcomes["return"])
            return Evaluation(outcomes=outcomes)

        return evaluate

    return judge
