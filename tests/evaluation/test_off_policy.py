"""Off-policy estimators by hand, against the sum over all trajectories of a small MDP, and their intervals."""

import numpy as np
import pytest
from scipy import integrate, stats

from rl_jax.evaluation.off_policy.estimators import (
    ESTIMATORS,
    available,
    contributions,
    estimate,
    folds,
    importance_weights,
    logged,
    terms,
    value,
)
from rl_jax.evaluation.off_policy.intervals import INTERVALS, bootstrap, empirical_bernstein, hoeffding, student_t
from rl_jax.evaluation.off_policy.kernels import KERNELS, kernel_log_ratios
from rl_jax.tabular.stochastic import action_values, policy_value, random_mdp, sample, state_visitations
from tests.tabular.test_stochastic import enumerated

DISCOUNT = 0.9
RNG = np.random.default_rng(5)
BEHAVIOUR, POLICY = np.array([[0.5, 0.5], [0.8, 0.2]]), np.array([[0.9, 0.1], [0.3, 0.7]])
MDP = random_mdp(2, 2, horizon=3, seed=1)


def with_models(mdp, policy, behaviour, states, actions, rewards, *, q_error=0.0, **more):
    """Logged data with exact ratios and visitations, and exact values but for an error."""
    q = action_values(mdp, policy, DISCOUNT) + q_error
    times, v = np.arange(mdp.horizon), (policy * q).sum(-1)
    state_weights = (state_visitations(mdp, policy) / state_visitations(mdp, behaviour))[times, states]
    ratios = np.log(policy[states, actions]) - np.log(behaviour[states, actions])
    return logged(rewards, ratios, q=q[times, states, actions], v=v[times, states], state_weights=state_weights,
                  state_action_weights=state_weights * np.exp(ratios), crossfit=True, **more)


def all_trajectories(**models):
    """(probability under the behaviour policy, what is logged) of every trajectory."""
    chances, states, actions = (np.array(x) for x in zip(*enumerated(MDP, BEHAVIOUR)))
    return chances, with_models(MDP, POLICY, BEHAVIOUR, states, actions, MDP.rewards[states, actions], **models)


@pytest.mark.parametrize("name", [name for name, how in ESTIMATORS.items() if not how.normalised and name != "dm"])
@pytest.mark.parametrize("ratios", [0, 1, 2])
@pytest.mark.parametrize("error", [0.0, 0.7])
def test_the_expectation_over_all_trajectories_is_the_value(name, ratios, error):
    chances, data = all_trajectories(q_error=error)
    each = contributions(terms(name, data, DISCOUNT, num_ratios=ratios))
    assert chances @ each == pytest.approx(policy_value(MDP, POLICY, DISCOUNT), rel=1e-12)


@pytest.mark.parametrize("name", [name for name, how in ESTIMATORS.items() if how.normalised])
def test_self_normalised_weights_are_consistent(name):
    """With every trajectory as often as it is likely the mean of the weights is 1."""
    chances, data = all_trajectories(q_error=0.3)
    counts = np.maximum(np.round(chances * 20_000), 1).astype(int)
    data = data._replace(**{
        name: np.repeat(x, counts, axis=0) for name, x in data._asdict().items() if isinstance(x, np.ndarray)
    })
    assert estimate(name, data, DISCOUNT) == pytest.approx(policy_value(MDP, POLICY, DISCOUNT), abs=2e-3)


def test_doubly_robust_is_jiang_and_lis_with_a_weight_of_one_before_the_start():
    _, data = all_trajectories(q_error=RNG.normal(size=(2, 2)))
    weights = np.cumprod(np.exp(data.log_ratios), -1)
    before = np.concatenate([np.ones_like(weights[:, :1]), weights[:, :-1]], -1)  # not what np.roll puts first
    sums = (DISCOUNT ** np.arange(3) * (weights * (data.rewards - data.q) + before * data.v)).sum(-1)
    np.testing.assert_allclose(contributions(terms("dr", data, DISCOUNT)), sums, rtol=1e-12)


def test_by_hand():
    """Two trajectories of two steps, ratios 2 and 1/2, 1/2 and 1; rewards 1 and 2, 3 and 4; discount 1/2."""
    data = logged(np.array([[1.0, 2.0], [3.0, 4.0]]), np.log([[2.0, 0.5], [0.5, 1.0]]), q=np.ones((2, 2)),
                  v=np.full((2, 2), 2.0))
    assert available(data) == ("dm", "tis", "pdis", "dr", "sntis", "snpdis", "sndr")
    expected = {
        "dm": 2.0, "tis": (1 * 2 + 0.5 * 5) / 2, "pdis": (2 + 1 + 1.5 + 1) / 2,
        "sntis": (1 * 2 + 0.5 * 5) / 1.5, "snpdis": (2 * 1 + 0.5 * 3) / 2.5 + 0.5 * (1 * 2 + 0.5 * 4) / 1.5,
        "dr": 2 + (2 * (1 + 1 - 1) + 0.5 * (3 + 1 - 1) + 0.5 * (1 * (2 - 1) + 0.5 * (4 - 1))) / 2,
    }
    for name, wanted in expected.items():
        assert estimate(name, data, 0.5) == pytest.approx(wanted, rel=1e-12), name
    assert estimate("pdis", data, 0.5, max_weight=1.0) == pytest.approx((1 + 1 + 1.5 + 1) / 2)


