"""Segments: stretches of steps that people compare, their scores, and the samplers that draw batches of comparisons.

The steps lie flat, as in `Episodes`, and a segment is where it starts and how long it is, so that segments may overlap.
Learners of preferences read `Comparisons`; what they compare by is a score a segment, of which the larger is preferred.
"""

from collections.abc import Callable

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np

from rl_jax.core.config import unknown
from rl_jax.data.episodes import Episodes
from rl_jax.data.transitions import Transitions
from rl_jax.losses.preference import preference_labels

PAIRINGS = ("rank", "comparison", "score")


@flax.struct.dataclass
class Segments:
    """M segments of at most K steps each, of one episode, among N steps; host arrays or on the devices."""

    steps: Transitions  # [N, ...]
    starts: jax.Array | np.ndarray  # [M] int32
    lengths: jax.Array | np.ndarray  # [M] int32, in [1, K]
    scores: jax.Array | np.ndarray  # [M] float32

    def __len__(self) -> int:
        return self.starts.shape[0]


@flax.struct.dataclass
class Comparisons:
    """P comparisons of B segments: the batch that a learner of preferences reads."""

    steps: Transitions  # [B, K, ...]; padding, which stands behind the steps, is zeros
    mask: jax.Array  # [B, K], 1 for a step and 0 for padding
    first: jax.Array  # [P] or [B, B - 1] int32: which of the B segments
    second: jax.Array  # of the same shape
    labels: jax.Array  # of the same shape, float32: 1 where the second is preferred, 0 the first, 0.5 for a tie


