"""Estimators of J(pi) = E sum_t gamma^t r_t from n trajectories of a behaviour policy pi_b.

All are one of two forms, with w_t = pi(a_t|s_t) / pi_b(a_t|s_t) and weights W that differ:

    importance sampling   sum_t gamma^t W_t r_t
    doubly robust         V(s_0) + sum_t gamma^t W_t (r_t + gamma V(s_{t+1}) - Q(s_t, a_t))

    trajectory            W_t = w_0 ... w_{T-1}                        TIS
    per decision          W_t = w_0 ... w_t                            PDIS, DR
    state                 W_t = rho(s_{t-k}) w_{t-k} ... w_t           SM
    state and action      W_t = rho(s_{t-k}, a_{t-k}) w_{t-k+1} ... w_t    SAM, DRL; with k > 0 SOPE

rho is the ratio of the visitations of pi and pi_b. The doubly robust form is the one of Jiang and Li, sum_t gamma^t
[W_t (r_t - Q_t) + W_{t-1} V(s_t)] with W_{-1} = 1, summed by parts. Self-normalised weights (SN) are divided by their
mean over trajectories at the same t.

Sources: Precup et al. 2000 (PDIS); Jiang and Li 2016, arXiv 1511.03722 (DR); Thomas and Brunskill 2016, arXiv
1604.00923; Liu et al. 2018, arXiv 1810.12429 (SM); Uehara et al. 2020, arXiv 1910.12809 (SAM); Kallus and Uehara 2020,
arXiv 1908.08526 (DRL); Yuan et al. 2021, arXiv 2111.03936 (SOPE); the set and its names, SCOPE-RL (arXiv 2311.18206).

Everything is float64 on the host. Arrays are [..., n, T]: leading axes are policies, seeds or repetitions, and axes
that an array lacks are broadcast. An episode that ends before T is padded: it stays where it is, r = Q = V = 0, and its
product of ratios stays what it was, so that means over trajectories count it.
"""

from typing import NamedTuple

import numpy as np

from rl_jax.core.config import unknown


class Estimator(NamedTuple):
    """How one estimator is made.

    Attributes:
      label: what tables call it.
      weights: "trajectory", "per_decision", "state", "state_action", or "" for the direct method.
      values: whether it uses Q and V.
      normalised: whether its weights are divided by their means.
      crossfit: whether its Q, V and rho must not have learnt from the trajectories that they are used on.
    """

    label: str
    weights: str
    values: bool
    normalised: bool = False
    crossfit: bool = False


ESTIMATORS = {
    "dm": Estimator("DM", "", True),
    "tis": Estimator("TIS", "trajectory", False),
    "pdis": Estimator("PDIS", "per_decision", False),
    "dr": Estimator("DR", "per_decision", True),
    "sntis": Estimator("SNTIS", "trajectory", False, True),
    "snpdis": Estimator("SNPDIS", "per_decision", False, True),
    "sndr": Estimator("SNDR", "per_decision", True, True),
    "sm_is": Estimator("SM-IS", "state", False),
    "sm_dr": Estimator("SM-DR", "state", True),
    "sm_snis": Estimator("SM-SNIS", "state", False, True),
    "sm_sndr": Estimator("SM-SNDR", "state", True, True),
    "sam_is": Estimator("SAM-IS", "state_action", False),
    "sam_dr": Estimator("SAM-DR", "state_action", True),
    "sam_snis": Estimator("SAM-SNIS", "state_action", False, True),
    "sam_sndr": Estimator("SAM-SNDR", "state_action", True, True),
    "drl": Estimator("DRL", "state_action", True, crossfit=True),
}


class Logged(NamedTuple):
    """What was logged and what models say of it, made by `logged`; arrays [..., n, T] float64.

    Attributes:
      mask: 1 for a step and 0 for padding, which follows the steps.
      rewards: r_t.
      log_ratios: log pi(a_t|s_t) - log pi_b(a_t|s_t); minus infinity where pi never does it.
      q, v, next_v: Q(s_t, a_t), V(s_t) and V(s_{t+1}) of a model.
      state_weights, state_action_weights: rho(s_t), rho(s_t, a_t). Those of padding count where means are taken.
      crossfit: whether q, v and rho come from `folds`, each model without the trajectories that it is used on.
    """

    mask: np.ndarray
    rewards: np.ndarray
    log_ratios: np.ndarray | None = None
    q: np.ndarray | None = None
    v: np.ndarray | None = None
    next_v: np.ndarray | None = None
    state_weights: np.ndarray | None = None
    state_action_weights: np.ndarray | None = None
    crossfit: bool = False


