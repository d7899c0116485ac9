"""D4RL's maze2d rebuilt: a ball that two motors push through a maze, with its rewards and its first states.

Fu et al. 2020, arXiv 2004.07219, section 5; constants, order of operations and mazes follow its code, d4rl/pointmaze.
A position is (row, column) of the maze in cells, which are 1 m wide. The ball's origin lies 0.2 m from where a cell's
centre is in both directions, in D4RL too: cell (r, c) is the square of 1 m around the position (r - 0.2, c - 0.2).
"""

from typing import Any, NamedTuple

import numpy as np

from rl_jax.core.extras import require

WALL, GOAL = "#", "G"
RADIUS, ORIGIN = 0.1, 1.2  # of the ball and of its position (0, 0), m; the wall of cell (r, c) is at (r + 1, c + 1)
OFF_CENTRE = ORIGIN - 1.0  # what an integer position lies beyond the centre of its cell
MAX_SPEED = 5.0  # m/s in each direction, before a step; the step itself may go beyond it
START_SPREAD, START_SPEED = 0.1, 0.1  # half width of the uniform position, standard deviation of the velocity
GOAL_RADIUS = 0.5  # of the sparse reward
SECONDS = 0.01  # of a step


class Maze(NamedTuple):
    """A maze with one goal; `limit` is the steps of an episode in D4RL's version 1."""

    rows: tuple[str, ...]
    limit: int

    def cells(self, marks: str) -> list[tuple[int, int]]:
        """(row, column) of the cells that have one of the marks, row by row."""
        return [(r, c) for r, row in enumerate(self.rows) for c, mark in enumerate(row) if mark in marks]

    @property
    def free(self) -> list[tuple[int, int]]:
        """The cells without a wall; the goal's is one."""
        return self.cells("." + GOAL)

    @property
    def goal(self) -> tuple[int, int]:
        """The cell that an evaluation rewards."""
        return self.cells(GOAL)[0]


MAZES = {
    "umaze": Maze(("#####", "#G..#", "###.#", "#...#", "#####"), 300),
    "medium": Maze(
        ("########", "#..##..#", "#..#...#", "##...###", "#..#...#", "#.#..#.#", "#...#.G#", "########"), 600
    ),
    "large": Maze(
        ("############", "#....#.....#", "#.##.#.#.#.#", "#......#...#", "#.####.###.#", "#..#.#.....#", "##.#.#.#.###",
         "#..#...#.G.#", "############"), 800,
    ),
}


class Ball:
    """The ball in its maze: 4.2 kg that slide on two damped joints, simulated by MuJoCo.

    Attributes:
      model, data: MuJoCo's. The state is (row, column, velocities), float64 [4].
    """

    def __init__(self, maze: Maze):
        self._mujoco = require("mujoco", "mujoco")
        self._free = np.array(maze.free, np.float64)
        self.model = self._mujoco.MjModel.from_xml_string(_model(maze))
        self.data = self._mujoco.MjData(self.model)
        self._kind = self._mujoco.mjtState.mjSTATE_INTEGRATION

    def reset(self, rng: np.random.Generator) -> np.ndarray:
        """A first state, [4]: near any free cell, the goal's included."""
        self._mujoco.mj_resetData(self.model, self.data)
        self.data.qpos[:] = self._free[rng.integers(len(self._free))] + rng.uniform(-START_SPREAD, START_SPREAD, 2)
        self.data.qvel[:] = START_SPEED * rng.standard_normal(2)
        self._mujoco.mj_forward(self.model, self.data)
        return self.state()

    def step(self, action: np.ndarray) -> np.ndarray:
        """The state [4] after 0.01 s of an action [2], which is clipped to [-1, 1]."""
        self.data.qvel[:] = self.data.qvel.clip(-MAX_SPEED, MAX_SPEED)
        self.data.ctrl[:] = np.clip(action, -1.0, 1.0)
        self._mujoco.mj_step(self.model, self.data)
        return self.state()

    def state(self) -> np.ndarray:
        """(row, column, velocities): a copy, [4]."""
        return np.concatenate([self.data.qpos, self.data.qvel])

    def save(self) -> np.ndarray:
        """All that the following steps depend on, float64 [P]."""
        saved = np.empty(self._mujoco.mj_stateSize(self.model, self._kind))
        self._mujoco.mj_getState(self.model, self.data, saved, self._kind)
        return saved

    def restore(self, saved: np.ndarray) -> None:
        """Goes on from what `save` gave."""
        self._mujoco.mj_setState(self.model, self.data, saved, self._kind)


def rewards(positions: np.ndarray, goal: Any, dense: bool) -> np.ndarray:
    """Of positions [..., 2] -> [...] float64: exp(-distance), or whether the goal is within 0.5 m."""
    distances = np.linalg.norm(positions - np.asarray(goal, np.float64), axis=-1)
    return np.exp(-distances) if dense else (distances <= GOAL_RADIUS).astype(np.float64)


def _model(maze: Maze) -> str:
    """MuJoCo's XML. D4RL's floor is left out: the ball, which cannot rise or fall, does not feel it."""
    walls = "".join(f'<geom type="box" pos="{r + 1} {c + 1} 0" size=".5 .5 .2"/>' for r, c in maze.cells(WALL))
    return f"""
    <mujoco>
      <compiler inertiafromgeom="true" angle="radian"/>
      <option timestep="{SECONDS}" gravity="0 0 0" iterations="20" integrator="Euler"/>
      <default>
        <joint damping="1" limited="false"/>
        <geom friction=".5 .1 .1" density="1000" margin=".002" condim="1" contype="2" conaffinity="1"/>
      </default>
      <worldbody>
        <body pos="{ORIGIN} {ORIGIN} 0">
          <geom type="sphere" size="{RADIUS}" contype="1"/>
          <joint name="row" type="slide" axis="1 0 0"/>
          <joint name="column" type="slide" axis="0 1 0"/>
        </body>
        {walls}
      </worldbody>
      <actuator>
        <motor joint="row" ctrlrange="-1 1" ctrllimited="true" gear="100"/>
        <motor joint="column" ctrlrange="-1 1" ctrllimited="true" gear="100"/>
      </actuator>
    </mujoco>
    """
