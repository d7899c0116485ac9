"""The effective horizon against the authors' own analyses, an enumeration of tiny MDPs, and numbers by hand."""

import itertools
import json
import math
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import psutil
import pytest

from rl_jax.tabular import effective_horizon
from rl_jax.tabular.effective_horizon import analyze, lookahead_q
from rl_jax.tabular.files import bridge_exploration_policy, bridge_mdp
from rl_jax.tabular.mdp import TabularMDP
from rl_jax.tabular.planning import REWARD_PRECISION, reachable_states

GOLDEN = json.loads((Path(__file__).parents[1] / "golden" / "bridge_analysis.json").read_text())
PLAIN = [name for name in GOLDEN if "/" not in name]


def golden_bound(analyzed):
    gaps = [math.inf if gap is None else gap for gap in analyzed["gaps"]]
    return [analyzed["ks"], analyzed["ms"], analyzed["vars"], gaps, analyzed["effective_horizon"]]


@pytest.mark.parametrize("name", GOLDEN)
def test_the_authors_figures_come_out(name):
    base = name.partition("/")[0]
    policy = bridge_exploration_policy(base) if base != name else None
    found, analyzed = analyze(bridge_mdp(base), exploration_policy=policy), GOLDEN[name]["analyzed"]
    assert (found.min_k, found.effective_planning_window) == (analyzed["min_k"], analyzed["epw"])
    ks, ms, variances, gaps, effective = golden_bound(analyzed)
    assert list(found.simple_bound.ks) == ks and list(found.simple_bound.ms) == ms
    # Rounding in the sums over actions goes through the variances, a few units in the last place.
    np.testing.assert_allclose(found.simple_bound.variances, variances, rtol=1e-12)
    np.testing.assert_allclose(found.simple_bound.gaps, gaps, rtol=1e-12)
    assert found.simple_bound.effective_horizon == pytest.approx(effective, rel=1e-14)


@pytest.mark.parametrize("name", PLAIN)
def test_the_authors_figures_with_sticky_actions_come_out(name):
    found, golden = analyze(bridge_mdp(name), sticky=0.25), GOLDEN[name]["sticky_0.25"]
    assert (found.min_k, found.effective_planning_window) == (golden["min_k"], golden["epw"])
    assert found.reachable_states == golden["num_states"] and found.simple_bound is None
    returns = [found.random_return, found.best_return, found.worst_return, *found.greedy_returns[:5]]
    # The authors keep greedy returns in float32, which has 1 for 1 - 2e-15.
    expected = [golden["random_return"], golden["optimal_return"], golden["worst_return"], *golden["greedy_returns"]]
    np.testing.assert_allclose(returns, expected, rtol=1e-13)


@pytest.mark.parametrize(
    ("name", "random", "best"),
    [
        # Value iteration written for the data's own description, not with this planner.
        ("freeway_10_fs30", 0.009026401801893343, 1.0),
        ("maze_easy_l0_30_fs1", 6.095543214701177, 10.0),
        ("MiniGrid-KeyCorridorS3R1-v0", 0.00323571300219946, 1.0),
    ],
)
def test_returns_without_sticky_actions(name, random, best):
    found = analyze(bridge_mdp(name))
    np.testing.assert_allclose([found.random_return, found.best_return], [random, best], rtol=1e-12)


def random_mdp(seed):
    """Small and full of ties: few rewards, few states, some terminals; two shapes in turn."""
    rng = np.random.default_rng(seed)
    states, actions, horizon = ((4, 2, 5), (5, 3, 3))[seed % 2]
    transitions = rng.integers(-1, states, (states, actions))
    rewards = rng.choice([0.0, 0.0, 0.5, 1.0, -1.0], (states, actions)).astype(np.float32)
    return TabularMDP(transitions, rewards, horizon)


