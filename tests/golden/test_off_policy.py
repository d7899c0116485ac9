"""Off-policy estimators against SCOPE-RL 0.2.1 and Open Bandit Pipeline 0.4.1 where those are right, and how they
differ where they are not."""

from pathlib import Path

import numpy as np
import pytest

from rl_jax.evaluation.off_policy.estimators import estimate, logged, terms
from rl_jax.evaluation.off_policy.intervals import empirical_bernstein, hoeffding, student_t
from rl_jax.evaluation.off_policy.return_distribution import return_distribution

GOLDEN = np.load(Path(__file__).with_name("off_policy.npz"))
GIVEN = {name.removeprefix("given/"): GOLDEN[name] for name in GOLDEN if name.startswith("given/")}
DISCOUNT = float(GOLDEN["discount"])


def taken(array):
    return np.take_along_axis(array, GIVEN["actions"][..., None], -1)[..., 0]


DATA = logged(
    GIVEN["rewards"], np.log(taken(GIVEN["policy"])) - np.log(taken(GIVEN["behaviour"])), q=taken(GIVEN["q"]),
    v=(GIVEN["policy"] * GIVEN["q"]).sum(-1), state_weights=GIVEN["state_weights"],
    state_action_weights=GIVEN["state_action_weights"], crossfit=True,
)


@pytest.mark.parametrize("name", ["dm", "tis", "pdis", "dr", "sntis", "snpdis", "sndr"])
def test_estimators_are_scope_rls(name):
    assert estimate(name, DATA, DISCOUNT) == pytest.approx(GOLDEN[f"scope/{name}"].mean(), rel=1e-8)


@pytest.mark.parametrize("name", ["sam_is", "sam_snis"])
@pytest.mark.parametrize("ratios", [0, 2])
def test_marginal_weights_and_sope_are_scope_rls(name, ratios):
    found = estimate(name, DATA, DISCOUNT, num_ratios=ratios)
    assert found == pytest.approx(GOLDEN[f"scope/{name}/{ratios}"].mean(), rel=1e-8)


def test_drl_is_scope_rls_without_a_discount_which_its_code_omits():
    assert estimate("drl", DATA, 1.0) == pytest.approx(GOLDEN["scope/drl/0"].mean(), rel=1e-8)


def test_where_scope_rl_puts_the_values_of_the_last_two_next_states_in_each_others_place():
    """Its doubly robust marginal estimators insert the zero before the last column and not after it."""
    v = np.insert(DATA.v, -1, 0.0, axis=1)[:, 1:]
    swapped = DATA._replace(next_v=v)
    assert estimate("sam_dr", swapped, DISCOUNT) == pytest.approx(GOLDEN["scope/sam_dr/0"].mean(), rel=1e-8)
    assert abs(estimate("sam_dr", DATA, DISCOUNT) - GOLDEN["scope/sam_dr/0"].mean()) > 0.01


def test_where_scope_rl_leaves_out_the_ratio_of_the_state_s_own_action():
    without = DATA._replace(state_action_weights=DATA.state_weights)
    assert estimate("sam_is", without, DISCOUNT) == pytest.approx(GOLDEN["scope/sm_is/0"].mean(), rel=1e-8)
    assert abs(estimate("sm_is", DATA, DISCOUNT) - GOLDEN["scope/sm_is/0"].mean()) > 0.1


@pytest.mark.parametrize("name", ["cd_tis", "cd_sntis"])
def test_distributions_are_scope_rls(name):
    weights = np.exp(DATA.log_ratios.sum(-1))
    found = return_distribution(name, GIVEN["rewards"].sum(-1), weights, thresholds=GOLDEN["thresholds"])
    # Below the least return F is 0; there SCOPE-RL has what the least return adds to it.
    above = found.thresholds >= GIVEN["rewards"].sum(-1).min()
    assert 0 < above.sum() < len(above) and (found.cdf[~above] == 0).all()
    np.testing.assert_allclose(found.cdf[above], GOLDEN[f"scope/{name}"][above], atol=1e-8)


@pytest.mark.parametrize("name", ["dm", "pdis", "dr", "snpdis"])
def test_one_step_is_open_bandit_pipelines(name):
    first = DATA._replace(**{
        field: getattr(DATA, field)[:, :1] for field in ("mask", "rewards", "log_ratios", "q", "v")
    }, next_v=np.zeros_like(DATA.v[:, :1]))
    assert estimate(name, first, 1.0) == pytest.approx(float(GOLDEN[f"obp/{name}"]), rel=1e-6)


def test_intervals_by_their_formulas_and_not_by_scope_rls():
    samples = GOLDEN["samples"]
    count, largest = len(samples), samples.max()
    found = terms("dm", logged(samples[:, None], v=samples[:, None], q=samples[:, None]), 1.0)

    def half(interval):
        return (interval.high - interval.low) / 2

    theirs = {name: np.ptp(GOLDEN[f"scope/{name}"]) / 2 for name in ("hoeffding", "empirical_bernstein", "t_test")}
    # It multiplies by n under the root where the bound divides.
    assert half(hoeffding(found, 0.9, largest)) == pytest.approx(theirs["hoeffding"] / count, rel=1e-12)
    # It takes the quantile of a one-sided interval: at a confidence of 0.8 a two-sided one has it.
    assert half(student_t(found, 0.8)) == pytest.approx(theirs["t_test"], rel=1e-12)
    # It spends the whole of delta on each side.
    assert half(empirical_bernstein(found, 0.8, largest)) == pytest.approx(theirs["empirical_bernstein"], rel=1e-12)
