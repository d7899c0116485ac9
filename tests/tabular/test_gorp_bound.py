"""The bound on GORP's samples against the authors' own, and its parts against independent computations."""

import itertools
import json
import math
from pathlib import Path

import numpy as np
import pytest
import scipy.optimize
import scipy.stats

from rl_jax.tabular import gorp_bound as module
from rl_jax.tabular.files import bridge_exploration_policy, bridge_mdp
from rl_jax.tabular.gorp_bound import failure_probability, gorp_bound
from rl_jax.tabular.mdp import TabularMDP

GOLDEN = json.loads((Path(__file__).parents[1] / "golden" / "bridge_analysis.json").read_text())

# One step to choose between a sure 0.5 and a coin: 0 or 1 for the two actions that follow.
COIN = TabularMDP(np.array([[1, 2], [-1, -1], [-1, -1]]), np.array([[0, 0], [0.5, 0.5], [0, 1]], np.float32), 2)


def compare(name, ks):
    base = name.partition("/")[0]
    policy = bridge_exploration_policy(base) if base != name else None
    found, golden = gorp_bound(bridge_mdp(base), max_k=max(ks), exploration_policy=policy), GOLDEN[name]["gorp_bounds"]
    for k in ks:
        expected = golden["k_results"][str(k)]
        assert found.steps[k] == expected["sample_complexity"]
        assert found.horizons[k] == pytest.approx(expected["effective_horizon"], rel=1e-14)
    assert found.sample_complexity == golden["sample_complexity"]
    assert found.effective_horizon == pytest.approx(golden["effective_horizon"], rel=1e-14)


@pytest.mark.parametrize(
    ("name", "ks"),
    [
        ("freeway_10_fs30", (1, 2)),
        ("maze_easy_l0_30_fs1", (1,)),
        ("freeway_10_fs30_framestack/exploration_policy", (1, 2, 3)),
        ("maze_easy_l0_30_fs1/exploration_policy", (1,)),
    ],
)
def test_the_authors_bounds_come_out(name, ks):
    compare(name, ks)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "ks"), [("MiniGrid-KeyCorridorS3R1-v0", (1,)), ("maze_easy_l0_30_fs1/exploration_policy", (1, 2))]
)
def test_the_authors_bounds_that_take_long_come_out(name, ks):
    compare(name, ks)


def test_an_exploration_policy_counts():
    policy = np.full((2, 3, 2), 0.5)
    policy[1, 2] = [0.0, 1.0]  # the coin always shows 1
    assert gorp_bound(COIN, max_k=1, exploration_policy=policy).episodes == {1: 1}


def test_moments_of_returns_are_those_of_the_enumerated_ones():
    rewards = np.array([[0, 1.0], [-0.5, 0.25], [2, 0]], np.float32)
    mdp = TabularMDP(np.array([[1, 2], [0, -1], [1, 0]]), rewards, 4)
    plan = module._Plan.of(mdp, None)
    unit = float(plan.rewards[0, 1])  # the least positive reward, 0.25, is scaled to 1
    assert unit == 4.0

    def earned(actions):
        state, total = 0, 0.0
        for action in actions:
            total += plan.rewards[state, action]  # the terminal state stays and earns nothing
            state = plan.following[state, action]
        return total

    everything = np.array([earned(actions) for actions in itertools.product((0, 1), repeat=4)])
    assert plan.values.explored[0, 0] == pytest.approx(everything.mean())
    assert plan.values.variance[0, 0] == pytest.approx(everything.var())
    assert plan.values.third[0, 0] == pytest.approx((np.abs(everything - everything.mean()) ** 3).mean())


def test_the_worst_case_solves_its_linear_program():
    rng = np.random.default_rng(0)
    for _ in range(20):
        middle = rng.dirichlet(np.ones(4))
        lower, upper = middle * rng.random(4), np.minimum(1.0, middle * (1.0 + 3.0 * rng.random(4)))
        after = rng.random(4)
        solved = scipy.optimize.linprog(-after, A_eq=np.ones((1, 4)), b_eq=[1.0], bounds=np.stack([lower, upper], 1))
        high, low = min((upper * after).sum(), after.max()), (lower * after).sum()
        expected = -solved.fun if high - low > 1e-2 else high
        found = module._worst_case(lower[None], upper[None], after[None])[0]
        assert found == pytest.approx(expected, abs=1e-9)


@pytest.mark.parametrize("episodes", [7, 60])
def test_bounds_hold_the_true_chance_between_them(episodes):
    p = np.array([0.2, 0.35, 0.5])
    values = module._Values(p, np.ones(3), np.zeros(3), p * (1 - p), p * (1 - p) * (p**2 + (1 - p) ** 2))
    sequences = values.map(lambda values: values[None])
    counts = np.arange(episodes + 1)
    mass = scipy.stats.binom.pmf(counts, episodes, p[:, None])
    below = scipy.stats.binom.cdf(counts, episodes, p[:, None])
    strictly = below - mass
    for method in (module._binomial, module._berry_esseen, module._bernstein, module._bennett):
        lower, upper = method(sequences, episodes)
        for i in range(3):
            others = [j for j in range(3) if j != i]
            sure = (mass[i] * strictly[others].prod(0)).sum()  # wins alone
            perhaps = (mass[i] * below[others].prod(0)).sum()  # wins or draws
            assert lower[0, i] <= perhaps + 1e-6 and upper[0, i] >= sure - 1e-2, method.__name__


def test_an_mdp_in_which_nothing_can_go_wrong_needs_one_episode():
    mdp = TabularMDP(np.array([[0, 0]]), np.array([[1, 1]], np.float32), 3)
    bound = gorp_bound(mdp, max_k=2)
    assert bound.episodes == {1: 1, 2: 1} and bound.effective_horizon == 1.0
    assert bound.sample_complexity == 2 * 1 * 3**2
    # Greedy on the random policy's values is wrong here: no m helps k = 1.
    trap = TabularMDP(np.array([[1, 2], [-1, -1], [-1, -1]]), np.array([[0, 0], [1, 1], [-9, 2]], np.float32), 2)
    assert set(gorp_bound(trap, max_k=2).episodes) == {2}
    assert gorp_bound(trap, max_k=1).effective_horizon == math.inf


def test_bad_input_is_named():
    with pytest.raises(ValueError, match="k is 1 and episodes 0"):
        failure_probability(COIN, 1, 0)
    with pytest.raises(ValueError, match="policy has shape"):
        gorp_bound(COIN, exploration_policy=np.ones((3, 3, 3)))
