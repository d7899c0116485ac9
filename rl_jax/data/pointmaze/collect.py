"""Collects a `pointmaze` set: a controller with noise steers the ball from goal to goal, without a reset between them.

The recipe is that of D4RL's scripts generate_maze2d_datasets.py, with its option --noisy, and
relabel_maze2d_rewards.py. Two things differ. After an arrival its script acts from the observation before the last
step, so that its data repeat that state, and ours go on from the true successor. Its planner starts from the rounded
position, which beside a wall may be the wall's cell, and ours from the cell that holds the ball.
"""

from collections import deque
from collections.abc import Iterator

import numpy as np

from rl_jax.data.episodes import Episodes
from rl_jax.data.pointmaze.maze import MAZES, OFF_CENTRE, Ball, Maze, rewards
from rl_jax.data.pointmaze.sets import PointMazeSet
from rl_jax.data.progress import ProgressBar

P_GAIN, D_GAIN = 10.0, -1.0
ARRIVED = 0.1  # m from a way-point or a goal
NOISE = 0.5  # standard deviation of the action's noise
MOVES = ((0, -1), (0, 1), (-1, 0), (1, 0))


class Controller:
    """Steers to a goal cell along way-points: the cells of a shortest path, each a little moved towards its centre.

    It does not brake at way-points. Where several paths are shortest it takes the first of `MOVES`.
    """

    def __init__(self, maze: Maze, goal: tuple[int, int], position: np.ndarray, rng: np.random.Generator):
        cells = shortest_path(maze, cell_of(position), goal)
        path = [np.array(cell) - rng.uniform(0.0, OFF_CENTRE, 2) for cell in cells[:-1]]
        self._goal = np.array(goal, np.float64)
        self._way_points = deque([*path, self._goal])

    def act(self, state: np.ndarray) -> tuple[np.ndarray, bool]:
        """(action [2] in [-1, 1], whether the goal is reached) in a state [4]."""
        position, velocity = state[:2], state[2:]
        towards = self._way_points[0] - position
        if len(self._way_points) > 1 and np.hypot(*towards) < ARRIVED:
            self._way_points.popleft()
        arrived = bool(np.hypot(*(self._goal - position)) < ARRIVED)
        if arrived:
            towards = self._goal - position
        return (P_GAIN * towards + D_GAIN * velocity).clip(-1.0, 1.0), arrived


def cell_of(position: np.ndarray) -> tuple[int, int]:
    """The cell that holds a position [2]."""
    row, column = np.round(position + OFF_CENTRE).astype(int)
    return int(row), int(column)


def shortest_path(maze: Maze, start: tuple[int, int], goal: tuple[int, int]) -> list[tuple[int, int]]:
    """The cells after `start` up to the goal, the goal alone where they are the same."""
    free, steps, queue = set(maze.free), {goal: 0}, deque([goal])
    while queue:
        row, column = cell = queue.popleft()
        for neighbour in ((row + down, column + right) for down, right in MOVES):
            if neighbour in free and neighbour not in steps:
                steps[neighbour] = steps[cell] + 1
                queue.append(neighbour)
    path, cell = [], start
    while cell != goal:
        neighbours = [(cell[0] + down, cell[1] + right) for down, right in MOVES]
        cell = next(x for x in neighbours if steps.get(x) == steps[cell] - 1)
        path.append(cell)
    return path or [goal]


def collect(spec: PointMazeSet, num_steps: int, seed: int) -> Iterator[Episodes]:
    """Rolls out exactly `num_steps` steps; yields the way to each goal as an episode, in order.

    A function of the maze, `seed` and `num_steps` alone; a smaller set begins a larger one. An episode ends, truncated,
    at the step that is taken at the goal, or after the task's limit of steps. Its reward is that of the state in which
    an action is taken, for the task's goal, which few of the episodes go to. Shows a progress bar on standard error if
    that is a terminal.
    """
    if num_steps < 1:
        raise ValueError(f"{spec.name}: num_steps is {num_steps}, expected at least 1")
    maze, rng = MAZES[spec.maze], np.random.default_rng(seed)
    ball = Ball(maze)
    state, done = ball.reset(rng), 0
    with ProgressBar(spec.name, num_steps) as advance:
        while done < num_steps:
            states, actions = _to_a_goal(maze, ball, state, min(maze.limit, num_steps - done), rng)
            state, done = states[-1], done + len(actions)
            advance(len(actions))
            yield _episode(np.array(states, np.float32), np.array(actions, np.float32), maze, spec.dense)


def _to_a_goal(
    maze: Maze, ball: Ball, state: np.ndarray, limit: int, rng: np.random.Generator
) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """T + 1 states [4] and T actions [2] on the way to a random cell, at most `limit` of them."""
    # D4RL also spreads the goal by +-0.1 within the cell, and then steers to the cell's own position.
    goal = maze.free[rng.integers(len(maze.free))]
    controller = Controller(maze, goal, state[:2], rng)
    states, actions, arrived = [state], [], False
    while not arrived and len(actions) < limit:
        action, arrived = controller.act(states[-1])
        # As it is stored: the successor is that of the stored action.
        actions.append((action + NOISE * rng.standard_normal(2)).clip(-1.0, 1.0).astype(np.float32))
        states.append(ball.step(actions[-1]))
    return states, actions


def _episode(states: np.ndarray, actions: np.ndarray, maze: Maze, dense: bool) -> Episodes:
    truncated = np.zeros(len(actions), bool)
    truncated[-1] = True
    return Episodes(
        observations=states[:-1],
        actions=actions,
        rewards=rewards(states[:-1, :2], maze.goal, dense).astype(np.float32),
        terminated=np.zeros(len(actions), bool),
        truncated=truncated,
        next_observations=states[1:],
        starts=np.zeros(1, np.int64),
    )
