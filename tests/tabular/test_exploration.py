"""MDPs that have to be explored, by hand and against enumeration."""

import itertools

import numpy as np
import pytest

from rl_jax.tabular.effective_horizon import analyze
from rl_jax.tabular.exploration import deep_sea, linear_mdp, of_table, riverswim
from rl_jax.tabular.files import bridge_mdp
from rl_jax.tabular.mdp import TabularMDP
from rl_jax.tabular.stochastic import best_value, random_mdp


def test_the_best_value_is_that_of_the_best_of_all_policies():
    mdp = random_mdp(2, 2, 2, seed=5)

    def value(actions):
        after = np.zeros(2)
        for step in reversed(range(2)):
            after = mdp.rewards[[0, 1], actions[step]] + mdp.transitions[[0, 1], actions[step]] @ after
        return mdp.start @ after

    policies = itertools.product(itertools.product(range(2), repeat=2), repeat=2)
    assert best_value(mdp) == pytest.approx(max(map(value, policies)))


def test_riverswim_by_hand():
    mdp = riverswim(4, 3)
    np.testing.assert_allclose(mdp.transitions.sum(-1), 1.0)
    np.testing.assert_allclose(mdp.transitions[1, 1], [0.05, 0.6, 0.35, 0.0])
    np.testing.assert_allclose(mdp.transitions[3, 1], [0, 0, 0.4, 0.6])
    assert best_value(mdp) == pytest.approx(0.015)  # too far within 3 steps
    assert best_value(riverswim(3, 3)) == pytest.approx(0.6 * (0.35 + 0.05 * 0.005) + 0.4 * 2 * 0.005)
    with pytest.raises(ValueError, match="config.mdp.states=2: RiverSwim has 3 or more"):
        riverswim(2, 3)


def test_deep_sea_pays_the_one_way():
    for size in (1, 4):
        mdp = deep_sea(size)
        assert best_value(mdp) == pytest.approx(0.99) and mdp.horizon == size
        state = 0
        for _ in range(size - 1):
            state = int(mdp.transitions[state, 1].argmax())
        assert mdp.rewards[state, 1] > 0.9 and (mdp.rewards > 0).sum() == 1


def test_linear_mdps_are_linear():
    mdp, features = linear_mdp(9, 3, 4, 5, seed=0)
    np.testing.assert_allclose(mdp.transitions.sum(-1), 1.0)
    assert np.linalg.matrix_rank(np.c_[mdp.transitions.reshape(27, 9), mdp.rewards.reshape(27)]) == 4
    np.testing.assert_allclose(features.sum(-1), 1.0)


def test_tables_keep_their_best_return():
    table = TabularMDP(np.array([[1, -1], [-1, 0]]), np.array([[0.5, 0.7], [1.0, 0.0]]), 3)
    mdp = of_table(table)
    assert mdp.transitions.shape == (3, 2, 3) and best_value(mdp) == pytest.approx(1.5)
    freeway = bridge_mdp("freeway_10_fs30")
    assert best_value(of_table(freeway)) == pytest.approx(analyze(freeway).best_return)
