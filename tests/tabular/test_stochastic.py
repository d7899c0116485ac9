"""Exact values of MDPs with random transitions against enumeration, deterministic planning and samples."""

import itertools

import numpy as np
import pytest

from rl_jax.tabular.mdp import TabularMDP
from rl_jax.tabular.planning import policy_return
from rl_jax.tabular.stochastic import (
    StochasticMDP,
    action_values,
    check_policy,
    policy_value,
    random_mdp,
    sample,
    state_visitations,
)

RNG = np.random.default_rng(0)


def enumerated(mdp, policy):
    """(probability, states, actions) of every trajectory."""
    states, actions = (range(size) for size in mdp.rewards.shape)
    for path in itertools.product(itertools.product(states, actions), repeat=mdp.horizon):
        chance = mdp.start[path[0][0]]
        for (state, action), after in itertools.zip_longest(path, (state for state, _ in path[1:])):
            chance *= policy[state, action] * (1.0 if after is None else mdp.transitions[state, action, after])
        yield chance, [state for state, _ in path], [action for _, action in path]


def test_values_and_visitations_are_those_of_all_trajectories():
    mdp = random_mdp(2, 2, horizon=3, seed=1)
    policy = RNG.dirichlet(np.ones(2), 2)
    total, visits, of_start = 0.0, np.zeros((3, 2)), np.zeros((2, 2))
    for chance, states, actions in enumerated(mdp, policy):
        earned = sum(0.9**t * mdp.rewards[s, a] for t, (s, a) in enumerate(zip(states, actions)))
        total += chance * earned
        of_start[states[0], actions[0]] += chance * earned / (mdp.start[states[0]] * policy[states[0], actions[0]])
        visits[np.arange(3), states] += chance
    assert policy_value(mdp, policy, 0.9) == pytest.approx(total, rel=1e-12)
    np.testing.assert_allclose(state_visitations(mdp, policy), visits, rtol=1e-12)
    np.testing.assert_allclose(action_values(mdp, policy, 0.9)[0], of_start, rtol=1e-12)


def test_deterministic_transitions_are_the_planners():
    following = np.array([[1, 2], [2, 0], [0, 1]])
    rewards = RNG.random((3, 2))
    policy = RNG.dirichlet(np.ones(2), 3)
    mdp = StochasticMDP(np.eye(3)[following], rewards, np.eye(3)[0], horizon=7)
    planned = policy_return(TabularMDP(following.astype(np.int32), rewards.astype(np.float32), 7), policy)
    assert policy_value(mdp, policy, 1.0) == pytest.approx(planned, rel=1e-6)


def test_samples_have_the_visitations_the_actions_and_the_value():
    mdp = random_mdp(4, 3, horizon=5, seed=2, noise=0.5)
    policy = RNG.dirichlet(np.ones(3), 4)
    drawn = sample(mdp, policy, 40_000, np.random.default_rng(3))
    visits = (drawn.states[:, :, None] == np.arange(4)).mean(0)
    np.testing.assert_allclose(visits, state_visitations(mdp, policy), atol=0.015)
    for state in range(4):
        chosen = drawn.actions[drawn.states == state]
        np.testing.assert_allclose(np.bincount(chosen, minlength=3) / len(chosen), policy[state], atol=0.015)
    noise = drawn.rewards - mdp.rewards[drawn.states, drawn.actions]
    assert noise.std() == pytest.approx(0.5, abs=0.01) and abs(noise.mean()) < 0.01
    found = (drawn.rewards * 0.9 ** np.arange(5)).sum(1).mean()
    assert found == pytest.approx(policy_value(mdp, policy, 0.9), abs=0.03)


@pytest.mark.parametrize("policy, message", [
    (np.full((2, 3), 1 / 3), r"policy has shape \(2, 3\): give \[3, 2\]"),
    (np.array([[0.5, 0.5], [0.5, 0.6], [1, 0]]), r"policy\[1\] is \[0.5, 0.6\]: probabilities"),
    (np.array([[0.5, 0.5], [1.5, -0.5], [1, 0]]), r"policy\[1\] is \[1.5, -0.5\]"),
])
def test_what_is_no_policy(policy, message):
    with pytest.raises(ValueError, match=message):
        check_policy(random_mdp(3, 2, 1, seed=0), policy)
