"""Preprocessing that the papers of offline RL name: observation normalisation and reward scaling."""

import numpy as np

from rl_jax.data.episodes import Episodes
from rl_jax.data.transitions import Transitions


def observation_statistics(observations: np.ndarray, eps: float = 1e-3) -> tuple[np.ndarray, np.ndarray]:
    """Mean and standard deviation plus `eps` of each observation component: two arrays [O] float32.

    Source: TD3+BC (Fujimoto and Gu 2021, arXiv 2106.06860), which adds eps = 1e-3 to the standard deviation.
    """
    mean = observations.mean(axis=0, dtype=np.float64)
    std = observations.std(axis=0, dtype=np.float64) + eps
    return mean.astype(np.float32), std.astype(np.float32)


def normalize_observations(observations, mean, std):
    """(observations - mean) / std, for numpy or JAX arrays [..., O]."""
    return (observations - mean) / std


def return_range(episodes: Episodes) -> tuple[float, float]:
    """Smallest and largest undiscounted return of the set's episodes."""
    returns = episodes.returns
    return float(returns.min()), float(returns.max())


def scale_rewards_by_return_range(
    rewards: np.ndarray, min_return: float, max_return: float, max_episode_steps: int = 1000
) -> np.ndarray:
    """rewards / (max_return - min_return) * max_episode_steps, [N] float32.

    Source: the authors' code of IQL (Kostrikov et al. 2021, arXiv 2110.06169) for the MuJoCo locomotion tasks.
    """
    if not max_return > min_return:
        raise ValueError(f"all episodes return {min_return}: rewards cannot be scaled by the range of returns")
    return (rewards * (max_episode_steps / (max_return - min_return))).astype(np.float32)


def prepare_transitions(
    episodes: Episodes, *, normalize_observations: bool, scale_rewards: bool
) -> tuple[Transitions, np.ndarray, np.ndarray]:
    """A set's transitions as an agent's authors prepare them, with the mean and standard deviation [O] that were used.

    Args:
      normalize_observations: standardise observations over the set; otherwise the statistics are 0 and 1.
      scale_rewards: scale rewards by the range of returns.
    """
    transitions = episodes.to_transitions()
    size = transitions.observations.shape[1]
    mean, std = np.zeros(size, np.float32), np.ones(size, np.float32)
    if normalize_observations:
        mean, std = observation_statistics(transitions.observations)
        transitions = transitions.replace(
            observations=(transitions.observations - mean) / std,
            next_observations=(transitions.next_observations - mean) / std,
        )
    if scale_rewards:
        rewards = scale_rewards_by_return_range(transitions.rewards, *return_range(episodes))
        transitions = transitions.replace(rewards=rewards)
    return transitions, mean, std
