"""Importance ratios of deterministic policies over continuous actions, by kernels.

A deterministic policy has no density. Its ratio is taken of a kernel about its action, K((a - pi(s)) / h) / (h^d
pi_b(a|s)): a bandwidth h trades bias against variance (Kallus and Zhou 2018, arXiv 1802.06037). K is a product over the
d dimensions of a density of mean 0, so that it integrates to 1 in any dimension.
"""

import numpy as np

from rl_jax.core.config import unknown

# Densities of one dimension at u = (a - pi(s)) / h.
KERNELS = {
    "gaussian": lambda u: np.exp(-0.5 * u**2) / np.sqrt(2.0 * np.pi),
    "epanechnikov": lambda u: 0.75 * np.maximum(1.0 - u**2, 0.0),
    "triangular": lambda u: np.maximum(1.0 - np.abs(u), 0.0),
    "cosine": lambda u: np.where(np.abs(u) < 1.0, np.pi / 4.0 * np.cos(0.5 * np.pi * u), 0.0),
    "uniform": lambda u: np.where(np.abs(u) < 1.0, 0.5, 0.0),
}


def kernel_log_ratios(
    actions: np.ndarray, policy_actions: np.ndarray, behaviour_log_prob: np.ndarray, *, kernel: str, bandwidth: float
) -> np.ndarray:
    """Logarithms of kernel ratios, [..., n, T]; minus infinity where the kernel does not reach.

    Args:
      actions: [n, T, A], what was done.
      policy_actions: [..., n, T, A], what the policy does there.
      behaviour_log_prob: [n, T], log density of what was done.
      kernel: a name of KERNELS.
      bandwidth: h above 0, in units of the actions.

    Raises:
      ValueError: there is no such kernel, or the bandwidth is not positive.
    """
    if kernel not in KERNELS:
        raise ValueError(unknown("kernel", kernel, KERNELS))
    if not bandwidth > 0:
        raise ValueError(f"bandwidth is {bandwidth}: give a number above 0")
    u = (np.asarray(actions, np.float64) - np.asarray(policy_actions, np.float64)) / bandwidth
    if kernel == "gaussian":  # its logarithm reaches further than float64's exp
        log_density = -0.5 * u**2 - 0.5 * np.log(2.0 * np.pi)
    else:
        with np.errstate(divide="ignore"):
            log_density = np.log(KERNELS[kernel](u))
    return (log_density - np.log(bandwidth)).sum(-1) - np.asarray(behaviour_log_prob, np.float64)
