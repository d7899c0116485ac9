"""The embedded bandit logs, and one-step estimates on them with true propensities."""

import hashlib

import numpy as np
import pytest

from rl_jax.data.open_bandit.logs import LOGS, PATH, load_log
from rl_jax.evaluation.off_policy.estimators import logged, terms, value
from rl_jax.evaluation.off_policy.intervals import student_t


def test_the_file_is_the_one_that_its_source_describes():
    assert hashlib.sha256(PATH.read_bytes()).hexdigest() in (PATH.parent / "SOURCE.md").read_text()


@pytest.mark.parametrize("name, clicks", list(zip(LOGS, (46, 69, 46, 46))))
def test_logs(name, clicks):
    log = load_log(name)
    assert len(log.clicks) == 10_000 and log.clicks.sum() == clicks
    assert set(log.positions) == {0, 1, 2} and set(log.items) == set(range(log.num_items))
    assert (log.propensities > 0).all() and (log.propensities <= 1).all()
    if name.startswith("random"):
        np.testing.assert_allclose(log.propensities, 1 / log.num_items, rtol=1e-6)


@pytest.mark.parametrize("campaign", ["men", "women"])
def test_the_uniform_policy_from_the_log_of_the_other_one(campaign):
    """What the uniform policy earns is known from its own log; the estimate's interval meets the log's own."""
    own, other = load_log(f"random_{campaign}"), load_log(f"bts_{campaign}")
    ratios = -np.log(other.num_items * other.propensities)[:, None]
    estimated = student_t(terms("snpdis", logged(other.clicks[:, None], ratios), 1.0))
    measured = student_t(terms("pdis", logged(own.clicks[:, None], np.zeros((10_000, 1))), 1.0))
    assert estimated.low < measured.high and measured.low < estimated.high
    weights = np.exp(ratios)
    ipw, naive = value(terms("pdis", logged(other.clicks[:, None], ratios), 1.0)), other.clicks.mean()
    assert ipw == pytest.approx((weights[:, 0] * other.clicks).mean()) and ipw != pytest.approx(naive, rel=0.05)


def test_unknown_log():
    with pytest.raises(ValueError, match="unknown log 'random_all'"):
        load_log("random_all")
