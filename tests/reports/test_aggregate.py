"""Aggregates by hand, against SciPy, against a bootstrap written out in loops, and against rliable's own functions."""

import numpy as np
import pytest
import scipy.stats
from rliable import library, metrics

from rl_jax.reports.aggregate import (
    interquartile_mean,
    interquartile_mean_difference,
    performance_profile,
    probability_of_improvement,
)
from rl_jax.reports.statistics import bootstrap_interval

STATISTICS = [
    interquartile_mean,
    lambda x, **k: interquartile_mean_difference(x, x[::-1] - 1, **k),
    lambda x, **k: probability_of_improvement(x, x[::-1] - 1, **k),
    lambda x, **k: performance_profile(x, [48.0, 50.0, 53.0], **k),
]


def scores(num_seeds=5, num_tasks=3, seed=0):
    rng = np.random.default_rng(seed)
    return rng.normal(50, 5, size=(num_seeds, num_tasks)) + np.arange(num_tasks) * 3


def plain_bootstrap(statistic, *samples, repetitions=2500):
    """Percentiles of `statistic` when the runs of every task of every sample are drawn again, written out."""
    rng = np.random.default_rng(17)
    values = []
    for _ in range(repetitions):
        drawn = []
        for sample in samples:
            again = np.empty_like(sample)
            for task in range(sample.shape[1]):
                for run in range(len(sample)):
                    again[run, task] = sample[rng.integers(len(sample)), task]
            drawn.append(again)
        values.append(statistic(*drawn))
    return np.percentile(values, [2.5, 97.5])


def middle_half(x):
    x = np.sort(x.ravel())
    cut = len(x) // 4
    return x[cut : len(x) - cut].mean()


def wins(x, y):
    return np.mean([
        np.mean([[1.0 if a > b else 0.5 if a == b else 0.0 for b in y[:, task]] for a in x[:, task]])
        for task in range(x.shape[1])
    ])


def test_interquartile_mean_by_hand_and_by_scipy():
    # Sorted 1 2 3 4 5 7 8 60: the middle half is 3 4 5 7.
    assert interquartile_mean([[1, 2], [3, 4], [5, 60], [7, 8]]).value == 4.75
    x = scores()
    assert interquartile_mean(x).value == pytest.approx(scipy.stats.trim_mean(x, 0.25, axis=None), rel=1e-14)


def test_probability_of_improvement_by_hand():
    # Task 1: of the pairs (1, 0) (1, 2) (3, 0) (3, 2) three are won; task 2: two ties count half each, two are lost.
    estimate = probability_of_improvement([[1, 5], [3, 5]], [[0, 5], [2, 9]])
    assert estimate.value == pytest.approx((3 / 4 + 1 / 4) / 2)


def test_probability_of_improvement_is_the_mann_whitney_statistic():
    x, y = np.round(scores(6, 4, seed=1)), np.round(scores(5, 4, seed=2))
    u = [scipy.stats.mannwhitneyu(x[:, task], y[:, task]).statistic / 30 for task in range(4)]
    ours = probability_of_improvement(x, y).value
    assert ours == pytest.approx(np.mean(u), rel=1e-12)
    assert ours == pytest.approx(metrics.probability_of_improvement(x, y), rel=1e-12)


def test_profile_by_hand_and_by_rliable():
    x = np.array([[1.0, 2.0], [3.0, 4.0]])
    thresholds = [0.0, 1.0, 2.5, 4.0]
    estimate = performance_profile(x, thresholds)
    np.testing.assert_array_equal(estimate.value, [1.0, 0.75, 0.5, 0.0])
    np.testing.assert_allclose(estimate.value, library.score_distributions(x, np.array(thresholds)))
    # Above 1.0 of the first task lies one run of two, and so none, one or two of a resample with probability 1/4, 1/2,
    # 1/4; of the second task both. Above 2.5 lies one of two in each task: none at all with probability 1/16.
    np.testing.assert_array_equal(estimate.low, [1.0, 0.5, 0.0, 0.0])
    np.testing.assert_array_equal(estimate.high, [1.0, 1.0, 1.0, 0.0])