class Terms(NamedTuple):
    """An estimator as sums over trajectories: mean_i base_i + sum_c mean_i(W_ic x_ic) [/ mean_i W_ic].

    Attributes:
      base: [..., n].
      weights, x: [..., n, C], or [..., n, 1] where all columns have one weight.
      normalised: whether the quotient is taken.
    """

    base: np.ndarray
    weights: np.ndarray
    x: np.ndarray
    normalised: bool


def logged(
    rewards: np.ndarray, log_ratios: np.ndarray | None = None, *, mask: np.ndarray | None = None,
    q: np.ndarray | None = None, v: np.ndarray | None = None, next_v: np.ndarray | None = None,
    state_weights: np.ndarray | None = None, state_action_weights: np.ndarray | None = None, crossfit: bool = False,
) -> Logged:
    """Checked arrays, with zeros where there is padding.

    Args:
      mask: every step counts if None.
      next_v: V(s_{t+1}). If None it is v one step later and 0 after the last step: what is evaluated then ends there,
        by a terminal or by a horizon T that is part of the problem. Where a time-out only cuts what is logged, give it.

    Raises:
      ValueError: shapes that do not broadcast, steps after padding, numbers that are not finite; naming the array.
    """
    given = {
        "rewards": rewards, "log_ratios": log_ratios, "q": q, "v": v, "next_v": next_v, "state_weights": state_weights,
        "state_action_weights": state_action_weights,
    }
    arrays = {name: np.asarray(array, np.float64) for name, array in given.items() if array is not None}
    shape = arrays["rewards"].shape[-2:]
    mask = np.ones(shape) if mask is None else np.asarray(mask, np.float64)
    if len(shape) != 2 or 0 in shape:
        raise ValueError(f"rewards has shape {np.shape(rewards)}: give [..., trajectories, steps], one of each or more")
    if mask.shape[-2:] != shape or not np.isin(mask, (0.0, 1.0)).all() or (np.diff(mask, axis=-1) > 0).any():
        raise ValueError(f"mask has shape {mask.shape}: give {shape}, 1 for every step and then 0 for padding")
    for name, array in arrays.items():
        if array.shape[-2:] != shape:
            raise ValueError(f"{name} has shape {array.shape}: give {shape}, trajectories and steps, as of rewards")
        bad = ~np.isfinite(array) & ((mask > 0) | name.endswith("weights"))
        if name == "log_ratios":
            bad &= ~np.isneginf(array)
        if bad.any():
            place = tuple(int(i) for i in np.argwhere(bad)[0])
            raise ValueError(f"{name}{list(place)} is {np.broadcast_to(array, bad.shape)[place]}: give finite numbers")
        if not name.endswith("weights"):
            arrays[name] = np.where(mask > 0, array, 0.0)
    if "v" in arrays and "next_v" not in arrays:
        arrays["next_v"] = np.concatenate([arrays["v"][..., 1:], np.zeros_like(arrays["v"][..., :1])], -1)
    return Logged(mask, crossfit=crossfit, **arrays)


def available(data: Logged) -> tuple[str, ...]:
    """The names in ESTIMATORS that the data have everything for."""
    return tuple(name for name in ESTIMATORS if not _lacking(name, data))


def estimate(name: str, data: Logged, discount: float, **options: float | int | None) -> np.ndarray:
    """J of an estimator of ESTIMATORS, [...] float64; `options` are those of `terms`."""
    return value(terms(name, data, discount, **options))


def terms(
    name: str, data: Logged, discount: float, *, num_ratios: int = 0, max_weight: float | None = None
) -> Terms:
    """An estimator on the data.

    Args:
      num_ratios: k of the SM and SAM families; SOPE is their form with k > 0.
      max_weight: a cap on W, which makes the estimate biased; None for none.

    Raises:
      ValueError: the name is unknown, the data lack what it needs, or weights overflow.
    """
    if lacking := _lacking(name, data):
        raise ValueError(f"{name} needs {' and '.join(lacking)}")
    how, discounts = ESTIMATORS[name], discount ** np.arange(data.rewards.shape[-1])
    if not how.weights:
        return Terms(data.v[..., 0], np.zeros((1, 1)), np.zeros((1, 1)), False)
    weights = importance_weights(how.weights, data, num_ratios)
    if max_weight is not None:
        weights = np.minimum(weights, max_weight)
    if how.values:
        errors = data.rewards + discount * data.next_v - data.q
        return Terms(data.v[..., 0], weights, discounts * errors, how.normalised)
    x = discounts * data.rewards
    if how.weights == "trajectory":  # one weight for the whole return
        weights, x = weights[..., -1:], x.sum(-1, keepdims=True)
    return Terms(np.zeros(x.shape[:-1]), weights, x, how.normalised)