class Enumeration:
    """What the planner finds, by recursion over histories in plain Python: no arrays, nothing backed up but Q.

    A position is (time, state, previous executed action or None); the terminal state is None.
    """

    def __init__(self, mdp, sticky):
        self.mdp, self.sticky = mdp, sticky
        self.actions = range(mdp.num_actions)

    def outcomes(self, position, action):
        """(probability, executed action) of a chosen action."""
        _, _, previous = position
        if self.sticky == 0 or previous is None:
            return [(1.0, action)]
        return [(1.0 - self.sticky, action), (self.sticky, previous)]

    def after(self, position, executed):
        time, state, _ = position
        number = self.mdp.transitions[state, executed]
        return (time + 1, None if number == -1 else int(number), executed)

    def over(self, position):
        return position[1] is None or position[0] == self.mdp.horizon

    def q(self, position, action, value):
        """One backup of `value(position)`."""
        return sum(
            p * (float(self.mdp.rewards[position[1], e]) + value(self.after(position, e)))
            for p, e in self.outcomes(position, action)
        )

    def value(self, position, reduce):
        if self.over(position):
            return 0.0
        return reduce([self.q(position, a, lambda p: self.value(p, reduce)) for a in self.actions])

    def mean(self, position):
        return self.value(position, lambda qs: sum(qs) / len(qs))

    def q_k(self, position, action, k, immediate):
        if k == 1:
            return self.q(position, action, (lambda p: 0.0) if immediate else self.mean)
        return self.q(position, action, lambda p: self.best_k(p, k - 1, immediate))

    def best_k(self, position, k, immediate):
        return 0.0 if self.over(position) else max(self.q_k(position, a, k, immediate) for a in self.actions)

    def suboptimal(self, position, action):
        best = self.value(position, max)
        return self.q(position, action, lambda p: self.value(p, max)) < best - REWARD_PRECISION

    def greedy(self, position, k, immediate):
        qs = [self.q_k(position, a, k, immediate) for a in self.actions]
        return [a for a in self.actions if qs[a] >= max(qs) - 1e-9]

    def reached(self, choose):
        """All positions that the actions `choose` gives may lead to, the start first."""
        seen, open_ = set(), [(0, 0, None)]
        while open_:
            position = open_.pop()
            if position in seen or self.over(position):
                continue
            seen.add(position)
            for action in choose(position):
                open_ += [self.after(position, e) for _, e in self.outcomes(position, action)]
        return seen

    def works(self, k, immediate=False):
        on_the_way = self.reached(lambda p: self.greedy(p, k, immediate))
        return not any(self.suboptimal(p, a) for p in on_the_way for a in self.greedy(p, k, immediate))

    def worst_greedy(self, position, k):
        if self.over(position):
            return 0.0
        return min(self.q(position, a, lambda p: self.worst_greedy(p, k)) for a in self.greedy(position, k, False))

    def least_gap(self, k):
        gaps = [math.inf]
        for position in self.reached(lambda p: self.actions):
            qs = [self.q_k(position, a, k, False) for a in self.actions]
            gaps += [max(qs) - q for q in qs if q < max(qs) - 1e-9]
        return min(gaps)

    def simple(self, k):
        """The largest m of the simple bound, or None if k does not work."""

        def spread(position, k):
            if self.over(position):
                return 0.0
            if k == 1:
                bounds = []
                values = (self.mean, lambda p: self.value(p, max), lambda p: self.value(p, min))
                for a in self.actions:
                    mean, high, low = (self.q(position, a, value) for value in values)
                    bounds.append((mean - low) * (high - low))
                return max(bounds)
            return max(spread(self.after(position, a), k - 1) for a in self.actions)

        def split(position):
            qs = [self.q_k(position, a, k, False) for a in self.actions]
            bad = max((q for a, q in enumerate(qs) if self.suboptimal(position, a)), default=-math.inf)
            return qs, bad

        def follow(position):
            qs, bad = split(position)
            return [a for a, q in enumerate(qs) if q > bad + 1e-9]

        most = 1
        for position in self.reached(follow):
            qs, bad = split(position)
            if max(qs) <= bad + 1e-9:
                return None
            factor = math.log(2 * self.mdp.horizon * self.mdp.num_actions**k)
            most = max(most, math.ceil(16 * spread(position, k) / (max(qs) - bad) ** 2 * factor))
        return most