def cut(episodes: Episodes, length: int, count: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """(starts, lengths) of `count` segments, [M] int32 each: a uniform episode, then a uniform start in it.

    An episode that is shorter than `length` is one whole segment.

    Raises:
      ValueError: the length or the count is below 1.
    """
    if min(length, count) < 1:
        raise ValueError(f"segments: {count} of {length} steps asked for, both must be at least 1")
    episode = rng.integers(0, episodes.num_episodes, count)
    lengths = np.minimum(episodes.lengths[episode], length)
    starts = episodes.starts[episode] + rng.integers(0, episodes.lengths[episode] - lengths + 1)
    return starts.astype(np.int32), lengths.astype(np.int32)


def return_scores(episodes: Episodes, starts: np.ndarray, lengths: np.ndarray) -> np.ndarray:
    """The sum of a segment's rewards, [M] float64, of segments `starts` and `lengths` [M]."""
    sums = np.concatenate([[0.0], np.cumsum(episodes.rewards, dtype=np.float64)])
    return sums[starts + lengths] - sums[starts]


def regret_scores(
    episodes: Episodes, starts: np.ndarray, lengths: np.ndarray, values: np.ndarray, next_values: np.ndarray
) -> np.ndarray:
    """sum r + V(s_T) - V(s_0), the negative regret of a segment, [M] float64; V is 0 behind a terminal step.

    Args:
      starts, lengths: [M].
      values, next_values: V at the observation of each segment's first step, and behind its last one, [M]: those of
        the optimal policy, undiscounted. A time-out has a value behind it.

    Source: Knox et al. 2022, arXiv 2206.02231, equation 3; "rl_sum" of CPL's authors' code, whose "dis_sum" is not a
    segment's.
    """
    goes_on = ~episodes.terminated[starts + lengths - 1]
    return return_scores(episodes, starts, lengths) + goes_on * next_values - values


def to_segments(episodes: Episodes, starts: np.ndarray, lengths: np.ndarray, scores: np.ndarray) -> Segments:
    """The segments as a learner reads them, their actions inside the box by 1e-5 (CPL's authors' code).

    Raises:
      ValueError: a segment reaches over its episode's end, or a score is not a number.
    """
    ends = np.append(episodes.starts[1:], len(episodes))
    end = ends[np.searchsorted(episodes.starts, starts, side="right") - 1]
    if (lengths < 1).any() or (starts + lengths > end).any():
        bad = int(np.argmax((lengths < 1) | (starts + lengths > end)))
        raise ValueError(
            f"segment {bad} is of {lengths[bad]} steps from step {starts[bad]}, and its episode ends at step {end[bad]}"
        )
    if not np.isfinite(scores).all():
        raise ValueError(f"the score of segment {int(np.argmin(np.isfinite(scores)))} is not a finite number")
    steps = episodes.to_transitions()
    steps = steps.replace(actions=np.clip(steps.actions, -1.0 + 1e-5, 1.0 - 1e-5).astype(np.float32))
    return Segments(steps, starts.astype(np.int32), lengths.astype(np.int32), scores.astype(np.float32))


def best_segments(segments: Segments, fraction: float) -> Segments:
    """The segments of the highest scores, this share of them and at least one, in order.

    Raises:
      ValueError: the fraction is not in (0, 1].
    """
    if not 0.0 < fraction <= 1.0:
        raise ValueError(f"fraction is {fraction}: it must lie in (0, 1]")
    count = max(int(fraction * len(segments)), 1)
    chosen = np.sort(np.argsort(-segments.scores, kind="stable")[:count])
    return segments.replace(
        starts=segments.starts[chosen], lengths=segments.lengths[chosen], scores=segments.scores[chosen]
    )


def segments_at(segments: Segments, chosen: jax.Array, length: int) -> tuple[Transitions, jax.Array]:
    """The steps [B, K, ...] of the segments with the numbers `chosen` [B], K = `length`, and their mask [B, K]."""
    ahead = jnp.arange(length, dtype=jnp.int32)
    inside = ahead < segments.lengths[chosen][:, None]
    rows = jnp.where(inside, segments.starts[chosen][:, None] + ahead, 0)

    def read(field: jax.Array) -> jax.Array:
        taken = field[rows]
        return taken * inside.reshape(*inside.shape, *[1] * (taken.ndim - 2)).astype(taken.dtype)

    return jax.tree.map(read, jax.tree.map(jnp.asarray, segments.steps)), inside.astype(jnp.float32)


def draw_comparisons(
    length: int, pairing: str, temperature: float = 0.0
) -> Callable[[Segments, jax.Array, int], Comparisons]:
    """The sampler (segments, key, batch size) -> Comparisons; pure, to be called inside jit.

    Args:
      length: K.
      pairing: "rank": P = batch size pairs of two segments drawn by themselves; "comparison": P pairs of the M / 2 that
        segment i and segment M / 2 + i are, so that nothing else is known of the scores; "score": all pairs of as many
        segments as the batch size, in both orders, which changes no mean. The names are CPL's authors' code's.
      temperature: of the labels, see `preference_labels`.

    Raises:
      ValueError: there is no such pairing.
    """
    if pairing not in PAIRINGS:
        raise ValueError(unknown("way to pair segments in config.dataset.pairing", pairing, PAIRINGS))

    def draw(segments: Segments, key: jax.Array, batch_size: int) -> Comparisons:
        segments = jax.tree.map(jnp.asarray, segments)
        if pairing == "score":
            chosen = jax.random.randint(key, (batch_size,), 0, len(segments))
            shift, first = jnp.meshgrid(jnp.arange(1, batch_size), jnp.arange(batch_size))
            second = (first + shift) % batch_size
        else:
            both = pairing == "comparison"
            sides = jax.random.randint(key, (2, batch_size), 0, len(segments) // 2 if both else len(segments))
            chosen = jnp.concatenate([sides[0], sides[0] + len(segments) // 2] if both else [sides[0], sides[1]])
            first = jnp.arange(batch_size)
            second = first + batch_size
        steps, mask = segments_at(segments, chosen, length)
        scores = segments.scores[chosen]
        labels = preference_labels(scores[first], scores[second], temperature)
        return Comparisons(steps, mask, first, second, labels)

    return draw
