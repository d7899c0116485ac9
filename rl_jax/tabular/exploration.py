"""MDPs that have to be explored: RiverSwim, DeepSea, linear MDPs, and tables as MDPs with random transitions.

Rewards lie in [0, 1] here, those of a table as they are.
"""

import numpy as np

from rl_jax.tabular.mdp import TERMINAL, TabularMDP
from rl_jax.tabular.stochastic import StochasticMDP


def riverswim(num_states: int, horizon: int) -> StochasticMDP:
    """A chain against whose current action 1 swims; 0.005 for staying at its start by action 0, 1 at its end.

    Strehl and Littman 2008; probabilities as Osband et al. 2013, arXiv 1306.0940. It starts at the start.

    Raises:
      ValueError: there are fewer than 3 states.
    """
    if num_states < 3:
        raise ValueError(f"config.mdp.states={num_states}: RiverSwim has 3 or more")
    transitions, rewards = np.zeros((num_states, 2, num_states)), np.zeros((num_states, 2))
    for state in range(num_states):
        transitions[state, 0, max(state - 1, 0)] = 1.0
        if 0 < state < num_states - 1:
            transitions[state, 1, state - 1 : state + 2] = 0.05, 0.6, 0.35
    transitions[0, 1, :2] = 0.4, 0.6
    transitions[-1, 1, -2:] = 0.4, 0.6
    rewards[0, 0], rewards[-1, 1] = 0.005, 1.0
    return StochasticMDP(transitions, rewards, one_hot(0, num_states), horizon)


def deep_sea(size: int) -> StochasticMDP:
    """A diver in a grid of size^2 falls a row a step: 1 for going right in every row; each right costs 0.01 / size.

    Osband et al. 2019, "Deep exploration via randomized value functions", deterministic; action 1 is right everywhere.
    """
    num_states = size * size
    transitions, rewards = np.zeros((num_states, 2, num_states)), np.zeros((num_states, 2))
    for row in range(size):
        for column in range(size):
            state, below = row * size + column, min(row + 1, size - 1) * size
            transitions[state, 0, below + max(column - 1, 0)] = 1.0
            transitions[state, 1, below + min(column + 1, size - 1)] = 1.0
            rewards[state, 1] = -0.01 / size
    rewards[-1, 1] += 1.0
    return StochasticMDP(transitions, rewards, one_hot(0, num_states), size)


def linear_mdp(
    num_states: int, num_actions: int, dimension: int, horizon: int, seed: int
) -> tuple[StochasticMDP, np.ndarray]:
    """(the MDP, its features [S, A, d]): P = phi . mu and r = phi . theta, with features on the simplex.

    Features and mu are uniform on their simplices, theta in [0, 1].
    """
    rng = np.random.default_rng(seed)
    features = rng.dirichlet(np.ones(dimension), (num_states, num_actions))
    transitions = features @ rng.dirichlet(np.ones(num_states), dimension)
    start = rng.dirichlet(np.ones(num_states))
    return StochasticMDP(transitions, features @ rng.random(dimension), start, horizon), features


def of_table(mdp: TabularMDP) -> StochasticMDP:
    """The same with the end of the episode as one more state, the last one, where nothing is earned."""
    num_states = mdp.num_states + 1
    following = np.where(mdp.transitions == TERMINAL, mdp.num_states, mdp.transitions)
    following = np.concatenate([following, np.full((1, mdp.num_actions), mdp.num_states)])
    rewards = np.concatenate([mdp.rewards, np.zeros((1, mdp.num_actions))]).astype(np.float64)
    return StochasticMDP(np.eye(num_states)[following], rewards, one_hot(0, num_states), mdp.horizon)


def one_hot(place: int, size: int) -> np.ndarray:
    """[size], 1 at the place."""
    return np.eye(size)[place]
