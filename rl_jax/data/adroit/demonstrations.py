"""The human demonstrations: recorded actions, replayed in the task from the recorded places of the door.

The observations that were recorded with the actions are not used: they come from another model of the same hand and
differ by up to half a radian at the start. D4RL's authors replayed the same actions (Fu et al. 2020, arXiv 2004.07219).
"""

from collections.abc import Iterator

import numpy as np

from rl_jax.core.arrays import read_arrays
from rl_jax.core.extras import require
from rl_jax.data.adroit.sets import FOLDER, IMPORTED_ID
from rl_jax.data.episodes import Episodes

DEMONSTRATIONS = FOLDER / "door_human.npz"


def replay_demonstrations(num_steps: int) -> Iterator[Episodes]:
    """The first `num_steps` steps, one demonstration after the other; its end is a time-out, also past the time limit.

    Raises:
      MissingExtraError: the simulator is not installed.
      ValueError: there are fewer steps.
    """
    arrays = read_arrays(DEMONSTRATIONS)  # actions [N, 28] in [-1, 1], lengths [E], door_positions [E, 3]
    if not 1 <= num_steps <= len(arrays["actions"]):
        raise ValueError(f"adroit/door-human: num_steps is {num_steps}, expected 1 to {len(arrays['actions'])}")
    environment = require("gymnasium", "adroit").make(IMPORTED_ID, disable_env_checker=True).unwrapped
    parts = np.split(arrays["actions"], np.cumsum(arrays["lengths"])[:-1])
    for actions, position in zip(parts, arrays["door_positions"], strict=True):
        episode = replay(environment, position, actions[:num_steps])
        yield episode
        num_steps -= len(episode)
        if not num_steps:
            break
    environment.close()


def replay(environment, door_position: np.ndarray, actions: np.ndarray) -> Episodes:
    """One episode of `actions` [T, 28] with the door at `door_position`, [3] m, and the hand at rest."""
    start = {"qpos": np.zeros(30), "qvel": np.zeros(30), "door_body_pos": door_position}
    first, _ = environment.reset(seed=0, options={"initial_state_dict": start})
    observations, rewards = [first], []
    for action in actions:
        observation, reward, *_ = environment.step(action)
        observations.append(observation)
        rewards.append(reward)
    observations = np.asarray(observations, np.float32)
    return Episodes(
        observations=observations[:-1], actions=actions, rewards=np.asarray(rewards, np.float32),
        terminated=np.zeros(len(actions), bool), truncated=np.arange(1, len(actions) + 1) == len(actions),
        next_observations=observations[1:], starts=np.zeros(1, np.int64),
    )