def importance_weights(kind: str, data: Logged, num_ratios: int = 0) -> np.ndarray:
    """W, [..., n, T]; arguments as of `terms`.

    Raises:
      ValueError: a weight is larger than float64 holds.
    """
    if kind in ("trajectory", "per_decision"):
        log_weights = np.cumsum(data.log_ratios, -1)
    else:
        marginal = data.state_weights if kind == "state" else data.state_action_weights
        steps = data.rewards.shape[-1]
        # The product of the last ratios as a difference of sums would be inf - inf where pi never does an action.
        log_weights = sum(
            (_later(data.log_ratios, back) for back in range(num_ratios + (kind == "state"))), np.zeros((1, 1))
        )
        first = np.concatenate([np.ones_like(marginal[..., :num_ratios]), marginal], -1)[..., :steps]
    with np.errstate(over="ignore"):
        weights = np.exp(log_weights)
    if not np.isfinite(weights).all():
        raise ValueError(
            f"a product of ratios is exp({log_weights.max():.0f}), more than float64 holds: the policies are too far "
            "apart for it; use shorter trajectories or an estimator with marginal weights"
        )
    return weights if kind in ("trajectory", "per_decision") else weights * first


def value(terms: Terms) -> np.ndarray:
    """The estimate, [...]."""
    means = (terms.weights * terms.x).mean(-2)
    if terms.normalised:
        means = ratio(means, terms.weights.mean(-2))
    return terms.base.mean(-1) + means.sum(-1)


def contributions(terms: Terms) -> np.ndarray:
    """One number a trajectory, [..., n], whose mean is the estimate and whose variance over n is the estimate's.

    Of self-normalised estimators it is the value of the linearised quotient (the delta method), mean_c + W (x - mean_c)
    / mean W: numbers W x / mean W would not count that the mean of W varies too.
    """
    parts = terms.weights * terms.x
    if terms.normalised:
        total = terms.weights.mean(-2, keepdims=True)
        centre = ratio(parts.mean(-2, keepdims=True), total)
        parts = centre + ratio(terms.weights * (terms.x - centre), total)
    return terms.base + parts.sum(-1)


def ratio(numerator: np.ndarray, denominator: np.ndarray) -> np.ndarray:
    """The quotient, and 0 where the denominator is 0: where all weights vanish there is nothing to average."""
    numerator, denominator = np.broadcast_arrays(numerator, denominator)
    return np.divide(numerator, denominator, out=np.zeros(numerator.shape), where=denominator != 0)


def folds(num_trajectories: int, num_folds: int, seed: int = 0) -> np.ndarray:
    """The fold of each trajectory, [n] int64 in [0, num_folds), of sizes that differ by at most one: models for the
    trajectories of a fold learn from those of the others.

    Raises:
      ValueError: fewer than two folds, or more than trajectories.
    """
    if not 2 <= num_folds <= num_trajectories:
        raise ValueError(f"num_folds is {num_folds}: give 2 to {num_trajectories}, the number of trajectories")
    return np.random.default_rng(seed).permutation(num_trajectories) % num_folds


def _later(array: np.ndarray, steps: int) -> np.ndarray:
    """array_{t - steps}, and 0 before the beginning."""
    return array if steps == 0 else np.concatenate([np.zeros_like(array[..., :steps]), array[..., :-steps]], -1)


def _lacking(name: str, data: Logged) -> list[str]:
    """What an estimator needs and the data do not have."""
    if name not in ESTIMATORS:
        raise ValueError(unknown("estimator", name, ESTIMATORS))
    how = ESTIMATORS[name]
    wanted = {
        "log_ratios": how.weights not in ("", "state_action"), "q": how.values and bool(how.weights), "v": how.values,
        "state_weights": how.weights == "state", "state_action_weights": how.weights == "state_action",
    }
    lacking = [field for field, needed in wanted.items() if needed and getattr(data, field) is None]
    return lacking + ["models that are cross-fitted (folds)"] * (how.crossfit and not data.crossfit)
