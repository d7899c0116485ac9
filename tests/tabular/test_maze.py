"""A maze's moves, walls, goal and errors."""

import numpy as np
import pytest

from rl_jax.tabular.maze import maze_mdp


def test_moves_walls_and_goal():
    mdp, cells = maze_mdp([".S", "#.", ".G"], horizon=7)
    assert cells.tolist() == [[0, 1], [0, 0], [1, 1], [2, 0], [2, 1]] and mdp.horizon == 7
    # Up, right, down, left of the start, of the corner beside it, of the cell above the goal, of the one left of it.
    assert mdp.transitions.tolist() == [[0, 0, 2, 1], [1, 0, 1, 1], [0, 2, 4, 2], [3, 4, 3, 3], [0, 0, 0, 0]]
    assert mdp.rewards.sum(1).tolist() == [0, 0, 0, 0, 4]


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([], "give at least one"), (["S.", "G"], r"lengths \[2, 1\]"), (["SxG"], "has 'x': draw with # . S G"),
        (["S."], "0 of G"), (["SGS"], "2 of S"),
    ],
)
def test_bad_drawings_are_named(rows, message):
    with pytest.raises(ValueError, match=message):
        maze_mdp(rows)


def test_states_are_numbered_once():
    mdp, cells = maze_mdp(["S..", "...", "..G"])
    assert len(np.unique(cells, axis=0)) == mdp.num_states == 9
