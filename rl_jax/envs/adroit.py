"""Adroit's door: a hand on an arm, 28 actuated joints, turns a latch and pulls the door open.

Rajeswaran et al. 2018, "Learning Complex Dexterous Manipulation with Deep Reinforcement Learning and Demonstrations",
arXiv 1709.10087 (DAPG). Model and observations are gymnasium-robotics' AdroitHandDoor; the reward is that of the
authors, to which D4RL's reference returns belong. One sign differs: gymnasium-robotics up to 1.4.2 pays for the
distance between palm and handle where the authors charge for it.

Importing this module registers door-v1, which `EnvPool` knows by itself; Gymnasium makes `rl_jax.envs.adroit:door-v1`.
"""

import contextlib
import io
from collections.abc import Mapping
from typing import Any

import numpy as np

from rl_jax.core.extras import require
from rl_jax.data.adroit.sets import ENV_ID, TIME_LIMIT

gymnasium = require("gymnasium", "adroit")

FULLY_OPEN = 1.57  # rad
# Of an observation [39]: joints of arm and hand 0..26, latch 27; both angles in rad, positions in m.
HINGE, PALM, HANDLE = 28, slice(29, 32), slice(32, 35)


def door_reward(observation: np.ndarray, velocities: np.ndarray) -> float:
    """The authors' dense reward of a step.

    Args:
      observation: after the step, [39].
      velocities: of all joints after the step, [30], rad/s and m/s.
    """
    angle = observation[HINGE]
    reward = -0.1 * np.linalg.norm(observation[PALM] - observation[HANDLE])
    reward -= 0.1 * (angle - FULLY_OPEN) ** 2
    reward -= 1e-5 * np.sum(np.square(velocities))
    return float(reward + 2.0 * (angle > 0.2) + 8.0 * (angle > 1.0) + 10.0 * (angle > 1.35))


class AdroitDoor(gymnasium.Env):
    """The door at a random place, the hand at rest in front of it; nothing but the time limit ends an episode.

    Observations [39] float64, actions [28] in [-1, 1], mapped to the range of each actuator. `reset` takes
    `options={"initial_state_dict": {"qpos": [30], "qvel": [30], "door_body_pos": [3]}}`, float64.

    Raises:
      MissingExtraError: gymnasium-robotics is not installed.
    """

    metadata = {"render_modes": ["human", "rgb_array", "depth_array"], "render_fps": 100}

    def __init__(self, render_mode: str | None = None):
        with contextlib.redirect_stderr(io.StringIO()):  # at import it prints a notice about its own reward
            require("gymnasium_robotics", "adroit")
        from gymnasium_robotics.envs.adroit_hand.adroit_door import AdroitHandDoorEnv

        self._door = AdroitHandDoorEnv(render_mode=render_mode)
        self.render_mode = render_mode
        self.observation_space, self.action_space = self._door.observation_space, self._door.action_space

    def reset(self, *, seed: int | None = None, options: Mapping[str, Any] | None = None) -> tuple[np.ndarray, dict]:
        return self._door.reset(seed=seed, options=options)

    def step(self, action: np.ndarray) -> tuple[np.ndarray, float, bool, bool, dict]:
        observation, _, terminated, truncated, info = self._door.step(action)
        return observation, door_reward(observation, self._door.data.qvel), terminated, truncated, info

    def render(self) -> Any:
        return self._door.render()

    def close(self) -> None:
        self._door.close()

    def save_state(self) -> np.ndarray:
        """Where the door stands and all that the simulator integrates: [P] float64."""
        mujoco, model = require("mujoco", "adroit"), self._door.model
        state = np.empty(mujoco.mj_stateSize(model, mujoco.mjtState.mjSTATE_INTEGRATION))
        mujoco.mj_getState(model, self._door.data, state, mujoco.mjtState.mjSTATE_INTEGRATION)
        return np.concatenate([model.body_pos[self._door.door_body_id], state])

    def restore_state(self, state: np.ndarray) -> None:
        """Puts an environment that was reset where `save_state` [P] says."""
        mujoco, model = require("mujoco", "adroit"), self._door.model
        model.body_pos[self._door.door_body_id] = state[:3]
        mujoco.mj_setState(model, self._door.data, state[3:], mujoco.mjtState.mjSTATE_INTEGRATION)


gymnasium.register(ENV_ID, entry_point=f"{__name__}:AdroitDoor", max_episode_steps=TIME_LIMIT)
