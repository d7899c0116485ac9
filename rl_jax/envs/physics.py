"""The full state of one environment: what a run must save so that its episode goes on bitwise after a restart.

MuJoCo's own state (`mjSTATE_INTEGRATION`) is not quite all that an episode depends on: Ant, Humanoid and Reacher-v4 pay
for positions that the simulator derived during the last step, and `mj_forward` derives others. So a pool keeps the
state from before the last step, and restores an environment by repeating that step, which derives them again.
"""

from typing import Any

import numpy as np

# Classic control without MuJoCo: tasks whose attribute `state` is all that a step depends on.
CLASSIC = ("gymnasium.envs.classic_control.pendulum", "gymnasium.envs.classic_control.continuous_mountain_car")
TRANSPARENT = ("TimeLimit", "OrderEnforcing", "PassiveEnvChecker")  # wrappers without a state but a count of steps


class Physics:
    """Reads and writes the state of one environment.

    Known are Gymnasium's MuJoCo tasks, two of its classic ones (CLASSIC), and environments that have `save_state() ->
    array` and `restore_state(array)`, float64 of one fixed shape [P]. All of them only behind wrappers that change
    nothing but an episode's length.

    Raises:
      ValueError: there is no known way to save the environment.
    """

    def __init__(self, env: Any):
        self._env, self._time_limit = env.unwrapped, None
        while env is not self._env:
            name = type(env).__name__
            if name not in TRANSPARENT:
                raise ValueError(f"{self._name()} cannot be saved: the state of its wrapper {name} is not known")
            self._time_limit = env if name == "TimeLimit" else self._time_limit
            env = env.env
        self._own = hasattr(env, "save_state") and hasattr(env, "restore_state")
        self._classic = type(env).__module__ in CLASSIC
        if self._own or self._classic:
            return
        # A task that others derive from MujocoEnv may keep more than the simulator does.
        if not type(env).__module__.startswith("gymnasium.envs.mujoco."):
            raise ValueError(
                f"{self._name()} cannot be saved: it is none of Gymnasium's MuJoCo tasks, and it has no save_state() "
                "and restore_state(state) for float64 arrays of one shape [P]"
            )
        import mujoco

        self._mujoco, self._kind = mujoco, mujoco.mjtState.mjSTATE_INTEGRATION

    def size(self) -> int:
        """P; the environment must have been reset."""
        if self._classic:
            return len(self._env.state)
        return len(self._env.save_state()) if self._own else self._mujoco.mj_stateSize(self._env.model, self._kind)

    def read(self, out: np.ndarray) -> None:
        """Writes the state into `out`, [P] float64."""
        if self._classic:
            out[:] = self._env.state
        elif self._own:
            out[:] = self._env.save_state()
        else:
            self._mujoco.mj_getState(self._env.model, self._env.data, out, self._kind)

    def write(self, state: np.ndarray, steps: int) -> None:
        """Puts an environment that was just reset into a state [P] after `steps` steps of its episode."""
        if self._classic:
            self._env.state = state.astype(self._env.state.dtype)
        elif self._own:
            self._env.restore_state(state.copy())
        else:
            self._mujoco.mj_setState(self._env.model, self._env.data, state, self._kind)
        if self._time_limit is not None:
            self._time_limit._elapsed_steps = steps

    def _name(self) -> str:
        return self._env.spec.id if self._env.spec else type(self._env).__name__