def test_an_episode_that_ends_early_is_padded_and_still_counts_where_weights_are_normalised():
    nan = np.nan
    data = logged(
        np.array([[1.0, 2.0], [3.0, nan]]), np.log([[2.0, 0.5], [0.5, nan]]), mask=np.array([[1, 1], [1, 0]]),
        q=np.array([[1.0, 1.0], [1.0, nan]]), v=np.array([[2.0, 2.0], [2.0, nan]]),
    )
    np.testing.assert_array_equal(importance_weights("per_decision", data), [[2.0, 1.0], [0.5, 0.5]])
    assert estimate("snpdis", data, 1.0) == pytest.approx((2 * 1 + 0.5 * 3) / 2.5 + 1 * 2 / 1.5)
    np.testing.assert_array_equal(data.next_v, [[2.0, 0.0], [0.0, 0.0]])


def test_a_time_out_bootstraps_where_the_value_that_follows_is_given():
    one = dict(rewards=np.ones((1, 1)), log_ratios=np.zeros((1, 1)), q=np.zeros((1, 1)), v=np.zeros((1, 1)))
    assert estimate("dr", logged(**one), 0.5) == 1.0
    assert estimate("dr", logged(**one, next_v=np.full((1, 1), 4.0)), 0.5) == 3.0


def test_policies_and_repetitions_are_leading_axes():
    _, data = all_trajectories(q_error=0.2)
    for name in ESTIMATORS:
        two = [(data.log_ratios, data.q), (0 * data.log_ratios, data.q + 1)]
        both = data._replace(log_ratios=np.stack([one[0] for one in two]), q=np.stack([one[1] for one in two]))
        alone = [estimate(name, data._replace(log_ratios=ratios, q=q), DISCOUNT) for ratios, q in two]
        np.testing.assert_allclose(np.broadcast_to(estimate(name, both, DISCOUNT), 2), alone, rtol=1e-12)


def test_long_products_are_summed_as_logarithms():
    """2000 ratios of 4 and 1/4: their product is 1, and half of it is beyond float64."""
    ratios = np.log(4.0) * np.where(np.arange(2000) % 2, -1.0, 1.0)[None]
    data = logged(np.ones((1, 2000)), ratios)
    assert estimate("tis", data, 1.0) == pytest.approx(2000.0)
    with pytest.raises(ValueError, match=r"a product of ratios is exp\(2000\), more than float64 holds"):
        estimate("pdis", logged(np.ones((1, 2000)), np.ones((1, 2000))), 1.0)
    impossible = logged(np.ones((2, 2)), np.array([[-np.inf, 1.0], [0.0, 0.0]]))
    assert estimate("pdis", impossible, 1.0) == 1.0  # 0 and 0, 1 and 1


@pytest.mark.parametrize("arguments, message", [
    (dict(rewards=np.ones(3)), r"rewards has shape \(3,\): give \[..., trajectories, steps\]"),
    (dict(rewards=np.ones((2, 3)), q=np.ones((2, 4))), r"q has shape \(2, 4\): give \(2, 3\)"),
    (dict(rewards=np.ones((2, 3)), mask=np.array([[1, 0, 1], [1, 1, 1]])), "1 for every step and then 0 for padding"),
    (dict(rewards=np.array([[1.0, np.nan]])), r"rewards\[0, 1\] is nan"),
    (dict(rewards=np.ones((1, 1)), log_ratios=np.array([[np.inf]])), r"log_ratios\[0, 0\] is inf"),
])
def test_bad_input(arguments, message):
    with pytest.raises(ValueError, match=message):
        logged(**arguments)


def test_what_an_estimator_lacks():
    data = logged(np.ones((2, 3)), np.zeros((2, 3)))
    with pytest.raises(ValueError, match="sam_dr needs q and v and state_action_weights"):
        estimate("sam_dr", data, 1.0)
    with pytest.raises(ValueError, match="drl needs .*cross-fitted"):
        estimate("drl", data._replace(q=data.rewards, v=data.rewards, state_action_weights=data.rewards), 1.0)
    with pytest.raises(ValueError, match="'snpdi'.*did you mean"):
        estimate("snpdi", data, 1.0)


def test_folds_are_even_and_cover_all():
    found = folds(11, 3)
    assert sorted(np.bincount(found)) == [3, 4, 4]
    with pytest.raises(ValueError, match="num_folds is 1: give 2 to 11"):
        folds(11, 1)


# Continuous actions


