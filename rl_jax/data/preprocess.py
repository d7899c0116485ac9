"""Preprocessing that the papers of offline RL name: observation normalisation and reward scaling."""

import dataclasses

import numpy as np

from rl_jax.data.episodes import Episodes


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


def prepare_episodes(
    episodes: Episodes, *, top_fraction: float, normalize_observations: bool, scale_rewards: bool
) -> tuple[Episodes, np.ndarray, np.ndarray]:
    """A set as an agent's authors prepare it, with the mean and standard deviation [O] that its observations had.

    Args:
      top_fraction: keep the best episodes that hold this share of the steps (`Episodes.best_steps`); 1 keeps all.
      normalize_observations: standardise observations over what is kept; otherwise the statistics are 0 and 1.
      scale_rewards: scale rewards by the range of returns.
    """
    if top_fraction != 1.0:
        episodes = episodes.best_steps(top_fraction)
    size = episodes.observations.shape[1]
    mean, std = np.zeros(size, np.float32), np.ones(size, np.float32)
    if normalize_observations:
        mean, std = observation_statistics(episodes.observations)
        episodes = dataclasses.replace(
            episodes,
            observations=(episodes.observations - mean) / std,
            next_observations=(episodes.next_observations - mean) / std,
        )
    if scale_rewards:
        rewards = scale_rewards_by_return_range(episodes.rewards, *return_range(episodes))
        episodes = dataclasses.replace(episodes, rewards=rewards)
    return episodes, mean, std
