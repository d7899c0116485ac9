"""Bootstrap intervals of means over training runs and episodes (Efron & Tibshirani, 1993, chapters 8 and 13)."""

import numpy as np
from numpy.typing import ArrayLike

MAX_DRAWS = 4_000_000  # random indices held at once


def bootstrap_interval(
    values: ArrayLike, confidence: float = 0.95, num_resamples: int = 10_000, seed: int = 0
) -> tuple[np.ndarray, np.ndarray]:
    """Percentile bootstrap interval of the mean over the leading axis.

    The same resamples of the S rows serve every column, so that a curve's band is one set of resampled curves. With
    few rows the interval is too narrow, by about sqrt((S - 1) / S): it is a description of the rows that there are.

    Args:
      values: [S, ...] finite, one row for each independent run; S >= 2.
      confidence: probability between the two ends.
      num_resamples: bootstrap resamples.
      seed: of the resampling.

    Returns:
      low [...], high [...], float64.

    Raises:
      ValueError: fewer than 2 rows, values that are not finite, or a confidence outside (0, 1).
    """
    values = _finite(values, "values")
    if values.ndim < 1 or len(values) < 2:
        raise ValueError(f"a bootstrap over runs needs at least 2 of them, got values of shape {values.shape}")
    rng = np.random.default_rng(seed)
    # A resample is a vector of counts: the resampled means are then one matrix product.
    counts = rng.multinomial(len(values), np.full(len(values), 1.0 / len(values)), size=num_resamples)
    means = counts @ values.reshape(len(values), -1) / len(values)
    low, high = _percentiles(means, confidence)
    return low.reshape(values.shape[1:]), high.reshape(values.shape[1:])


def mean_difference_interval(
    scores: ArrayLike, baseline: ArrayLike, confidence: float = 0.95, num_resamples: int = 10_000, seed: int = 0
) -> tuple[float, float]:
    """Percentile bootstrap interval of mean(scores) - mean(baseline), with the runs' own variation in it.

    Hierarchical: each resample draws S runs with replacement, then E episodes with replacement within each drawn run,
    then N baseline episodes; its value is the mean over the drawn runs and episodes less the mean of the drawn
    baseline. An interval above 0 says that another set of runs and episodes would very likely beat the baseline too.
    With S = 1 the interval speaks of that one run alone.

    Args:
      scores: [S, E] finite: E episodes of each of S independently trained runs.
      baseline: [N] finite: episodes of the policy to beat, such as the behaviour policy of a data set.
      confidence: probability between the two ends.
      num_resamples: bootstrap resamples.
      seed: of the resampling.

    Returns:
      low, high.

    Raises:
      ValueError: wrong ranks, empty arrays, values that are not finite, or a confidence outside (0, 1).
    """
    scores, baseline = _finite(scores, "scores"), _finite(baseline, "baseline")
    if scores.ndim != 2 or baseline.ndim != 1 or not scores.size or not baseline.size:
        raise ValueError(f"need scores [S, E] and baseline [N], got shapes {scores.shape} and {baseline.shape}")
    rng = np.random.default_rng(seed)
    (num_seeds, num_episodes), num_baseline = scores.shape, len(baseline)
    chunk = max(MAX_DRAWS // (scores.size + num_baseline), 1)
    differences = []
    for start in range(0, num_resamples, chunk):
        size = min(chunk, num_resamples - start)
        seeds = rng.integers(num_seeds, size=(size, num_seeds, 1))
        episodes = rng.integers(num_episodes, size=(size, num_seeds, num_episodes))
        others = rng.integers(num_baseline, size=(size, num_baseline))
        differences.append(scores[seeds, episodes].mean((1, 2)) - baseline[others].mean(1))
    low, high = _percentiles(np.concatenate(differences), confidence)
    return float(low), float(high)


def _finite(values: ArrayLike, name: str) -> np.ndarray:
    values = np.asarray(values, np.float64)
    if not np.isfinite(values).all():
        raise ValueError(f"{name}{np.argwhere(~np.isfinite(values))[0].tolist()} is not finite")
    return values


def _percentiles(samples: np.ndarray, confidence: float) -> tuple[np.ndarray, np.ndarray]:
    if not 0.0 < confidence < 1.0:
        raise ValueError(f"confidence must be between 0 and 1, not {confidence}")
    tail = (1.0 - confidence) / 2.0
    low, high = np.quantile(samples, [tail, 1.0 - tail], axis=0)
    return low, high
