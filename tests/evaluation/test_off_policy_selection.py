"""Distributions of returns off-policy, and what is chosen by estimates, by hand and against independent formulas."""

import numpy as np
import pytest
from scipy.stats import spearmanr

from rl_jax.evaluation.off_policy.return_distribution import (
    DISTRIBUTIONS,
    ReturnDistribution,
    ReturnModel,
    resampled,
    return_distribution,
)
from rl_jax.evaluation.off_policy.selection import (
    error_rates,
    mean_squared_error,
    portfolio,
    rank_correlation,
    regret,
    sharpe_ratio,
)

RNG = np.random.default_rng(3)
RETURNS, WEIGHTS = RNG.normal(size=200), RNG.gamma(1.0, 1.0, (2, 200))
MODEL = ReturnModel(RNG.normal(size=(200, 3)), RNG.dirichlet(np.ones(3), 200), RNG.normal(size=(200, 2)))


@pytest.mark.parametrize("name", DISTRIBUTIONS)
def test_distributions_are_their_definitions(name):
    found = return_distribution(name, RETURNS, WEIGHTS, model=MODEL)
    for row, weights in enumerate(WEIGHTS):
        shares = weights / weights.sum() if "sn" in name else weights / 200
        for place in (0, 50, 150, len(found.thresholds) - 1):
            m = found.thresholds[: place + 1, None]
            baseline = (MODEL.start_probs * (MODEL.start <= m[..., None, None])[:, 0]).sum(-1).mean(-1)
            taken = (MODEL.taken <= m[..., None, None])[:, 0].mean(-1)
            expected = {
                "cd_dm": baseline, "cd_tis": (shares * (RETURNS <= m)).sum(-1),
                "cd_tdr": (shares * ((RETURNS <= m) - taken)).sum(-1) + baseline,
            }[name.replace("_sn", "_")]
            cdf = np.broadcast_to(found.cdf, (2, len(found.thresholds)))[row]
            assert cdf[place] == pytest.approx(np.clip(expected.max(), 0, 1), abs=1e-12)


def test_a_distribution_s_numbers_are_those_of_its_sample():
    sample = np.sort(RNG.exponential(size=400))
    found = return_distribution("cd_sntis", sample, np.full(400, 7.0))
    assert found.mean() == pytest.approx(sample.mean()) and found.variance() == pytest.approx(sample.var())
    assert [float(x) for x in found.interquartile()] == [sample[99], sample[199], sample[299]]
    assert found.cvar(0.25) == pytest.approx(sample[:100].mean())  # the worst quarter
    assert found.cvar(1.0) == pytest.approx(sample.mean()) and found.cvar(0.0) == sample[0]
    levels = [found.cvar(level) for level in np.linspace(0, 1, 21)]
    assert (np.diff(levels) > 0).all()


def test_what_is_missing_of_a_distribution():
    found = ReturnDistribution(np.array([1.0, 2.0, 5.0]), np.array([0.25, 0.5, 0.5]))
    assert found.quantile(0.9) == 5.0 and found.quantile(0.5) == 2.0 and found.quantile(0.0) == 1.0
    assert found.mean() == pytest.approx(0.75)
    assert [float(found.below(level)) for level in (1.0, 2.0, 9.0)] == [0.0, 0.25, 0.5]
    assert found.cvar(1.0) == pytest.approx(0.25 + 0.5 + 0.5 * 5)
    with pytest.raises(ValueError, match="level is 1.5"):
        found.cvar(1.5)
    with pytest.raises(ValueError, match="cd_tdr needs a model"):
        return_distribution("cd_tdr", RETURNS, WEIGHTS)
    with pytest.raises(ValueError, match="'cd_ti'"):
        return_distribution("cd_ti", RETURNS, WEIGHTS)


