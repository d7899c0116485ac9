"""Mazes drawn with characters, as tabular MDPs."""

from collections.abc import Sequence

import numpy as np

from rl_jax.tabular.mdp import TabularMDP, check_mdp

WALL, FREE, START, GOAL = "#.SG"
MOVES = ((-1, 0), (0, 1), (1, 0), (0, -1))  # of the actions: up, right, down, left; (rows, columns)


def maze_mdp(rows: Sequence[str], horizon: int = 100) -> tuple[TabularMDP, np.ndarray]:
    """A maze without end: who is in the goal earns 1 and is back in the start, whatever the action.

    Whoever walks into a wall stays where he is. Only problems with a finite horizon read `horizon`.

    Args:
      rows: of equal length; "#" is a wall, "." a free cell, "S" the start and "G" the goal. Beyond the edge is wall.

    Returns:
      (the MDP of 4 actions, up, right, down, left; int32 [S, 2], row and column of each state, the start first).

    Raises:
      ValueError: a row has another length, a character is unknown, or there is not one start and one goal.
    """
    if len({len(row) for row in rows}) != 1:
        lengths = [len(row) for row in rows]
        raise ValueError(f"the maze's rows have lengths {lengths}: give at least one, and all of one length")
    grid = np.array([list(row) for row in rows])
    unknown = sorted(set(grid.ravel().tolist()) - {WALL, FREE, START, GOAL})
    if unknown:
        raise ValueError(f"the maze has {unknown[0]!r}: draw with {WALL} {FREE} {START} {GOAL}")
    for character in (START, GOAL):
        if (number := int((grid == character).sum())) != 1:
            raise ValueError(f"the maze has {number} of {character}: draw one")
    start = np.argwhere(grid == START)
    cells = np.concatenate([start, np.argwhere((grid == FREE) | (grid == GOAL))])
    number_of = {tuple(cell): number for number, cell in enumerate(cells.tolist())}
    transitions = np.array([
        [number_of.get((row + down, column + right), number) for down, right in MOVES]
        for number, (row, column) in enumerate(cells.tolist())
    ])
    goal = number_of[tuple(np.argwhere(grid == GOAL)[0].tolist())]
    transitions[goal], rewards = 0, np.zeros(transitions.shape)
    rewards[goal] = 1.0
    return check_mdp(TabularMDP(transitions, rewards, horizon), "the maze"), cells.astype(np.int32)


def goal_values(transitions: np.ndarray, discount: float) -> np.ndarray:
    """V*(s, g), [S, S], of -1 a step until the goal g, where it is 0 and ends; float64, by value iteration.

    Args:
      transitions: int [S, A], the state that follows.
    """
    values = np.zeros((len(transitions), len(transitions)))
    while True:
        new = -1.0 + discount * values[transitions].max(1)
        np.fill_diagonal(new, 0.0)
        if np.abs(new - values).max() < 1e-12:
            return new
        values = new
