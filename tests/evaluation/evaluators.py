"""An evaluator with a pool of its own, of the toy whose observation is (seed, step) and whose reward is 1 + action."""

import contextlib
from collections.abc import Iterator
from typing import Any

from rl_jax.envs.gym_pool import EnvPool
from rl_jax.evaluation.context import Context
from rl_jax.evaluation.rollouts import Act, PolicyEvaluator


@contextlib.contextmanager
def evaluator_of(
    act: Act, num_seeds: int, num_episodes: int, *, context: Context | None = None, **pool: Any
) -> Iterator[PolicyEvaluator]:
    with EnvPool("tests.envs.toys:Toy-v0", num_seeds * num_episodes, **pool) as envs:
        yield PolicyEvaluator(envs, act, num_episodes, context)
