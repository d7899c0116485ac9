"""Tasks of dm_control's suite (Tassa et al. 2018, arXiv 1801.00690) as Gymnasium environments.

Importing this module registers dm_control-cartpole-swingup-v0, which `EnvPool` knows by itself.
"""

from typing import Any

import numpy as np

from rl_jax.core.extras import require

gymnasium = require("gymnasium", "dm_control")

EXTRA = "dm_control"
TASKS = (("cartpole", "swingup"),)
TIME_LIMIT = 1000


class ControlSuite(gymnasium.Env):
    """One task; observations are the suite's, side by side in its order, float64; actions lie in the suite's box.

    Raises:
      MissingExtraError: dm_control is not installed.
    """

    metadata = {"render_modes": []}

    def __init__(self, domain: str, task: str):
        suite = require("dm_control.suite", EXTRA)
        # The limit is Gymnasium's affair.
        self._env = suite.load(domain, task, task_kwargs={"time_limit": float("inf")})
        size = sum(int(np.prod(spec.shape)) for spec in self._env.observation_spec().values())
        actions = self._env.action_spec()
        self.observation_space = gymnasium.spaces.Box(-np.inf, np.inf, (size,), np.float64)
        self.action_space = gymnasium.spaces.Box(
            actions.minimum.astype(np.float32), actions.maximum.astype(np.float32), dtype=np.float32
        )

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[np.ndarray, dict]:
        super().reset(seed=seed)
        if seed is not None:
            self._env.task.random.seed(seed % 2**32)
        return self._flat(self._env.reset().observation), {}

    def step(self, action: np.ndarray) -> tuple[np.ndarray, float, bool, bool, dict]:
        stepped = self._env.step(action)
        return self._flat(stepped.observation), float(stepped.reward), stepped.discount == 0.0, False, {}

    def save_state(self) -> np.ndarray:
        """All that the simulator integrates, [P] float64."""
        mujoco, physics = require("mujoco", EXTRA), self._env.physics
        state = np.empty(mujoco.mj_stateSize(physics.model.ptr, mujoco.mjtState.mjSTATE_INTEGRATION))
        mujoco.mj_getState(physics.model.ptr, physics.data.ptr, state, mujoco.mjtState.mjSTATE_INTEGRATION)
        return state

    def restore_state(self, state: np.ndarray) -> None:
        """Puts an environment that was reset where `save_state` [P] says."""
        mujoco, physics = require("mujoco", EXTRA), self._env.physics
        mujoco.mj_setState(physics.model.ptr, physics.data.ptr, state, mujoco.mjtState.mjSTATE_INTEGRATION)
        mujoco.mj_forward(physics.model.ptr, physics.data.ptr)

    @staticmethod
    def _flat(observation: Any) -> np.ndarray:
        return np.concatenate([np.ravel(x) for x in observation.values()])

    def close(self) -> None:
        self._env.close()


for _domain, _task in TASKS:
    gymnasium.register(
        f"dm_control-{_domain}-{_task}-v0", entry_point=f"{__name__}:ControlSuite", max_episode_steps=TIME_LIMIT,
        kwargs={"domain": _domain, "task": _task},
    )
