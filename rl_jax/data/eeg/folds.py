"""One fold of a study: which windows may be learnt from, and what was fitted to them before anything learns.

A window is a piece of a trial; places of windows in a trial are the same for all. What is fitted, filters and scales,
weighs trials by an array, so that what a protocol lets leak is in that array and not in a second code path.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from rl_jax.data.eeg.spatial import csp

PROTOCOLS = ("runs", "csp", "windows")


class Layout(NamedTuple):
    """Where windows lie in a trial, in samples: `starts` [W], each `length` long."""

    starts: tuple[int, ...]
    length: int


class Fold(NamedTuple):
    """What one learner sees; leaves are arrays.

    Attributes:
      signals: [N, T, bands, C].
      labels: int32 [N].
      learnt: [N, W], 1 where a window may be learnt from.
      filters: [bands, K, C].
      mean, std: [bands * K], of the filtered signals that may be learnt from.
    """

    signals: jax.Array
    labels: jax.Array
    learnt: jax.Array
    filters: jax.Array
    mean: jax.Array
    std: jax.Array


def layout(samples: int, rate: int, length: float, hop: float) -> Layout:
    """Windows of `length` seconds every `hop` seconds, as many as fit a trial.

    Raises:
      ValueError: the window is longer than a trial, or either is below one sample.
    """
    size, step = round(length * rate), round(hop * rate)
    if size > samples or min(size, step) < 1:
        raise ValueError(f"config.window: {length} s every {hop} s does not fit trials of {samples / rate:g} s")
    return Layout(tuple(range(0, samples - size + 1, step)), size)


def splits(protocol: str, folds: np.ndarray, num_windows: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """(what is learnt from [F, N, W], the weights of trials for CSP [F, N]) of each fold.

    "runs" is fair: whole runs are tested. "csp" splits the same way and fits the filters to all trials. "windows" puts
    windows on either side at random, so that those of one trial, which overlap, are on both; its filters see each trial
    by the share of its windows that are learnt.

    Args:
      folds: [N], the fold that tests a trial.

    Raises:
      ValueError: there is no such protocol.
    """
    if protocol not in PROTOCOLS:
        raise ValueError(f"config.data.protocol={protocol!r}: choose one of {', '.join(PROTOCOLS)}")
    count, shape = folds.max() + 1, (len(folds), num_windows)
    tested = np.broadcast_to(folds[:, None], shape)
    if protocol == "windows":
        tested = (np.random.default_rng(seed).permutation(tested.size) % count).reshape(shape)
    learnt = (tested != np.arange(count)[:, None, None]).astype(np.float32)
    return learnt, np.ones_like(learnt[..., 0]) if protocol == "csp" else learnt.mean(-1)


def fit(
    signals: jax.Array, covariance: jax.Array, labels: jax.Array, learnt: jax.Array, weights: jax.Array,
    num_classes: int, pairs: int, shrinkage: float,
) -> Fold:
    """Fits CSP to the trials by their weights, and the scales to those that are learnt from; pure.

    Args:
      covariance: [N, bands, C, C] of the trials.
      learnt: [N, W].
      weights: [N].
    """
    of_bands = jax.vmap(csp, (1, None, None, None, None, None))
    filters = of_bands(covariance, labels, weights, num_classes, pairs, shrinkage)
    components = _filtered(signals, filters)
    share = jnp.mean(learnt, 1) / jnp.sum(jnp.mean(learnt, 1)) / signals.shape[1]
    mean = jnp.einsum("n,ntk->k", share, components)
    std = jnp.sqrt(jnp.einsum("n,ntk->k", share, (components - mean) ** 2))
    return Fold(signals, labels, learnt, filters, mean, std)


def observe(fold: Fold, layout: Layout, trials: jax.Array, windows: jax.Array) -> jax.Array:
    """The filtered, scaled signals of windows, [B, length, bands * K]: time is kept.

    Args:
      trials, windows: int [B], which window of which trial.
    """
    starts = jnp.asarray(layout.starts)[windows]

    def cut(trial: jax.Array, start: jax.Array) -> jax.Array:
        size = (1, layout.length, *fold.signals.shape[2:])
        return jax.lax.dynamic_slice(fold.signals, (trial, start, 0, 0), size)[0]

    return (_filtered(jax.vmap(cut)(trials, starts), fold.filters) - fold.mean) / fold.std


def _filtered(signals: jax.Array, filters: jax.Array) -> jax.Array:
    """[N, T, bands * K] of signals [N, T, bands, C] and filters [bands, K, C]."""
    return jnp.einsum("ntbc,bkc->ntbk", signals, filters).reshape(*signals.shape[:2], -1)


def log_variances(fold: Fold, layout: Layout, trials: jax.Array, windows: jax.Array) -> jax.Array:
    """CSP's usual features, the logarithms of the variances over each window [B, bands * K]."""
    return jnp.log(jnp.var(observe(fold, layout, trials, windows), 1))
