"""The evaluation that the binaries of this folder share: roll-outs in the task, raw returns in a file, scores."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import numpy as np
from ml_collections import ConfigDict

from rl_jax.core.mesh import gather
from rl_jax.core.program import Key, TrainState
from rl_jax.core.runtime import from_main_process
from rl_jax.core.sweep import num_runs
from rl_jax.evaluation.context import Context
from rl_jax.evaluation.records import record_episodes
from rl_jax.evaluation.rollouts import Act, PolicyEvaluator
from rl_jax.evaluation.scores import normalized_score, reference_returns

SCORE = "eval/normalized_score"


def has_score(env_id: str) -> bool:
    """Whether a task has published reference returns, and so normalised scores."""
    try:
        reference_returns(env_id)
    except ValueError:
        return False
    return True


def make_evaluate(
    env_id: str, act: Act, config: ConfigDict, workdir: Path, observation: tuple[int, ...], action: tuple[int, ...],
    context: Context | None = None,
) -> Callable[[TrainState, Key], dict[str, Any]]:
    """`Program.evaluate`: `config.eval_episodes` episodes a run at the policy's mode.

    Raw returns go to workdir/episodes.npz. The metrics, of each run, are eval/return, eval/length and, where the task
    has one, the normalised score.

    Args:
      act: of `(state.params, state.extra)`.
      observation, action: the shapes of one, which the task must have.
      context: what `act` is shown if it has a memory.
    """
    evaluators: list[PolicyEvaluator] = []  # on the main process alone

    def open_evaluator() -> None:
        evaluators.append(PolicyEvaluator(env_id, act, num_runs(config), config.eval_episodes, context=context))
        evaluators[0].check_shapes(observation, action)

    def roll_out(params: Any, seed: int, step: int) -> dict[str, list[float]]:
        results = evaluators[0](params, seed)
        record_episodes(workdir / "episodes.npz", step, results)
        metrics = {"eval/return": results.returns, "eval/length": results.lengths}
        if has_score(env_id):
            metrics[SCORE] = normalized_score(env_id, results.returns)
        return {name: values.mean(1).tolist() for name, values in metrics.items()}

    def evaluate(state: TrainState, key: Key) -> dict[str, Any]:
        params = gather((state.params, state.extra))
        seed, step_done = int(jax.random.bits(key)), int(state.step)
        return {name: np.asarray(x) for name, x in from_main_process(lambda: roll_out(params, seed, step_done)).items()}

    from_main_process(open_evaluator)
    return evaluate
