"""The table of the `pointmaze` sets: maze, reward and size of each."""

import dataclasses

from rl_jax.data.pointmaze.maze import MAZES


@dataclasses.dataclass(frozen=True)
class PointMazeSet:
    """One set; those of one maze hold the same steps and differ in their rewards."""

    name: str
    maze: str
    dense: bool
    num_steps: int = 1_000_000

    @property
    def env_id(self) -> str:
        return f"maze2d-{self.name}-v1"

    @property
    def dimensions(self) -> tuple[int, int]:
        """Of observations and actions."""
        return 4, 2

    @property
    def behaviour(self) -> str:
        return "in one trajectory to changing goals, rewarded for the task's own"


_SPECS = (PointMazeSet(f"{maze}-dense" if dense else maze, maze, dense) for dense in (False, True) for maze in MAZES)
SETS = {spec.name: spec for spec in _SPECS}
# Tasks whose data are one trajectory that is cut where the goal changes: the steps of an episode, by which returns are
# counted.
EPISODE_STEPS = {spec.env_id: MAZES[spec.maze].limit for spec in SETS.values()}