@pytest.mark.parametrize(
    "ours, statistic",
    [
        (interquartile_mean, middle_half),
        (interquartile_mean_difference, lambda x, y: middle_half(x) - middle_half(y)),
        (probability_of_improvement, wins),
    ],
    ids=["iqm", "difference", "improvement"],
)
def test_interval_is_that_of_a_bootstrap_written_out(ours, statistic):
    samples = [scores()] if ours is interquartile_mean else [scores(), scores(4, seed=3)]
    estimate = ours(*samples, repetitions=4000)
    assert estimate.value == pytest.approx(statistic(*samples), rel=1e-12)
    low, high = plain_bootstrap(statistic, *samples)
    np.testing.assert_allclose([estimate.low, estimate.high], [low, high], atol=0.05 * (high - low))


def test_interval_is_rliables(monkeypatch):
    x = scores(6, 3, seed=4)
    # rliable draws from numpy's global generator: here from one that is made for this test.
    monkeypatch.setattr("numpy.random.choice", np.random.default_rng(5).choice)
    _, theirs = library.get_interval_estimates(
        {"x": x}, lambda scores: np.array([metrics.aggregate_iqm(scores)]), reps=4000
    )
    ours = interquartile_mean(x, repetitions=8000)
    np.testing.assert_allclose([ours.low, ours.high], theirs["x"].ravel(), atol=0.06 * (ours.high - ours.low))


def test_interval_of_three_runs_of_one_task_is_the_interval_of_their_mean():
    # Nothing is trimmed from three scores, so that the IQM is the mean.
    x = np.array([[41.0], [44.0], [52.0]])
    estimate = interquartile_mean(x, repetitions=4000)
    low, high = bootstrap_interval(x[:, 0])
    assert estimate.value == pytest.approx(x.mean())
    np.testing.assert_allclose([estimate.low, estimate.high], [low, high], atol=1e-9)


def test_tasks_are_strata():
    # Each task is certain, so the aggregate is; a bootstrap over all scores alike would spread from 0 to 100.
    estimate = interquartile_mean([[0.0, 100.0]] * 4)
    assert estimate == (50.0, 50.0, 50.0)


@pytest.mark.parametrize("statistic", STATISTICS, ids=["iqm", "difference", "improvement", "profile"])
def test_the_seed_alone_decides(statistic, monkeypatch):
    def forbidden(*args, **kwargs):
        raise AssertionError("numpy's global generator")

    for name in ("choice", "randint", "random"):
        monkeypatch.setattr(f"numpy.random.{name}", forbidden)
    x = scores(7, 3)
    first, again, other = (statistic(x, repetitions=60, seed=seed) for seed in (1, 1, 2))
    np.testing.assert_array_equal(np.array(first), np.array(again))
    assert not np.array_equal(np.array(first), np.array(other))
    narrow, wide = (statistic(x, confidence=level, seed=1) for level in (0.5, 0.99))
    assert np.all(np.subtract(wide.high, wide.low) > np.subtract(narrow.high, narrow.low))


@pytest.mark.parametrize(
    "call, message",
    [
        (lambda: interquartile_mean([[1.0, 2.0]]), "at least 2"),
        (lambda: interquartile_mean([1.0, 2.0]), r"shape \(runs, tasks\)"),
        (lambda: interquartile_mean([[1.0, 2.0], [3.0, np.nan]]), "run 1 on task 1 is nan"),
        (lambda: interquartile_mean([[1.0], [2.0]], confidence=95), "confidence"),
        (lambda: probability_of_improvement([[1.0], [2.0]], [[1.0, 2.0], [1.0, 2.0]]), r"of \[1, 2\] tasks"),
        (lambda: interquartile_mean_difference([[1.0], [2.0]], [[np.inf], [1.0]]), "run 0 on task 0 is inf"),
        (lambda: performance_profile(np.zeros((2, 0)), [1.0]), "shape"),
    ],
)
def test_bad_scores_are_named(call, message):
    with pytest.raises(ValueError, match=message):
        call()
