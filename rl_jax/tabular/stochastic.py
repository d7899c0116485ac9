"""Finite-horizon MDPs with random transitions: exact values and visitations of a policy, and sampled trajectories.

The ground truth of off-policy evaluation. Float64 on the host, dense: for some thousand states at most. Values depend
on the time, of which T steps are left at the start, and nothing is earned after them.
"""

from typing import NamedTuple

import numpy as np


class StochasticMDP(NamedTuple):
    """S states, A actions, T steps an episode.

    Attributes:
      transitions: [S, A, S], rows sum to 1.
      rewards: [S, A], the mean of what is earned.
      start: [S], the distribution of the first state.
      horizon: T.
      noise: standard deviation of a reward about its mean.
    """

    transitions: np.ndarray
    rewards: np.ndarray
    start: np.ndarray
    horizon: int
    noise: float = 0.0


class Sampled(NamedTuple):
    """n trajectories: states [n, T] and actions [n, T] int64, rewards [n, T] float64."""

    states: np.ndarray
    actions: np.ndarray
    rewards: np.ndarray


def random_mdp(num_states: int, num_actions: int, horizon: int, seed: int, noise: float = 0.0) -> StochasticMDP:
    """Transitions and starts uniform on their simplices, mean rewards uniform in [0, 1]."""
    rng = np.random.default_rng(seed)
    return StochasticMDP(
        rng.dirichlet(np.ones(num_states), (num_states, num_actions)), rng.random((num_states, num_actions)),
        rng.dirichlet(np.ones(num_states)), horizon, noise,
    )


def check_policy(mdp: StochasticMDP, policy: np.ndarray) -> np.ndarray:
    """The policy [S, A] as float64.

    Raises:
      ValueError: another shape, negative probabilities, or rows that do not sum to 1; the message names the state.
    """
    policy = np.asarray(policy, np.float64)
    if policy.shape != mdp.rewards.shape:
        raise ValueError(f"policy has shape {policy.shape}: give {list(mdp.rewards.shape)}, states and actions")
    bad = ~(np.abs(policy.sum(-1) - 1.0) <= 1e-8) | (policy < 0).any(-1)
    if bad.any():
        state = int(np.argmax(bad))
        raise ValueError(f"policy[{state}] is {policy[state].tolist()}: probabilities are not negative and sum to 1")
    return policy


def action_values(mdp: StochasticMDP, policy: np.ndarray, discount: float) -> np.ndarray:
    """Q_t(s, a) of a policy [S, A], [T, S, A]."""
    policy, q = check_policy(mdp, policy), np.zeros((mdp.horizon, *mdp.rewards.shape))
    after = np.zeros(len(mdp.start))
    for time in reversed(range(mdp.horizon)):
        q[time] = mdp.rewards + discount * mdp.transitions @ after
        after = (policy * q[time]).sum(-1)
    return q


def policy_value(mdp: StochasticMDP, policy: np.ndarray, discount: float) -> float:
    """J = E sum_t discount^t r_t of a policy [S, A]."""
    return float(mdp.start @ (policy * action_values(mdp, policy, discount)[0]).sum(-1))


def best_value(mdp: StochasticMDP) -> float:
    """max J over all policies, undiscounted: value iteration over the steps."""
    value = np.zeros(len(mdp.start))
    for _ in range(mdp.horizon):
        value = (mdp.rewards + mdp.transitions @ value).max(-1)
    return float(mdp.start @ value)


def state_visitations(mdp: StochasticMDP, policy: np.ndarray) -> np.ndarray:
    """Pr(s_t = s) of a policy [S, A], [T, S]."""
    policy, found = check_policy(mdp, policy), [mdp.start]
    moves = np.einsum("sa,sax->sx", policy, mdp.transitions)
    for _ in range(mdp.horizon - 1):
        found.append(found[-1] @ moves)
    return np.stack(found)


def sample(mdp: StochasticMDP, policy: np.ndarray, count: int, rng: np.random.Generator) -> Sampled:
    """Trajectories of a policy [S, A]."""
    policy = check_policy(mdp, policy)
    states = np.empty((count, mdp.horizon), np.int64)
    actions = np.empty_like(states)
    after, moves = _draw(np.cumsum(mdp.start)[None], count, rng), np.cumsum(mdp.transitions, -1)
    chances = np.cumsum(policy, -1)
    for time in range(mdp.horizon):
        states[:, time] = after
        actions[:, time] = _draw(chances[after], count, rng)
        after = _draw(moves[after, actions[:, time]], count, rng)
    rewards = mdp.rewards[states, actions]
    return Sampled(states, actions, rewards + mdp.noise * rng.normal(size=rewards.shape) if mdp.noise else rewards)


def _draw(cumulative: np.ndarray, count: int, rng: np.random.Generator) -> np.ndarray:
    """A number of each row's distribution, [count], of cumulative probabilities [count or 1, K]."""
    # The last sum may be a rounding below 1.
    return (rng.random((count, 1)) > cumulative[:, :-1]).sum(-1)
