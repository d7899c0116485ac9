"""The distribution of a policy's returns from trajectories of another one, and what a risk-averse user reads off it.

F(m) = Pr(G <= m) is estimated with the whole trajectory's weight W = w_0 ... w_{T-1}:

    TIS   (1/n) sum_i W_i 1[G_i <= m]
    TDR   (1/n) sum_i [W_i (1[G_i <= m] - F'(m; s_0, a_0)) + F'(m; s_0)]     with a model F'
    DM    (1/n) sum_i F'(m; s_0)

SNTIS and SNTDR divide W by its mean. Then F is made monotone and clipped to [0, 1].

Sources: Chandak et al. 2021, arXiv 2104.12820; Huang et al. 2021, arXiv 2104.08977; Huang et al. 2022 (TDR). A model is
given as atoms: returns that it expects, which may be one Q(s_0, a) an action, as in SCOPE-RL, or samples.
"""

from typing import NamedTuple

import numpy as np

from rl_jax.core.config import unknown
from rl_jax.evaluation.off_policy.estimators import ratio

DISTRIBUTIONS = {"cd_dm": "CD-DM", "cd_tis": "CD-TIS", "cd_tdr": "CD-TDR", "cd_sntis": "CD-SNTIS",
                 "cd_sntdr": "CD-SNTDR"}


class ReturnModel(NamedTuple):
    """What a model expects of the returns.

    Attributes:
      start: [..., n, K] atoms of F'(. ; s_0), with `start_probs` [..., n, K] that sum to 1 over K.
      taken: [..., n, L] equally likely atoms of F'(. ; s_0, a_0).
    """

    start: np.ndarray
    start_probs: np.ndarray
    taken: np.ndarray


class ReturnDistribution(NamedTuple):
    """A distribution function F at thresholds [M], rising; cdf [..., M] rising within [0, 1].

    The last value of a cdf may be less than 1, as of TIS. Quantiles beyond it are the largest threshold; mean and
    variance leave what is missing out.
    """

    thresholds: np.ndarray
    cdf: np.ndarray

    @property
    def masses(self) -> np.ndarray:
        """F(m_j) - F(m_{j-1}), [..., M]; the first is F(m_0)."""
        return np.diff(self.cdf, axis=-1, prepend=0.0)

    def mean(self) -> np.ndarray:
        """sum_j m_j dF_j, [...]."""
        return self.masses @ self.thresholds

    def variance(self) -> np.ndarray:
        """sum_j (m_j - mean)^2 dF_j, [...]."""
        return (self.masses * (self.thresholds - self.mean()[..., None]) ** 2).sum(-1)

    def quantile(self, level: float) -> np.ndarray:
        """The least threshold m with F(m) >= level, [...]; at level 0 the least with F(m) > 0."""
        there = self.cdf >= level - 1e-12 if level > 0 else self.cdf > 0
        return np.where(there.any(-1), self.thresholds[there.argmax(-1)], self.thresholds[-1])

    def below(self, level: float) -> np.ndarray:
        """The share of returns less than `level`, [...]."""
        return self.masses @ (self.thresholds < level)

    def interquartile(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """The quantiles 1/4, 1/2 and 3/4."""
        return self.quantile(0.25), self.quantile(0.5), self.quantile(0.75)

    def cvar(self, level: float) -> np.ndarray:
        """The mean of the worst share `level` of returns, [...]: 1 / level times the integral of the quantile up to it.

        At 1 it is the mean, at 0 the worst return.
        """
        if not 0.0 <= level <= 1.0:
            raise ValueError(f"level is {level}: give a share of the returns, from 0 to 1")
        if level == 0.0:
            return self.quantile(0.0)
        below = np.diff(np.minimum(self.cdf, level), axis=-1, prepend=0.0)
        missing = np.maximum(level - self.cdf[..., -1], 0.0)
        return (below @ self.thresholds + missing * self.thresholds[-1]) / level


def return_distribution(
    name: str, returns: np.ndarray, weights: np.ndarray, *, model: ReturnModel | None = None,
    thresholds: np.ndarray | None = None,
) -> ReturnDistribution:
    """The estimate of the distribution of returns.

    Args:
      name: of DISTRIBUTIONS.
      returns: G, [n], discounted or not.
      weights: W, [..., n]: the last column of `importance_weights("trajectory", ...)`.
      model: what DM and TDR need.
      thresholds: [M] rising; all numbers at which F can jump if None.

    Raises:
      ValueError: the name is unknown, or it needs a model.
    """
    if name not in DISTRIBUTIONS:
        raise ValueError(unknown("estimator of the distribution", name, DISTRIBUTIONS))
    if model is None and name in ("cd_dm", "cd_tdr", "cd_sntdr"):
        raise ValueError(f"{name} needs a model of the returns")
    uses_model, corrected = name in ("cd_dm", "cd_tdr", "cd_sntdr"), name != "cd_dm"
    if thresholds is None:
        jumps = [returns] if corrected else []
        if uses_model:
            jumps += [model.start, model.taken] if corrected else [model.start]
        thresholds = np.unique(np.concatenate([np.ravel(x) for x in jumps]))
    total = np.zeros((*weights.shape[:-1], len(thresholds)))
    count = returns.shape[-1]
    if corrected:
        shares = ratio(weights, weights.sum(-1, keepdims=True)) if "sn" in name else weights / count
        total = total + _sums(returns[:, None], shares[..., None], thresholds)
        if uses_model:
            total = total - _sums(model.taken, shares[..., None] / model.taken.shape[-1], thresholds)
    if uses_model:
        total = total + _sums(model.start, model.start_probs / count, thresholds)
    return ReturnDistribution(thresholds, np.clip(np.maximum.accumulate(total, -1), 0.0, 1.0))


def resampled(
    name: str, returns: np.ndarray, weights: np.ndarray, num_resamples: int = 200, seed: int = 0
) -> ReturnDistribution:
    """TIS or SNTIS on resampled trajectories: percentiles of what is read off them are intervals.

    Args:
      returns, weights: [n] each.

    Returns:
      A cdf [num_resamples, M] at all thresholds at which F can jump.
    """
    count = len(returns)
    drawn = np.random.default_rng(seed).multinomial(count, np.full(count, 1.0 / count), size=num_resamples)
    return return_distribution(name, returns, drawn * weights)


def _sums(atoms: np.ndarray, weights: np.ndarray, thresholds: np.ndarray) -> np.ndarray:
    """Of the weights whose atom is at most each threshold, [..., M]; atoms and weights [..., n, K]."""
    atoms, weights = (x.reshape(*x.shape[:-2], -1) for x in np.broadcast_arrays(atoms, weights))
    order = np.argsort(atoms, -1, kind="stable")
    summed = np.cumsum(np.take_along_axis(weights, order, -1), -1)
    summed = np.concatenate([np.zeros_like(summed[..., :1]), summed], -1)
    rows = np.take_along_axis(atoms, order, -1).reshape(-1, atoms.shape[-1])
    places = np.stack([np.searchsorted(row, thresholds, side="right") for row in rows])
    return np.take_along_axis(summed, places.reshape(*summed.shape[:-1], -1), -1)