def test_resampled_distributions_spread_as_binomials():
    sample = np.arange(50.0)
    found, drawn = (make("cd_sntis", sample, np.full(50, 3.0)) for make in (return_distribution, resampled))
    assert drawn.cdf.shape == (200, 50)
    np.testing.assert_allclose(drawn.cdf.mean(0), found.cdf, atol=0.02)
    np.testing.assert_allclose(drawn.cdf.std(0), np.sqrt(found.cdf * (1 - found.cdf) / 50), atol=0.015)
    assert drawn.quantile(0.5).shape == drawn.cvar(0.1).shape == (200,)


# Selection: estimates rank the candidates as 2, 0, 3, 1.
TRUTH, ESTIMATES = np.array([4.0, 1.0, 2.0, 9.0]), np.array([3.0, -1.0, 8.0, 2.0])


def test_metrics_by_hand():
    assert mean_squared_error(ESTIMATES, TRUTH) == pytest.approx((1 + 4 + 36 + 49) / 4)
    assert rank_correlation(ESTIMATES, TRUTH) == pytest.approx(spearmanr(ESTIMATES, TRUTH).statistic)
    assert [float(regret(ESTIMATES, TRUTH, k)) for k in (1, 2, 3, 4)] == [7.0, 5.0, 0.0, 0.0]  # the best, not a sum
    found = portfolio(ESTIMATES, TRUTH, threshold=3.0)
    np.testing.assert_allclose(found.best, [2, 4, 9, 9])
    np.testing.assert_allclose(found.worst, [2, 2, 2, 1])
    np.testing.assert_allclose(found.mean, [2, 3, 5, 4])
    np.testing.assert_allclose(found.std, [0, 1, np.std([2, 4, 9]), np.std([2, 4, 9, 1])])  # 1 / k
    np.testing.assert_allclose(found.violations, [1, 1 / 2, 1 / 3, 1 / 2])
    assert sharpe_ratio(ESTIMATES, TRUTH, 3.0, 3) == pytest.approx(6 / np.std([2, 4, 9]))
    assert sharpe_ratio(ESTIMATES, TRUTH, 5.0, 2) == pytest.approx(-1.0)  # not cut off at 0
    # Safe: 4 and 9, of which 2.0 refuses the latter; unsafe: 1 and 2, of which 8.0 accepts the latter.
    assert error_rates(ESTIMATES, TRUTH, 3.0) == (0.5, 0.5)


def test_what_is_not_defined_is_nan():
    assert np.isnan(sharpe_ratio(ESTIMATES, TRUTH, 3.0, 1))
    assert np.isnan(sharpe_ratio(ESTIMATES, np.full(4, 0.1), 0.3, 3))
    assert np.isnan(rank_correlation(ESTIMATES, np.ones(4))) and np.isnan(rank_correlation(np.ones(4), TRUTH))
    assert np.isnan(error_rates(ESTIMATES, TRUTH, 100.0)[0]) and np.isnan(error_rates(ESTIMATES, TRUTH, -100.0)[1])


def test_many_estimates_at_once_and_large_values():
    estimates = RNG.normal(size=(5, 4))
    for metric in (mean_squared_error, rank_correlation, regret, lambda e, t: sharpe_ratio(e, t, 1e8, 3)):
        together = metric(estimates, TRUTH + 1e8)
        np.testing.assert_allclose(together, [metric(one, TRUTH + 1e8) for one in estimates])
    assert sharpe_ratio(ESTIMATES, TRUTH + 1e8, 3.0 + 1e8, 3) == pytest.approx(6 / np.std([2, 4, 9]), rel=1e-6)


@pytest.mark.parametrize("call, message", [
    (lambda: regret(ESTIMATES, TRUTH, 5), "k is 5: give 1 to 4"),
    (lambda: portfolio(ESTIMATES[:3], TRUTH), r"estimates have shape \(3,\) and true values \(4,\)"),
    (lambda: regret(np.array([1.0, np.nan, 2.0, 3.0]), TRUTH), "not a finite number"),
])
def test_bad_input(call, message):
    with pytest.raises(ValueError, match=message):
        call()
