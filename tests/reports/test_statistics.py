"""Bootstrap intervals against closed forms, SciPy, and their own promise of coverage."""

import numpy as np
import pytest
import scipy.stats

from rl_jax.reports.statistics import bootstrap_interval, mean_difference_interval


def test_interval_of_normal_data_is_the_normal_interval():
    values = np.random.default_rng(0).normal(5.0, 2.0, size=400)
    low, high = bootstrap_interval(values)
    half = 1.959964 * values.std() / np.sqrt(400)
    np.testing.assert_allclose([low, high], [values.mean() - half, values.mean() + half], atol=0.04 * half)


@pytest.mark.parametrize("num_runs", [3, 10])
@pytest.mark.parametrize("confidence", [0.95, 0.8])
def test_interval_equals_scipy(num_runs, confidence):
    values = np.random.default_rng(1).gamma(2.0, size=num_runs)
    ours = bootstrap_interval(values, confidence, num_resamples=50_000)
    theirs = scipy.stats.bootstrap(
        (values,),
        np.mean,
        confidence_level=confidence,
        n_resamples=50_000,
        method="percentile",
        rng=np.random.default_rng(3),
    ).confidence_interval
    np.testing.assert_allclose(ours, theirs, atol=0.02 * np.ptp(values))


def test_columns_are_independent_of_each_other():
    values = np.random.default_rng(2).normal(size=(5, 3, 2))
    low, high = bootstrap_interval(values, seed=4)
    assert low.shape == high.shape == (3, 2) and (low < high).all()
    alone = bootstrap_interval(values[:, 1, 0], seed=4)
    np.testing.assert_allclose(alone, (low[1, 0], high[1, 0]), rtol=1e-12)


def test_two_runs_by_hand():
    # The mean of two draws from {0, 1} is 0, 1/2, 1 with probabilities 1/4, 1/2, 1/4.
    assert [float(x) for x in bootstrap_interval([0.0, 1.0], confidence=0.8)] == [0.0, 1.0]
    assert [float(x) for x in bootstrap_interval([0.0, 1.0], confidence=0.4)] == [0.5, 0.5]


def test_difference_has_the_variance_of_both_levels():
    rng = np.random.default_rng(3)
    scores = rng.normal(60.0, 5.0, size=(12, 1)) + rng.normal(0.0, 10.0, size=(12, 20))
    baseline = rng.normal(40.0, 8.0, size=50)
    low, high = mean_difference_interval(scores, baseline)
    # Var of the mean of 12 drawn runs, each the mean of 20 drawn episodes, and of the mean of 50 drawn episodes.
    variance = (scores.mean(1).var() + scores.var(1).mean() / 20) / 12 + baseline.var() / 50
    half = 1.959964 * np.sqrt(variance)
    difference = scores.mean() - baseline.mean()
    np.testing.assert_allclose([low, high], [difference - half, difference + half], atol=0.06 * half)


def test_one_run_is_the_two_sample_bootstrap_of_scipy():
    rng = np.random.default_rng(4)
    run, baseline = rng.gamma(3.0, size=15), rng.gamma(2.0, size=25)
    ours = mean_difference_interval(run[None], baseline, num_resamples=40_000)
    theirs = scipy.stats.bootstrap(
        (run, baseline),
        lambda x, y, axis: x.mean(axis) - y.mean(axis),
        n_resamples=40_000,
        method="percentile",
        rng=np.random.default_rng(5),
    ).confidence_interval
    np.testing.assert_allclose(ours, theirs, atol=0.03)


def test_difference_covers_the_truth_as_often_as_it_says():
    rng = np.random.default_rng(5)
    hits, trials = 0, 300
    for trial in range(trials):
        scores = rng.normal(3.0, 1.0, size=(10, 1)) + rng.normal(0.0, 2.0, size=(10, 10))
        baseline = rng.normal(1.0, 2.0, size=30)
        low, high = mean_difference_interval(scores, baseline, num_resamples=300, seed=trial)
        hits += low <= 2.0 <= high
    # 95% wanted; three standard errors are 3.8%.
    assert 0.90 <= hits / trials <= 0.99


def test_chunks_cover_all_resamples(monkeypatch):
    monkeypatch.setattr("rl_jax.reports.statistics.MAX_DRAWS", 1000)
    scores, baseline = np.arange(40.0).reshape(4, 10), np.arange(10.0)
    low, high = mean_difference_interval(scores, baseline, num_resamples=2500)
    assert low < scores.mean() - baseline.mean() < high


def test_bad_input_is_named():
    with pytest.raises(ValueError, match="at least 2"):
        bootstrap_interval([1.0])
    with pytest.raises(ValueError, match=r"values\[1, 0\] is not finite"):
        bootstrap_interval([[1.0], [np.nan]])
    with pytest.raises(ValueError, match="confidence"):
        bootstrap_interval([1.0, 2.0], confidence=95)
    with pytest.raises(ValueError, match=r"baseline\[0\] is not finite"):
        mean_difference_interval([[1.0]], [np.inf])
    with pytest.raises(ValueError, match="scores .S, E."):
        mean_difference_interval([1.0], [1.0])
