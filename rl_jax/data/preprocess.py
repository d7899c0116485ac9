"""Preprocessing that the papers of offline RL name: observation normalisation, reward scaling, action clipping."""

import numpy as np

from rl_jax.data.episodes import Episodes


def observation_statistics(observations: np.ndarray, eps: float = 1e-3) -> tuple[np.ndarray, np.ndarray]:
    """Mean and standard deviation plus `eps` of each observation component: two arrays [O] float32.

    Source: TD3+BC (Fujimoto and Gu 2021, arXiv 2106.06860), which adds eps = 1e-3 to the standard deviation.
    """
    mean = observations.mean(axis=0, dtype=np.float64)
    std = observations.std(axis=0, dtype=np.float64) + eps
    return mean.astype(np.float32), std.astype(np.float32)


def normalise_observations(observations, mean, std):
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


def clip_actions(actions: np.ndarray, eps: float = 1e-5) -> np.ndarray:
    """Clips actions to [-1 + eps, 1 - eps], inside the support of a squashed Gaussian: [N, A] float32."""
    return np.clip(actions, -1.0 + eps, 1.0 - eps).astype(np.float32)
