"""Every sequence of a small vocabulary: exact probabilities, normalisers, entropies and divergences, in float64.

The ground truth of what trains on samples. A sequence is a fixed number of tokens after one given token.
"""

import itertools
from collections.abc import Mapping

import numpy as np
from scipy.special import logsumexp, xlogy

MAX_SEQUENCES = 100_000


def all_sequences(vocab_size: int, length: int) -> np.ndarray:
    """All V^L sequences, [V^L, L] int32, in lexicographic order.

    Raises:
      ValueError: there are more than MAX_SEQUENCES.
    """
    if vocab_size**length > MAX_SEQUENCES:
        raise ValueError(
            f"{vocab_size}^{length} sequences are more than {MAX_SEQUENCES:,}, too many to list: take a smaller "
            "vocabulary or shorter sequences, or judge by samples"
        )
    return np.array(list(itertools.product(range(vocab_size), repeat=length)), np.int32)


def target(log_prior: np.ndarray, potential: np.ndarray) -> tuple[np.ndarray, float]:
    """(log p [N], log Z) of p(x) = pi0(x) exp(potential(x)) / Z over all N sequences; a potential may be -inf.

    Raises:
      ValueError: no sequence has a positive probability.
    """
    log_unnormalised = np.asarray(log_prior, np.float64) + potential
    log_z = float(logsumexp(log_unnormalised))
    if not np.isfinite(log_z):
        raise ValueError("the target gives no sequence a positive probability")
    return log_unnormalised - log_z, log_z


def entropy(log_p: np.ndarray) -> float:
    """In nats."""
    p = np.exp(log_p)
    return float(-xlogy(p, p).sum())


def kl(log_p: np.ndarray, log_q: np.ndarray) -> float:
    """KL(p || q) in nats; infinite where p is positive and q is 0."""
    support = log_p > -np.inf
    return float(np.sum(np.exp(log_p[support]) * (log_p[support] - log_q[support])))


def total_variation(log_p: np.ndarray, log_q: np.ndarray) -> float:
    """Half the sum of |p - q|, between 0 and 1."""
    return float(0.5 * np.abs(np.exp(log_p) - np.exp(log_q)).sum())


def jensen_shannon(log_p: np.ndarray, log_q: np.ndarray) -> float:
    """The mean of both KL divergences from the mixture, in nats, between 0 and log 2."""
    mixture = np.logaddexp(log_p, log_q) - np.log(2.0)
    return 0.5 * (kl(log_p, mixture) + kl(log_q, mixture))


def judgement(log_pi: np.ndarray, log_prior: np.ndarray, potential: np.ndarray) -> Mapping[str, float]:
    """How far a policy is from the target pi0 exp(potential) / Z, all exact.

    Args:
      log_pi, log_prior: [N] over all sequences.
      potential: [N], r / beta; -inf where a sequence is ruled out.

    Returns:
      entropies (of the policy, `prior_` and `target_`), divergences of the policy from the target, KL(pi || pi0), the
      sum of pi (`mass`), and, where nothing is ruled out, `reverse_kl`, KL(pi || p), and `identity_gap`, the absolute
      difference of log Z - J and KL(pi || p) with J = E_pi[potential] - KL(pi || pi0), which is 0 for every policy
      (Korbak, Perez and Buckley 2022, divided by beta).
    """
    log_pi, log_prior = np.asarray(log_pi, np.float64), np.asarray(log_prior, np.float64)
    log_p, log_z = target(log_prior, potential)
    found = {
        "entropy": entropy(log_pi), "prior_entropy": entropy(log_prior), "target_entropy": entropy(log_p),
        "kl": kl(log_p, log_pi), "total_variation": total_variation(log_pi, log_p),
        "jensen_shannon": jensen_shannon(log_pi, log_p), "kl_from_prior": kl(log_pi, log_prior),
        "mass": float(np.exp(log_pi).sum()),
    }
    if np.all(np.isfinite(potential)):
        objective = float(np.exp(log_pi) @ potential) - found["kl_from_prior"]
        found["reverse_kl"] = kl(log_pi, log_p)
        found["identity_gap"] = abs(log_z - objective - found["reverse_kl"])
    return found
