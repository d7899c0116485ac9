"""Rolls a block of episodes out in lockstep: many environments, one batched forward pass of the policy a step.

Roll-out workers import this module, so it needs numpy, Gymnasium and MuJoCo alone.
"""

import functools
import warnings
from collections.abc import Mapping

import numpy as np

from rl_jax.core.extras import require
from rl_jax.data.locomotion.policies import Policy

BLOCK_EPISODES = 16  # episodes of one job; fixed, because a matrix product may round differently at another batch size


@functools.cache
def make_environments(env_id: str) -> tuple[list, int]:
    """BLOCK_EPISODES bare environments (no wrappers: they cost half the time) and the task's time limit in steps."""
    gymnasium = require("gymnasium", "mujoco")
    require("mujoco", "mujoco")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # the v4 tasks are meant: D4RL's scores are theirs
        wrapped = [gymnasium.make(env_id, disable_env_checker=True) for _ in range(BLOCK_EPISODES)]
    return [environment.unwrapped for environment in wrapped], wrapped[0].spec.max_episode_steps


def roll_out_block(
    env_id: str, policy: Policy, seed_sequence: tuple[int, ...], block: int, max_steps: int, stochastic: bool = True,
    time_limit: int | None = None,
) -> dict[str, np.ndarray]:
    """Episodes block * BLOCK_EPISODES .. of one policy; each is a function of (seed_sequence, its index) alone.

    Only the first `max_steps` steps are wanted: an episode stops as soon as it and those before it hold that many.
    `time_limit` cuts the task's own short.

    Returns:
      Flat arrays over all steps: observations [N, O], actions [N, A], rewards [N], next_observations [N, O] (float32),
      terminated [N] (bool), and lengths [E] (int64) of the E <= BLOCK_EPISODES episodes that the first `max_steps`
      steps touch.
    """
    environments, limit = make_environments(env_id)
    limit = min(limit, time_limit or limit)
    observation_dim, action_dim = environments[0].observation_space.shape[0], environments[0].action_space.shape[0]
    bound = environments[0].action_space.high  # of a box around 0; policies act in [-1, 1]
    observations = np.zeros((BLOCK_EPISODES, limit + 1, observation_dim), np.float32)
    actions = np.zeros((BLOCK_EPISODES, limit, action_dim), np.float32)
    rewards = np.zeros((BLOCK_EPISODES, limit), np.float32)
    noise = np.zeros((BLOCK_EPISODES, limit, action_dim), np.float32)
    lengths = np.zeros(BLOCK_EPISODES, np.int64)  # so far
    terminated = np.zeros(BLOCK_EPISODES, bool)
    for i, environment in enumerate(environments):
        seeds = np.random.SeedSequence((*seed_sequence, block * BLOCK_EPISODES + i))
        noise[i] = np.random.default_rng(seeds).standard_normal((limit, action_dim), np.float32)
        observations[i, 0] = environment.reset(seed=int(seeds.generate_state(1)[0]))[0]
    for step in range(limit):
        active = np.flatnonzero(~terminated & (np.cumsum(lengths) < max_steps))
        if not len(active):
            break
        actions[:, step] = policy.act(observations[:, step], noise[:, step] if stochastic else None)
        for i in active:
            successor, rewards[i, step], terminated[i], _, _ = environments[i].step(bound * actions[i, step])
            observations[i, step + 1] = successor
        lengths[active] = step + 1
    touched = np.cumsum(lengths) - lengths < max_steps
    valid = (np.arange(limit) < lengths[:, None]) & touched[:, None]
    ends = np.zeros_like(valid)
    ends[np.arange(BLOCK_EPISODES), lengths - 1] = terminated
    return {
        "observations": observations[:, :-1][valid],
        "actions": actions[valid],
        "rewards": rewards[valid],
        "next_observations": observations[:, 1:][valid],
        "terminated": ends[valid],
        "lengths": lengths[touched],
    }


def returns_of(steps: Mapping[str, np.ndarray]) -> np.ndarray:
    """Undiscounted returns, [E] float64, of the episodes of `roll_out_block`."""
    lengths = steps["lengths"]
    return np.add.reduceat(steps["rewards"].astype(np.float64), np.cumsum(lengths) - lengths)
