"""Logged episodes side by side, padded to one length: what off-policy evaluation reads."""

import flax.struct
import jax
import numpy as np

from rl_jax.data.episodes import Episodes

LOG_PROB = "behaviour_log_prob"  # the further field of Episodes with log pi_b(a|s), [N]


@flax.struct.dataclass
class LoggedEpisodes:
    """n episodes of at most T steps; padding, which is zeros, follows the steps."""

    observations: jax.Array | np.ndarray  # [n, T + 1, O]: also what the last step led to
    actions: jax.Array | np.ndarray  # [n, T, A]
    rewards: jax.Array | np.ndarray  # [n, T]
    mask: jax.Array | np.ndarray  # [n, T], 1 for a step
    alive: jax.Array | np.ndarray  # [n, T], 1 for a step that led to no terminal
    behaviour_log_prob: jax.Array | np.ndarray  # [n, T], log pi_b(a|s)


def pad_episodes(episodes: Episodes, num_steps: int = 0) -> LoggedEpisodes:
    """Episodes with the extra LOG_PROB, as float32 host arrays; T is `num_steps`, or the longest episode's if that is
    more."""
    lengths = episodes.lengths
    mask = np.arange(max(lengths.max(), num_steps)) < lengths[:, None]

    def padded(array: np.ndarray) -> np.ndarray:
        found = np.zeros((*mask.shape, *array.shape[1:]), np.float32)
        found[mask] = array
        return found

    after, numbers = padded(episodes.next_observations), np.arange(len(lengths))
    observations = np.concatenate([padded(episodes.observations), np.zeros_like(after[:, :1])], 1)
    observations[numbers, lengths] = after[numbers, lengths - 1]
    return LoggedEpisodes(
        observations, padded(episodes.actions), padded(episodes.rewards), mask.astype(np.float32),
        padded(~episodes.terminated), padded(episodes.extras[LOG_PROB]),
    )
