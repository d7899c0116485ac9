"""Tasks of Meta-World v3 (Yu et al. 2019, arXiv 1910.10897) as CPL's authors use them, and their scripted experts.

Importing this module registers metaworld-drawer-open-v3 and so on, which `EnvPool` knows by themselves, and
metaworld-drawer-open-success-v3, whose episode is worth 1 and ends where it first succeeds, so that its return says
whether it did. With `picture` an observation is what a camera sees. What differs from Meta-World's own: the goal is
observed and drawn anew at every reset, the gripper and object of the step before are left out but for the object's
place, and rewards are divided by 10.
"""

from typing import Any

import numpy as np

from rl_jax.core.extras import require

gymnasium = require("gymnasium", "metaworld")

TASKS = ("bin-picking", "button-press", "door-open", "drawer-open", "plate-slide", "sweep-into")
EXTRA = "metaworld"
TIME_LIMIT = 250
REWARD_SCALE = 0.1
# Of Meta-World's 39 numbers the hand and the gripper of the step before are left out.
LEFT_OUT = slice(18, 22)
OBJECT_X = 4
CAMERA = "corner4"  # CPL's authors put corner2 there


class MetaWorld(gymnasium.Env):
    """One task of TASKS; observations [35] float64, actions [4] in [-1, 1]: three of the hand, one of the gripper.

    Args:
      task: its name without a version.
      until_success: whether the reward is 1 at the first success, which ends the episode, and 0 before it.
      picture: pixels P of a side; above 0 observations are pictures [P, P, 3] uint8.

    Raises:
      MissingExtraError: metaworld is not installed.
      RuntimeError: pictures are asked for, and MuJoCo finds nothing that draws.
    """

    metadata = {"render_modes": []}

    def __init__(self, task: str, until_success: bool = False, picture: int = 0):
        name = f"{task}-v3"
        self._until_success, self._picture, self._renderer = until_success, picture, None
        self._sim = require("metaworld.env_dict", EXTRA).ALL_V3_ENVIRONMENTS[name]()
        self._expert = require("metaworld.policies", EXTRA).ENV_POLICY_MAP[name]()
        # The goal is seen, and drawn by the generator that `seed` sets.
        self._sim._partially_observable = False
        vars(self._sim).pop("sawyer_observation_space", None)  # by its bounds a step would cut the goal to 0
        self._sim._freeze_rand_vec, self._sim.seeded_rand_vec, self._sim._set_task_called = False, True, True
        self.action_space = self._sim.action_space
        self.observation_space = gymnasium.spaces.Box(-np.inf, np.inf, (39 - 4,), np.float64)
        if picture:
            self.observation_space = gymnasium.spaces.Box(0, 255, (picture, picture, 3), np.uint8)
        self._seen = np.zeros(39)

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[np.ndarray, dict]:
        super().reset(seed=seed)
        if seed is not None:
            self._sim.seed(seed % 2**31)
        self._seen, info = self._sim.reset()
        return self._observation(), info

    def step(self, action: np.ndarray) -> tuple[np.ndarray, float, bool, bool, dict]:
        reward, info = self.advance(action)
        success = bool(info["success"])
        if self._until_success:
            return self._observation(), float(success), success, False, info
        return self._observation(), reward, False, False, info

    def advance(self, action: np.ndarray) -> tuple[float, dict]:
        """A step of which nothing is observed: (reward, info)."""
        self._sim.curr_path_length = 0  # the limit is Gymnasium's affair
        self._seen, reward, _, _, info = self._sim.step(np.asarray(action, np.float32))
        return REWARD_SCALE * float(reward), info

    def expert_action(self, misjudged: float = 0.0) -> np.ndarray:
        """What Meta-World's script would do now, [4] in [-1, 1], if it saw the object `misjudged` m to the side (x)."""
        seen = self._seen.copy()
        seen[OBJECT_X] += misjudged
        return np.clip(self._expert.get_action(seen), -1.0, 1.0)

    def save_state(self) -> np.ndarray:
        """All that the simulator integrates and what was seen last, [P] float64; within an episode, whose goal and
        furniture stay where they are."""
        mujoco = require("mujoco", EXTRA)
        state = np.empty(mujoco.mj_stateSize(self._sim.model, mujoco.mjtState.mjSTATE_INTEGRATION))
        mujoco.mj_getState(self._sim.model, self._sim.data, state, mujoco.mjtState.mjSTATE_INTEGRATION)
        return np.concatenate([self._seen, self._sim._prev_obs, state])

    def restore_state(self, state: np.ndarray) -> None:
        """Goes back to where `save_state` [P] was called in the same episode."""
        mujoco = require("mujoco", EXTRA)
        self._seen, self._sim._prev_obs = state[:39].copy(), state[39:57].copy()
        mujoco.mj_setState(self._sim.model, self._sim.data, state[57:], mujoco.mjtState.mjSTATE_INTEGRATION)
        mujoco.mj_forward(self._sim.model, self._sim.data)

    def draw(self, size: int) -> np.ndarray:
        """What CAMERA sees now, [size, size, 3] uint8, of one size an environment; RuntimeError where nothing draws."""
        if self._renderer is None:
            mujoco = require("mujoco", EXTRA)
            try:
                self._renderer = mujoco.Renderer(self._sim.model, size, size)
            except Exception as error:  # each of MuJoCo's backends has errors of its own
                why = f"MuJoCo cannot draw here ({type(error).__name__}: {error})"
                raise RuntimeError(f"{why}: set MUJOCO_GL=egl, or osmesa, before Python starts") from error
        self._renderer.update_scene(self._sim.data, CAMERA)
        return self._renderer.render()[::-1, ::-1]  # the camera hangs upside down

    def _observation(self) -> np.ndarray:
        return self.draw(self._picture) if self._picture else np.delete(self._seen, LEFT_OUT)

    def close(self) -> None:
        if self._renderer is not None:
            self._renderer.close()
        self._sim.close()


for _task in TASKS:
    for _name, _until_success in ((_task, False), (f"{_task}-success", True)):
        gymnasium.register(
            f"metaworld-{_name}-v3", entry_point=f"{__name__}:MetaWorld", max_episode_steps=TIME_LIMIT,
            kwargs={"task": _task, "until_success": _until_success},
        )
