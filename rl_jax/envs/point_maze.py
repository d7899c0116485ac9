"""D4RL's maze2d as Gymnasium environments: importing this module registers maze2d-umaze-v1, maze2d-umaze-dense-v1 and
so on, which `EnvPool` knows by themselves.

The physics stand in rl_jax/data/pointmaze/maze.py, because the data sets are made with them.
"""

from typing import Any

import gymnasium
import numpy as np

from rl_jax.data.pointmaze.maze import MAZES, SECONDS, Ball, rewards
from rl_jax.data.pointmaze.sets import SETS


class PointMaze(gymnasium.Env):
    """A ball is rewarded for where a step brings it; an episode ends by its time limit alone.

    Observations are (row, column, velocities), float64 [4], without the goal, which never changes.
    """

    metadata = {"render_modes": []}
    observation_space = gymnasium.spaces.Box(-np.inf, np.inf, (4,), np.float64)
    action_space = gymnasium.spaces.Box(-1.0, 1.0, (2,), np.float32)
    dt = SECONDS

    def __init__(self, maze: str, dense: bool):
        self._ball, self._goal, self._dense = Ball(MAZES[maze]), MAZES[maze].goal, dense
        self.model, self.data = self._ball.model, self._ball.data

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[np.ndarray, dict]:
        super().reset(seed=seed)
        return self._ball.reset(self.np_random), {}

    def step(self, action: np.ndarray) -> tuple[np.ndarray, float, bool, bool, dict]:
        state = self._ball.step(action)
        return state, float(rewards(state[:2], self._goal, self._dense)), False, False, {}

    def save_state(self) -> np.ndarray:
        return self._ball.save()

    def restore_state(self, state: np.ndarray) -> None:
        self._ball.restore(state)


for _spec in SETS.values():
    gymnasium.register(
        _spec.env_id, entry_point=f"{__name__}:PointMaze", max_episode_steps=MAZES[_spec.maze].limit,
        kwargs={"maze": _spec.maze, "dense": _spec.dense},
    )
