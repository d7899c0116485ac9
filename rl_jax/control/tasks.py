"""Judging policies by episodes in the task that they are made for."""

import functools
from collections.abc import Callable

import jax
import numpy as np
from ml_collections import ConfigDict

from rl_jax.core.experiment import Metric
from rl_jax.core.mesh import gather
from rl_jax.core.program import Evaluation, Key, PyTree, TrainState
from rl_jax.core.runtime import from_main_process
from rl_jax.envs.gym_pool import EnvPool
from rl_jax.evaluation.context import Context
from rl_jax.evaluation.rollouts import Act, PolicyEvaluator
from rl_jax.evaluation.scores import has_references, normalized_score

Evaluate = Callable[[TrainState, PyTree, Key], Evaluation]
# (the policy of `(state.params, state.extra)`, what it is shown if it has a memory) -> `Program.evaluate`.
Judge = Callable[[Act, Context | None], Evaluate]

SCORE = Metric("eval/normalized_score", "normalised score")
RETURN = Metric("eval/return", "return")


def headline_of(env_id: str) -> Metric:
    """The normalised score where the task has published reference returns, and otherwise the return."""
    return SCORE if has_references(env_id) else RETURN


def check_task(pool: EnvPool, observation: tuple[int, ...], action: tuple[int, ...]) -> None:
    """Raises ValueError where the task's observations or actions have other shapes than these, the data's."""
    task = pool.observation_space.shape, pool.action_space.shape
    if task != (observation, action):
        raise ValueError(
            f"{pool.env_id} has observations {task[0]} and actions {task[1]}, and the data have {observation} and "
            f"{action}: name the task that the data come from with --config.dataset.env_id"
        )


def judge_in(env_id: str, config: ConfigDict) -> Judge:
    """Judges `config.num_seeds` runs by `config.eval_episodes` episodes each at the policy's mode.

    The outcomes are "return", "length" and, where the task has one, "normalized_score". The simulators live on the main
    process alone; they are opened at the first evaluation and shared by all policies that are judged.
    """
    episodes = config.eval_episodes
    pool = functools.cache(lambda: EnvPool(env_id, config.num_seeds * episodes))

    def judge(act: Act, context: Context | None) -> Evaluate:
        evaluator = functools.cache(lambda: PolicyEvaluator(pool(), act, episodes, context))

        def evaluate(state: TrainState, resident: PyTree, key: Key) -> Evaluation:
            del resident
            policy, seed = gather((state.params, state.extra)), int(jax.random.bits(key))

            def roll_out() -> dict[str, list[list[float]]]:
                results = evaluator()(policy, seed)
                return {"return": results.returns.tolist(), "length": results.lengths.tolist()}

            outcomes = {name: np.array(values) for name, values in from_main_process(roll_out).items()}
            if has_references(env_id):
                outcomes["normalized_score"] = normalized_score(env_id, outcomes["return"])
            return Evaluation(outcomes=outcomes)

        return evaluate

    return judge
