"""Experts by name, and their episodes."""

from pathlib import Path
from typing import NamedTuple, Protocol

import numpy as np
from scipy.special import erf

from rl_jax.core.config import unknown
from rl_jax.data.episodes import Episodes, concatenate_episodes
from rl_jax.data.locomotion.collect import to_episodes
from rl_jax.data.locomotion.policies import POLICY_DIR, Policy, load_policy
from rl_jax.data.locomotion.rollout import BLOCK_EPISODES, make_environments, returns_of, roll_out_block

EXPERT_DIR = Path(__file__).parent


class Acting(Protocol):
    """What acts: `Policy`, or `Blended`."""

    def act(self, observations: np.ndarray, noise: np.ndarray | None) -> np.ndarray:
        """Actions [B, A] in [-1, 1] of observations [B, O] and standard normal noise [B, A], or the mode."""


class Blended(NamedTuple):
    """A policy whose actions are (1 - share) of its mode and `share` of an action that is uniform in the box."""

    policy: Policy
    share: float

    def act(self, observations: np.ndarray, noise: np.ndarray | None) -> np.ndarray:
        """As `Acting.act`; the mode is the policy's."""
        mode = self.policy.act(observations, None)
        if noise is None:
            return mode
        return ((1.0 - self.share) * mode + self.share * erf(noise / np.sqrt(2.0))).astype(np.float32)


def load_expert(name: str) -> Policy:
    """An expert here, a policy of the `locomotion-2` sets, or a file of their layout by its path, such as `a/b.npz`.

    Raises:
      ValueError: there is none of that name; near ones are listed.
      FileNotFoundError: there is no such file.
    """
    if name.endswith(".npz"):
        return load_policy(str(Path(name).expanduser().absolute().with_suffix("")))
    known = {path.stem: path.parent for folder in (EXPERT_DIR, POLICY_DIR) for path in folder.glob("*.npz")}
    if name not in known:
        raise ValueError(f"{unknown('expert', name, known)} (one on disk needs its path, which ends in .npz)")
    return load_policy(str(known[name] / name))


def expert_episodes(
    env_id: str, policy: Acting, num_episodes: int, seed: int, stochastic: bool = True, time_limit: int | None = None
) -> Episodes:
    """The first episodes of a policy from one seed; actions are in [-1, 1], the task's box around 0.

    `time_limit` cuts the task's own short.

    Raises:
      ValueError: the policy reads or does something else than the task has.
    """
    environments, limit = make_environments(env_id)
    observation, action = environments[0].observation_space.shape[0], environments[0].action_space.shape[0]
    try:
        acted = policy.act(np.zeros((1, observation), np.float32), None).shape
    except ValueError as error:
        raise ValueError(f"the expert does not read the {observation} observations of {env_id}: {error}") from error
    if acted != (1, action):
        raise ValueError(f"the expert's actions have {acted[1]} components, and those of {env_id} {action}")
    blocks = [
        to_episodes(roll_out_block(env_id, policy, (seed,), block, BLOCK_EPISODES * limit, stochastic, time_limit))
        for block in range(-(-num_episodes // BLOCK_EPISODES))
    ]
    return concatenate_episodes(blocks).select(range(num_episodes))


def mode_returns(env_id: str, policy: Acting, num_blocks: int, seed: int) -> np.ndarray:
    """Undiscounted returns of the policy's mode in so many blocks of BLOCK_EPISODES episodes, [E] float64."""
    _, limit = make_environments(env_id)
    blocks = (roll_out_block(env_id, policy, (seed,), i, BLOCK_EPISODES * limit, False) for i in range(num_blocks))
    return np.concatenate([returns_of(block) for block in blocks])
