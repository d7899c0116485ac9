"""Clips without actions, and the numbers of the frames that learners of video draw: goals, intents, later frames."""

from typing import NamedTuple

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np

from rl_jax.core.program import Key
from rl_jax.data.episodes import Episodes


@flax.struct.dataclass
class Video:
    """N pairs of consecutive frames, clip after clip.

    Attributes:
      frames, next_frames: [N, ...].
      ends: int32 [N], the last pair of each pair's own clip.
    """

    frames: jax.Array | np.ndarray
    next_frames: jax.Array | np.ndarray
    ends: jax.Array | np.ndarray

    @classmethod
    def of(cls, episodes: Episodes) -> "Video":
        """What a camera sees of episodes: no actions, no rewards, and no terminals."""
        ends = np.repeat(episodes.starts + episodes.lengths - 1, episodes.lengths).astype(np.int32)
        return cls(episodes.observations, episodes.next_observations, ends)


class GoalShares(NamedTuple):
    """How goals are drawn: any frame, a later one of the same clip, or the current one, which add up to 1; and how
    often the outcome s+ is the intent z itself."""

    random: float = 0.3
    trajectory: float = 0.5
    current: float = 0.2
    same: float = 0.5


def sample_later(key: Key, rows: jax.Array, ends: jax.Array) -> jax.Array:
    """A row between each row and the end of its own clip, [B]: the mixture of the two by a uniform share, rounded."""
    share = jax.random.uniform(key, rows.shape)
    return rows + jnp.round(share * (ends[rows] - rows)).astype(rows.dtype)


def sample_goals(key: Key, rows: jax.Array, ends: jax.Array, shares: GoalShares) -> jax.Array:
    """Numbers of goals [B] for rows [B] of a video whose clips end in `ends` [N]. Source: ICVF's authors' code."""
    kind_key, random_key, later_key = jax.random.split(key, 3)
    kind = jax.random.uniform(kind_key, rows.shape)
    anywhere = jax.random.randint(random_key, rows.shape, 0, len(ends), rows.dtype)
    later = sample_later(later_key, rows, ends)
    moved = jnp.where(kind < shares.current + shares.trajectory, later, anywhere)
    return jnp.where(kind < shares.current, rows, moved)


def sample_outcomes_and_intents(
    key: Key, rows: jax.Array, ends: jax.Array, shares: GoalShares
) -> tuple[jax.Array, jax.Array]:
    """(rows of outcomes s+ [B], rows of intents z [B]), each drawn by `sample_goals`; s+ is z with the share `same`."""
    outcome_key, intent_key, same_key = jax.random.split(key, 3)
    outcomes, intents = (sample_goals(own, rows, ends, shares) for own in (outcome_key, intent_key))
    return jnp.where(jax.random.uniform(same_key, rows.shape) < shares.same, intents, outcomes), intents
