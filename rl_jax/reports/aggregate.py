"""Aggregates over training runs and tasks, with stratified-bootstrap intervals.

Agarwal, Schwarzer, Castro, Courville and Bellemare 2021, "Deep Reinforcement Learning at the Edge of the Statistical
Precipice", arXiv 2108.13264: the runs of each task are resampled apart (the strata). Values and intervals are those of
their library rliable, which resamples one at a time and draws from numpy's global generator; here all resamples are one
array, and the draws come from a seed.

A score is one number a run and task: [S, T] for S runs (seeds) of each of T tasks. The bootstrap describes the runs
that there are: with S runs its spread is too small by about sqrt((S - 1) / S), so three seeds give narrow intervals.
"""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike

CHUNK = 250  # resamples held at once


class Estimate(NamedTuple):
    """A statistic of the scores and its percentile bootstrap interval; floats, or arrays of one shape."""

    value: float | np.ndarray
    low: float | np.ndarray
    high: float | np.ndarray


def interquartile_mean(
    scores: ArrayLike, *, confidence: float = 0.95, repetitions: int = 2000, seed: int = 0
) -> Estimate:
    """Mean of the middle half of all S * T scores (section 4.3 of the paper).

    Args:
      scores: [S, T] finite, S >= 2.
      confidence: probability between the two ends of the interval.
      repetitions: bootstrap resamples.
      seed: of the resampling.

    Raises:
      ValueError: wrong rank, a single run, a score that is not finite (it is named), or a bad confidence.
    """
    return _estimate(_middle_half, [scores], confidence, repetitions, seed)


def interquartile_mean_difference(
    scores: ArrayLike, baseline: ArrayLike, *, confidence: float = 0.95, repetitions: int = 2000, seed: int = 0
) -> Estimate:
    """IQM of `scores` less IQM of `baseline`, both resampled.

    Args:
      scores: [S, T] finite, S >= 2.
      baseline: [S', T], of the same tasks in the same order.
      confidence, repetitions, seed: as in `interquartile_mean`.

    Raises:
      ValueError: as `interquartile_mean`, or other tasks.
    """
    return _estimate(
        lambda x, y: _middle_half(x) - _middle_half(y), [scores, baseline], confidence, repetitions, seed
    )


def probability_of_improvement(
    scores: ArrayLike, baseline: ArrayLike, *, confidence: float = 0.95, repetitions: int = 2000, seed: int = 0
) -> Estimate:
    """P(a run scores higher than a run of the baseline on the same task), averaged over tasks; a tie counts half.

    The Mann-Whitney statistic over the number of pairs (section 4.3 of the paper). 0.5 is no difference.

    Args:
      scores: [S, T] finite, S >= 2.
      baseline: [S', T], of the same tasks in the same order.
      confidence, repetitions, seed: as in `interquartile_mean`.

    Raises:
      ValueError: as `interquartile_mean`, or other tasks.
    """
    return _estimate(_win_rate, [scores, baseline], confidence, repetitions, seed)


def performance_profile(
    scores: ArrayLike, thresholds: ArrayLike, *, confidence: float = 0.95, repetitions: int = 2000, seed: int = 0
) -> Estimate:
    """Fraction of all runs and tasks that score above each threshold (section 4.2 of the paper).

    Args:
      scores: [S, T] finite, S >= 2.
      thresholds: [K].
      confidence, repetitions, seed: as in `interquartile_mean`.

    Returns:
      Arrays [K]; the interval is pointwise.

    Raises:
      ValueError: as `interquartile_mean`.
    """
    thresholds = np.asarray(thresholds, np.float64)

    def fractions_above(x: np.ndarray) -> np.ndarray:
        return (x[..., None] > thresholds).mean((-3, -2))

    return _estimate(fractions_above, [scores], confidence, repetitions, seed)


def _middle_half(x: np.ndarray) -> np.ndarray:
    """Mean of the middle half of the last two axes."""
    x = np.sort(x.reshape(*x.shape[:-2], -1), axis=-1)
    cut = x.shape[-1] // 4
    return x[..., cut : x.shape[-1] - cut].mean(-1)


def _win_rate(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Share of the pairs of runs [..., S, T] and [..., S', T] of one task that the first wins; a tie counts half."""
    difference = x[..., :, None, :] - y[..., None, :, :]
    return ((difference > 0) + 0.5 * (difference == 0)).mean((-3, -2, -1))


def _estimate(
    statistic: Callable[..., np.ndarray],
    samples: list[ArrayLike],
    confidence: float,
    repetitions: int,
    seed: int,
) -> Estimate:
    """A statistic of samples [S, T] with its interval; it takes any number of resamples at once, [..., S, T]."""
    samples = [_checked(x) for x in samples]
    if len({x.shape[1] for x in samples}) > 1:
        raise ValueError(f"scores and baseline are of {[x.shape[1] for x in samples]} tasks: they need the same ones")
    if not 0.0 < confidence < 1.0:
        raise ValueError(f"confidence must be between 0 and 1, not {confidence}")
    rng = np.random.default_rng(seed)
    # One resample after the other draws from the generator, so that their number does not change the first ones.
    rows = [[rng.integers(len(x), size=x.shape) for x in samples] for _ in range(repetitions)]
    values = np.concatenate([
        statistic(*(x[np.array(drawn), np.arange(x.shape[1])] for x, drawn in zip(samples, zip(*part), strict=True)))
        for part in (rows[start : start + CHUNK] for start in range(0, repetitions, CHUNK))
    ])
    tail = (1.0 - confidence) / 2.0
    low, high = np.quantile(values, [tail, 1.0 - tail], axis=0)
    value = statistic(*samples)
    if np.ndim(value) == 0:
        return Estimate(float(value), float(low), float(high))
    return Estimate(value, low, high)


def _checked(scores: ArrayLike) -> np.ndarray:
    scores = np.asarray(scores, np.float64)
    if scores.ndim != 2 or not scores.size:
        raise ValueError(f"scores need the shape (runs, tasks), not {scores.shape}")
    if len(scores) < 2:
        raise ValueError("an interval over runs needs at least 2 of them, got 1")
    if not np.isfinite(scores).all():
        run, task = np.argwhere(~np.isfinite(scores))[0].tolist()
        raise ValueError(f"the score of run {run} on task {task} is {scores[run, task]}, not finite")
    return scores