@pytest.mark.parametrize("sticky", [0.0, 0.25])
def test_enumerating_tiny_mdps_gives_the_same(sticky):
    ks_seen = set()
    for seed in range(12):
        mdp = random_mdp(seed)
        found, brute = analyze(mdp, sticky=sticky, max_k=3), Enumeration(mdp, sticky)
        start, ks = (0, 0, None), range(1, min(3, mdp.horizon) + 1)
        returns = [brute.mean(start), brute.value(start, max), brute.value(start, min)]
        np.testing.assert_allclose([found.random_return, found.best_return, found.worst_return], returns, atol=1e-12)
        np.testing.assert_allclose(found.greedy_returns, [brute.worst_greedy(start, k) for k in ks], atol=1e-12)
        np.testing.assert_allclose(found.least_gaps, [brute.least_gap(k) for k in ks], rtol=1e-9)
        assert found.min_k == next((k for k in ks if brute.works(k)), None), seed
        assert found.effective_planning_window == next((k for k in ks if brute.works(k, True)), None), seed
        stochastic = [k - 2 * math.log(gap, mdp.num_actions) if gap < math.inf else k
                      for k, gap in zip(ks, found.least_gaps) if brute.works(k)]
        assert found.stochastic_effective_horizon == pytest.approx(min(stochastic, default=math.inf))
        ks_seen.add(found.min_k)
        if sticky == 0:
            bound = dict(zip(found.simple_bound.ks, found.simple_bound.ms))
            for k in ks:
                if k in bound or k < found.simple_bound.effective_horizon:
                    assert bound.get(k) == brute.simple(k), (seed, k)
    assert len(ks_seen) > 1  # the draws tell look-aheads apart


# At the start action 0 leads to a trap: half of what follows pays 1 at once. Action 1 leads to a corridor where one of
# two actions goes on to 1.2 and the other ends with nothing. At random: 0.5 against 0.6 / 2 = 0.3; best: 1 against 1.2.
TRAP = TabularMDP(
    np.array([[1, 2], [-1, -1], [-1, 3], [-1, -1]]), np.array([[0, 0], [1, 0], [0, 0], [0, 1.2]], np.float32), 3
)


def test_an_mdp_that_needs_three_steps_of_look_ahead():
    found = analyze(TRAP)
    # Q1 = (.5, .3); Q2 = (1, max(0, .6)); Q3 = Q* = (1, 1.2). Inside the trap greedy takes the 1.
    assert found.min_k == 3 and found.random_return == pytest.approx((0.5 + 0.3) / 2)
    np.testing.assert_allclose(found.greedy_returns, [1.0, 1.0, 1.2], rtol=1e-6)
    # Over all that can be reached: k = 1, .5 - .3 at the start; k = 2, 1 - .6 there; k = 3, 1.2 - 1.
    np.testing.assert_allclose(found.least_gaps, [0.2, 0.4, 0.2], rtol=1e-6)
    assert found.stochastic_effective_horizon == pytest.approx(3 + math.log2(1 / 0.2**2), rel=1e-6)


def test_an_mdp_that_needs_two_steps_of_look_ahead():
    # Q1 = (.7, .6), Q2 = Q* = (1, 1.2).
    rewards = np.array([[0, 0], [1, 0.4], [0, 1.2]], np.float32)
    found = analyze(TabularMDP(np.array([[1, 2], [-1, -1], [-1, -1]]), rewards, 2))
    assert found.min_k == 2 and found.effective_planning_window == 2
    np.testing.assert_allclose(found.greedy_returns, [1.0, 1.2], rtol=1e-6)
    np.testing.assert_allclose(found.least_gaps, [0.1, 0.2], rtol=1e-6)
    assert found.random_return == pytest.approx(0.65)
    # k = 1 does not work, and of k = T the bound asks nothing: H is at most T.
    assert found.simple_bound == effective_horizon.SimpleBound((), (), (), (), 2.0)


def test_ties_are_broken_in_the_worst_way():
    # Both actions look alike at random (0.5), one leads to a sure 0.5, the other to a choice between 0 and 1.
    mdp = TabularMDP(np.array([[1, 2], [-1, -1], [-1, -1]]), np.array([[0, 0], [0.5, 0.5], [0, 1]], np.float32), 2)
    found = analyze(mdp)
    assert found.greedy_returns == (0.5, 1.0) and found.min_k == 2
    assert found.least_gaps == (1.0, 0.5)  # at k = 1 only the third state's actions differ


def test_unreachable_states_and_one_action_do_no_harm():
    lonely = TabularMDP(np.array([[0], [1]]), np.array([[1], [5]], np.float32), 4)
    found = analyze(lonely)
    assert (found.random_return, found.best_return, found.min_k, found.reachable_states) == (4.0, 4.0, 1, 1)
    assert found.least_gaps == (math.inf,) * 4 and found.stochastic_effective_horizon == 1
    assert found.simple_bound.effective_horizon == 1
    once = analyze(lonely.replace(horizon=1))
    assert once.random_return == 1.0 and once.min_k == 1