@pytest.mark.parametrize("kernel", KERNELS)
def test_kernels_are_densities_of_mean_zero(kernel):
    for power, wanted in ((0, 1.0), (1, 0.0)):
        found = sum(integrate.quad(lambda u: u**power * KERNELS[kernel](np.float64(u)), *ends)[0]
                    for ends in ((-9, -1), (-1, 0), (0, 1), (1, 9)))
        assert found == pytest.approx(wanted, abs=1e-7)


@pytest.mark.parametrize("kernel", KERNELS)
def test_kernel_ratios_find_the_value_of_a_deterministic_policy(kernel):
    """One step, two dimensions: r = a_0 + 2 a_1, behaviour N(0, 1), policy (0.5, -0.2); kernels add no bias."""
    actions = np.random.default_rng(0).normal(size=(40_000, 1, 2))
    log_prob = stats.norm.logpdf(actions).sum(-1)
    ratios = kernel_log_ratios(actions, np.array([0.5, -0.2]), log_prob, kernel=kernel, bandwidth=0.5)
    assert np.exp(ratios).mean() == pytest.approx(1.0, abs=0.03)
    found = terms("snpdis", logged(actions @ np.array([1.0, 2.0]), ratios), 1.0)
    assert value(found) == pytest.approx(0.1, abs=5 * contributions(found).std() / 200)
    with pytest.raises(ValueError, match="bandwidth is 0.0"):
        kernel_log_ratios(actions, actions, log_prob, kernel=kernel, bandwidth=0.0)


def test_unknown_kernel():
    with pytest.raises(ValueError, match="'gausian'"):
        kernel_log_ratios(np.zeros((1, 1, 1)), np.zeros((1, 1, 1)), np.zeros((1, 1)), kernel="gausian", bandwidth=1.0)


# Intervals


def repeated(name, count, repetitions, seed, q_error=0.5):
    """An estimator's terms on as many data sets, a leading axis."""
    states, actions, rewards = sample(MDP, BEHAVIOUR, count * repetitions, np.random.default_rng(seed))
    data = with_models(MDP, POLICY, BEHAVIOUR, states, actions, rewards, q_error=q_error)
    data = data._replace(**{
        name: x.reshape(repetitions, count, -1) for name, x in data._asdict().items() if isinstance(x, np.ndarray)
    })
    return terms(name, data, DISCOUNT)


@pytest.mark.parametrize("name", ["pdis", "snpdis", "sndr"])
@pytest.mark.parametrize("interval", [student_t, lambda terms, level: bootstrap(terms, level, num_resamples=200)])
def test_coverage_is_the_nominal_one(name, interval):
    truth = policy_value(MDP, POLICY, DISCOUNT)
    low, high = interval(repeated(name, 300, 300, seed=1), 0.9)
    covered = ((low <= truth) & (truth <= high)).mean()
    assert 0.85 <= covered <= 0.95  # 0.9 and three deviations of 300 trials


@pytest.mark.parametrize("interval", [hoeffding, empirical_bernstein])
def test_bounds_hold_and_shrink(interval):
    truth = policy_value(MDP, POLICY, DISCOUNT)
    chances, data = all_trajectories()
    reach = np.ptp(contributions(terms("pdis", data, DISCOUNT)))  # over all trajectories there are
    few, many = (interval(repeated("pdis", count, 100, seed=2), 0.9, reach) for count in (100, 1600))
    for low, high in (few, many):
        assert ((low <= truth) & (truth <= high)).all()
    assert np.mean(many.high - many.low) < 0.4 * np.mean(few.high - few.low)


def test_intervals_by_hand():
    found = terms("dm", logged(np.zeros((4, 1)), v=np.array([[1.0], [2.0], [3.0], [6.0]])), 1.0)
    assert student_t(found, 0.95).high == pytest.approx(3 + 3.182446 * np.std([1, 2, 3, 6], ddof=1) / 2)
    assert hoeffding(found, 0.95, 10.0).low == pytest.approx(3 - 10 * np.sqrt(np.log(40) / 8))
    variance, logarithm = 14 / 3, np.log(80)
    assert empirical_bernstein(found, 0.95, 10.0).high == pytest.approx(
        3 + np.sqrt(2 * variance * logarithm / 4) + 70 * logarithm / 9
    )
    with pytest.raises(ValueError, match="value_range is 3.0, and trajectories lie 5 apart"):
        hoeffding(found, 0.95, 3.0)
    with pytest.raises(ValueError, match="at least 2 trajectories, and there is 1"):
        student_t(terms("dm", logged(np.zeros((1, 1)), v=np.ones((1, 1))), 1.0))


def test_the_bootstrap_normalises_weights_anew():
    """Equal rewards: a self-normalised estimate has no variance, whatever the weights are."""
    data = logged(np.full((50, 2), 3.0), RNG.normal(size=(50, 2)))
    for interval in INTERVALS.values():
        low, high = interval(terms("snpdis", data, 0.5))
        assert low == pytest.approx(4.5) and high == pytest.approx(4.5)
    low, high = bootstrap(terms("pdis", data, 0.5))
    assert high - low > 0.5
