"""How good estimates are for choosing among candidate policies, and what the choice risks.

Estimates [..., P] and true values [P] of P candidates; a portfolio is the k candidates of the largest estimates, the
earlier of equals, which a user would deploy one after another.

Source: Kiyohara et al. 2023, "Towards Assessing and Benchmarking Risk-Return Tradeoff of Off-Policy Evaluation", arXiv
2311.18207. Where a number is not defined it is NaN.
"""

from typing import NamedTuple

import numpy as np
from scipy.stats import rankdata

from rl_jax.evaluation.off_policy.estimators import ratio


class Portfolio(NamedTuple):
    """The true values of the top k, [..., P] each: entry k - 1 is of the k best.

    Attributes:
      best, worst, mean: of the k.
      std: over the k, with 1/k, as in the paper's formula; its code has 1/(k - 1).
      violations: the share that lies below the safety threshold; zeros without one.
    """

    best: np.ndarray
    worst: np.ndarray
    mean: np.ndarray
    std: np.ndarray
    violations: np.ndarray


def mean_squared_error(estimates: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """Over candidates, [...]."""
    return ((_matching(estimates, truth) - truth) ** 2).mean(-1)


def rank_correlation(estimates: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """Spearman's rho over candidates, [...], equals sharing a rank; NaN where all estimates or values are equal."""
    ranks = (rankdata(x, axis=-1) for x in (_matching(estimates, truth), truth))
    one, other = (x - x.mean(-1, keepdims=True) for x in ranks)
    scale = np.sqrt((one**2).sum(-1) * (other**2).sum(-1))
    return np.where(scale > 0, ratio((one * other).sum(-1), scale), np.nan)


def regret(estimates: np.ndarray, truth: np.ndarray, k: int = 1) -> np.ndarray:
    """How much the best of all candidates is better than the best of the top k, [...] at least 0."""
    _check_k(k, truth)
    return np.max(truth) - portfolio(estimates, truth).best[..., k - 1]


def error_rates(estimates: np.ndarray, truth: np.ndarray, threshold: float) -> tuple[np.ndarray, np.ndarray]:
    """Errors of the test of the hypothesis "the candidate is safe", which is that its value is at least the threshold.

    Returns:
      (type I, type II), [...] each: the share of the safe candidates that are estimated to be unsafe, and the share of
      the unsafe ones that are estimated to be safe. NaN where there is none.
    """
    safe, accepted = np.asarray(truth) >= threshold, _matching(estimates, truth) >= threshold
    with np.errstate(invalid="ignore"):
        refused = (safe & ~accepted).sum(-1) / np.float64(safe.sum())
        return refused, (~safe & accepted).sum(-1) / np.float64((~safe).sum())


def portfolio(estimates: np.ndarray, truth: np.ndarray, threshold: float = -np.inf) -> Portfolio:
    """What is deployed when the top k are, for k = 1 .. P."""
    order = np.argsort(-_matching(estimates, truth), axis=-1, kind="stable")
    values = np.asarray(truth, np.float64)[order]
    counts = np.arange(1, values.shape[-1] + 1)
    mean = np.cumsum(values, -1) / counts
    # Of deviations from the overall mean: squares of large values would cancel.
    centred = values - values.mean(-1, keepdims=True)
    variance = np.cumsum(centred**2, -1) / counts - (np.cumsum(centred, -1) / counts) ** 2
    return Portfolio(
        np.maximum.accumulate(values, -1), np.minimum.accumulate(values, -1), mean, np.sqrt(np.maximum(variance, 0.0)),
        np.cumsum(values < threshold, -1) / counts,
    )


def sharpe_ratio(estimates: np.ndarray, truth: np.ndarray, behaviour_value: float, k: int) -> np.ndarray:
    """SharpeRatio@k = (best@k - J(pi_b)) / std@k, [...]: what the best of the top k gains over the behaviour policy by
    the risk of deploying them.

    The paper counts the behaviour policy among the candidates; here it is one only where its estimate and value are
    given with theirs. NaN where the values of the top k are all equal, as for k = 1. The paper's code cuts negative
    ratios off at 0; here they stay.
    """
    _check_k(k, truth)
    found = portfolio(estimates, truth)
    gain, risk = found.best[..., k - 1] - behaviour_value, found.std[..., k - 1]
    risk = np.where(found.best[..., k - 1] > found.worst[..., k - 1], risk, 0.0)
    return np.where(risk > 0, ratio(gain, risk), np.nan)


def _matching(estimates: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """The estimates as float64.

    Raises:
      ValueError: they are not of the same candidates as the true values, or not finite.
    """
    estimates = np.asarray(estimates, np.float64)
    if np.ndim(truth) != 1 or estimates.shape[-1:] != np.shape(truth):
        shapes = f"estimates have shape {estimates.shape} and true values {np.shape(truth)}"
        raise ValueError(f"{shapes}: give [..., P] and [P], of P candidates")
    if not np.isfinite(estimates).all() or not np.isfinite(truth).all():
        raise ValueError("an estimate or a true value is not a finite number: leave such candidates out")
    return estimates


def _check_k(k: int, truth: np.ndarray) -> None:
    if not 1 <= k <= len(truth):
        raise ValueError(f"k is {k}: give 1 to {len(truth)}, the number of candidates")