def test_the_search_goes_on_until_all_is_known(monkeypatch):
    mdp = bridge_mdp("freeway_10_fs30")
    whole, short = analyze(mdp), analyze(mdp, max_k=5)
    assert whole.effective_planning_window == 6
    assert short.effective_planning_window is None and len(short.greedy_returns) == 5
    monkeypatch.setattr(effective_horizon, "FIRST_KS", 5)
    assert analyze(mdp) == whole


def test_reachable_states_are_counted_by_walking():
    for seed, sticky in itertools.product(range(20), (0.0, 0.25)):
        mdp = random_mdp(seed)
        brute = Enumeration(mdp, sticky)
        seen, level = set(), {(0, 0)}
        for _ in range(mdp.horizon):
            seen |= level
            level = {(brute.after((0, s, None), a)[1] if s is not None else None, a) for s, a in itertools.product(
                {s for s, _ in level}, range(mdp.num_actions))}
        count = len(seen) if sticky else len({state for state, _ in seen})
        assert reachable_states(mdp, sticky > 0) == count, seed


def test_precision_of_the_caller_is_left_alone():
    analyze(TRAP)
    assert jnp.zeros(1).dtype == jnp.float32 and jnp.asarray(np.float64(1)).dtype == jnp.float32


def test_bad_input_is_named(monkeypatch):
    for sticky in (-0.1, 1.0, math.nan):
        with pytest.raises(ValueError, match="sticky is .*: give a probability"):
            analyze(TRAP, sticky=sticky)
    with pytest.raises(ValueError, match="max_k is 0: give at least 1"):
        analyze(TRAP, max_k=0)
    with pytest.raises(ValueError, match=r"rewards\[0, 0\] is nan"):
        analyze(TRAP.replace(rewards=np.full((4, 2), np.nan)))
    wrong = np.full((3, 4, 2), 0.5)
    wrong[1, 2] = [0.5, 0.6]
    with pytest.raises(ValueError, match=r"policy\[1, 2\] is \[0.5, 0.6\]: probabilities .* sum to 1"):
        analyze(TRAP, exploration_policy=wrong)
    monkeypatch.setattr(psutil, "virtual_memory", lambda: type("memory", (), {"available": 1000}))
    with pytest.raises(MemoryError, match="4 states x 2 actions with k up to 3 needs about .* smaller max_k"):
        analyze(TRAP)


def test_the_estimate_of_memory_is_about_what_is_allocated():
    mdp = TabularMDP(np.zeros((3000, 4), np.int32), np.zeros((3000, 4), np.float32), 20)
    shape = jax.ShapeDtypeStruct
    for num_ks, sticky in ((1, False), (8, True)):
        with jax.enable_x64(True):
            arrays = shape((3000, 4), np.int32), shape((3000, 4), np.float64), None, shape((), np.float64)
            lowered = effective_horizon._backward.lower(*arrays, horizon=20, num_ks=num_ks, is_sticky=sticky)
            analysis = lowered.compile().memory_analysis()
        ratio = effective_horizon.estimate_bytes(mdp, num_ks, sticky) / analysis.temp_size_in_bytes
        assert 0.5 < ratio < 2.0, (num_ks, sticky, ratio)


def test_look_ahead_by_hand_and_as_the_recursion_has_it():
    trap = TabularMDP(
        np.array([[1, 2, 1, 2], [-1] * 4, [-1] * 4]), np.array([[0] * 4, [1, 1, 0, 0], [1.5, 0, 0, 0]], np.float32), 2
    )
    q = lookahead_q(trap, 2)
    assert q[:, 0, 0].tolist() == [[0.5, 0.375, 0.5, 0.375], [1, 1.5, 1, 1.5]]
    mdp = bridge_mdp("maze_easy_l0_30_fs1")
    q, analysis = lookahead_q(mdp, mdp.horizon), analyze(mdp)
    assert q.shape == (30, 30, 243, 9) and q.dtype == np.float64
    assert q[0, 0, 0].mean() == pytest.approx(analysis.random_return, rel=1e-13)
    assert q[-1, 0, 0].max() == pytest.approx(analysis.best_return, rel=1e-13)
    # Greedy on Q^1, step by step: the best return, for min_k is 1.
    state, earned = 0, 0.0
    for time in range(mdp.horizon):
        action = q[0, time, state].argmax()
        state, earned = mdp.transitions[state, action], earned + mdp.rewards[state, action]
        if state < 0:
            break
    assert analysis.min_k == 1 and earned == pytest.approx(analysis.best_return)
    with pytest.raises(ValueError, match="max_k is 31: give 1 to the horizon, 30"):
        lookahead_q(mdp, 31)
