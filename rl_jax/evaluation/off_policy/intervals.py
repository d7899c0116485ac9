"""Confidence intervals of off-policy estimates, two-sided, of the numbers of trajectories.

Source: Thomas, Theocharous and Ghavamzadeh 2015, "High-Confidence Off-Policy Evaluation". Hoeffding's and the empirical
Bernstein bound hold for any distribution within a known range; Student's t and the bootstrap hold where n is large, and
too narrowly where few trajectories carry most of the weight.
"""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from scipy.stats import t as student

from rl_jax.evaluation.off_policy.estimators import Terms, contributions, ratio

RESAMPLES = 1000
MAX_NUMBERS = 4_000_000  # of products of resamples, trajectories and columns that are held at once


class Interval(NamedTuple):
    """Ends [...]."""

    low: np.ndarray
    high: np.ndarray


def student_t(terms: Terms, confidence: float = 0.95) -> Interval:
    """mean +- t s / sqrt(n), t the quantile (1 + confidence) / 2 of n - 1 degrees of freedom."""
    values = contributions(terms)
    count = _several(values)
    half = student.ppf(0.5 + 0.5 * confidence, count - 1) * values.std(-1, ddof=1) / np.sqrt(count)
    return Interval(values.mean(-1) - half, values.mean(-1) + half)


def hoeffding(terms: Terms, confidence: float = 0.95, value_range: float | np.ndarray | None = None) -> Interval:
    """mean +- R sqrt(log(2 / delta) / (2 n)).

    Args:
      value_range: R, the largest less the smallest number that a trajectory can give, [...]. The range of those at hand
        if None, with which this is a description of them and no bound.
    """
    values = contributions(terms)
    half = _range(values, value_range) * np.sqrt(np.log(2.0 / (1.0 - confidence)) / (2.0 * _several(values)))
    return Interval(values.mean(-1) - half, values.mean(-1) + half)


def empirical_bernstein(
    terms: Terms, confidence: float = 0.95, value_range: float | np.ndarray | None = None
) -> Interval:
    """mean +- [sqrt(2 s^2 log(4 / delta) / n) + 7 R log(4 / delta) / (3 (n - 1))]; `value_range` as of `hoeffding`.

    Source: Maurer and Pontil 2009, arXiv 0907.3740, theorem 4, at delta / 2 on each side.
    """
    values = contributions(terms)
    count, logarithm = _several(values), np.log(4.0 / (1.0 - confidence))
    half = np.sqrt(2.0 * values.var(-1, ddof=1) * logarithm / count)
    half = half + 7.0 * _range(values, value_range) * logarithm / (3.0 * (count - 1))
    return Interval(values.mean(-1) - half, values.mean(-1) + half)


def bootstrap(terms: Terms, confidence: float = 0.95, num_resamples: int = RESAMPLES, seed: int = 0) -> Interval:
    """Percentiles of the estimate on resampled trajectories; self-normalised weights are normalised anew in each."""
    count = _several(terms.base)
    rng, drawn = np.random.default_rng(seed), []
    columns = np.broadcast_shapes(terms.weights.shape, terms.x.shape)
    weighted = np.broadcast_to(terms.weights * terms.x, (*columns[:-2], count, columns[-1]))
    weights = np.broadcast_to(terms.weights, (*terms.weights.shape[:-2], count, terms.weights.shape[-1]))
    chunk = max(MAX_NUMBERS // max(count, int(np.prod(columns[:-2])) * columns[-1]), 1)
    for start in range(0, num_resamples, chunk):
        size = min(chunk, num_resamples - start)
        # A resample is a vector of counts: all resampled means are then one matrix product.
        shares = rng.multinomial(count, np.full(count, 1.0 / count), size=size) / count
        means = shares @ weighted
        if terms.normalised:
            means = ratio(means, shares @ weights)
        drawn.append((shares @ terms.base[..., None])[..., 0] + means.sum(-1))
    low, high = np.percentile(np.concatenate(drawn, -1), [50 - 50 * confidence, 50 + 50 * confidence], axis=-1)
    return Interval(low, high)


INTERVALS: dict[str, Callable[..., Interval]] = {
    "bootstrap": bootstrap, "student_t": student_t, "hoeffding": hoeffding, "bernstein": empirical_bernstein,
}


def _several(values: np.ndarray) -> int:
    """n, of which at least two make an interval."""
    if values.shape[-1] < 2:
        raise ValueError(f"an interval needs at least 2 trajectories, and there is {values.shape[-1]}")
    return values.shape[-1]


def _range(values: np.ndarray, value_range: float | np.ndarray | None) -> np.ndarray:
    if value_range is None:
        return values.max(-1) - values.min(-1)
    outside = (values.max(-1) - values.min(-1)) > np.asarray(value_range) * (1 + 1e-12)
    if outside.any():
        raise ValueError(f"value_range is {value_range}, and trajectories lie {np.ptp(values, -1).max():g} apart")
    return np.asarray(value_range, np.float64)
