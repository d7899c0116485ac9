"""Successor measures of finite MDPs, and the forward-backward representation that is exact there; float64.

    M^pi(s, a, s') = sum_t gamma^t P(s_{t+1} = s' | s_0 = s, a_0 = a, pi),   D = S,  B(s') = e_{s'} / rho(s'),
    F(s, a, z) = M^{pi_z}(s, a, .),  so that F' B = M / rho, F' z = Q of the reward z, and pi_z is optimal for it.

Source: Touati and Ollivier 2021, arXiv 2103.07945, sections 2 and 3.
"""

from typing import NamedTuple

import numpy as np


class Chain(NamedTuple):
    """A finite MDP of S states and A actions without end.

    Attributes:
      transitions: int [S, A], the state that follows.
      discount: gamma.
    """

    transitions: np.ndarray
    discount: float

    @property
    def visits(self) -> np.ndarray:
        """rho [S], how often each state follows a state and action that are drawn uniformly."""
        count = self.transitions.shape[0]
        return np.bincount(self.transitions.ravel(), minlength=count) / self.transitions.size


def successor_measure(chain: Chain, policy: np.ndarray) -> np.ndarray:
    """M [S, A, S] of a policy [S], an action a state, by one linear system: M = P + gamma P M_pi."""
    count, gamma = chain.transitions.shape[0], chain.discount
    step = np.eye(count)[chain.transitions]  # P [S, A, S]
    own = np.eye(count)[chain.transitions[np.arange(count), policy]]  # P_pi [S, S]
    following = np.linalg.solve(np.eye(count) - gamma * own, np.eye(count))  # sum_t gamma^t P_pi^t
    return step @ following


def backward(chain: Chain) -> np.ndarray:
    """B [S, D] = e_s / rho(s).

    Raises:
      ValueError: a state never follows, so that rho has no density there.
    """
    visits = chain.visits
    if not visits.all():
        raise ValueError(f"state {int(np.argmin(visits))} is never reached: B is e / rho, and rho is 0 there")
    return np.diag(1.0 / visits)


def forward(chain: Chain, latent: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(F(., ., z) [S, A, D], pi_z [S]) by policy iteration on Q = F' z, from the lowest action everywhere."""
    policy = np.zeros(chain.transitions.shape[0], int)
    while True:
        measure = successor_measure(chain, policy)
        values = measure @ latent
        best = values.argmax(1)
        now = values[np.arange(len(policy)), policy]
        better = values.max(1) > now + 1e-10 * (1.0 + np.abs(now))
        if not better.any():
            return measure, policy
        policy = np.where(better, best, policy)


def values_of(chain: Chain, policy: np.ndarray, rewards: np.ndarray) -> np.ndarray:
    """V [S] of a policy [S], or of one [S, A] by probabilities, for rewards [S] of the states that follow."""
    probabilities = np.eye(chain.transitions.shape[1])[policy] if policy.ndim == 1 else policy
    own = np.einsum("sa,sat->st", probabilities, np.eye(len(rewards))[chain.transitions])
    return np.linalg.solve(np.eye(len(rewards)) - chain.discount * own, own @ rewards)


def optimal_values(chain: Chain, rewards: np.ndarray, tolerance: float = 1e-13) -> np.ndarray:
    """V* [S] by value iteration, which shares nothing with `forward`."""
    values = np.zeros(len(rewards))
    while True:
        new = (rewards + chain.discount * values)[chain.transitions].max(1)
        if np.abs(new - values).max() <= tolerance * (1.0 + np.abs(new).max()):
            return new
        values = new


def occupancy(chain: Chain, policy: np.ndarray, start: int) -> np.ndarray:
    """(1 - gamma) sum_t gamma^t P(s_{t+1} = .), [S], of a policy [S, A] from one state; it sums to 1."""
    count = chain.transitions.shape[0]
    own = np.einsum("sa,sat->st", policy, np.eye(count)[chain.transitions])
    return (1.0 - chain.discount) * (own @ np.linalg.inv(np.eye(count) - chain.discount * own))[start]
