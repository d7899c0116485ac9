"""PR-LSVI and PbTS: ridge regression against the rows themselves, thresholds by hand, plans against exact planning."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rl_jax.agents import pbts, pr_lsvi
from rl_jax.agents.pr_lsvi import RewardBelief, ridge_linear, ridge_table, threshold
from rl_jax.losses.preference_posterior import no_comparisons
from rl_jax.tabular.exploration import linear_mdp
from rl_jax.tabular.stochastic import random_mdp

RNG = np.random.default_rng(0)
H, S, A = 3, 4, 2
COUNTS = RNG.integers(0, 4, (H, S, A, S)).astype(np.float32)
ONE_HOT = np.eye(S * A, dtype=np.float32).reshape(S, A, -1)
KEYS = jax.random.split(jax.random.key(0), 4000)


def test_a_table_is_the_linear_model_with_a_feature_a_pair():
    table = jax.jit(ridge_table)(COUNTS, 0.5, KEYS[0])
    linear = jax.jit(ridge_linear)(COUNTS, ONE_HOT, 0.5, KEYS[0])
    np.testing.assert_allclose(table.transitions, linear.transitions, atol=1e-6)
    np.testing.assert_allclose(table.width, linear.width, rtol=1e-5)


@pytest.mark.parametrize("tabular", [True, False])
def test_ridge_regression_of_the_rows(tabular):
    """Every transition a row: what numpy fits, and a noise as wide as the features in the inverse of the precision."""
    features = ONE_HOT if tabular else np.asarray(linear_mdp(S, A, 3, H, 0)[1], np.float32)
    value, dimension = RNG.random(S), features.shape[-1]

    @jax.jit
    def model(key):
        return ridge_table(COUNTS, 0.5, key) if tabular else ridge_linear(COUNTS, features, 0.5, key)

    found, noise = model(KEYS[0]), jax.jit(jax.vmap(lambda key: model(key).noise))(KEYS)
    for step in range(H):
        places = [place for place, count in np.ndenumerate(COUNTS[step]) for _ in range(int(count))]
        rows = np.array([features[state, action] for state, action, _ in places])
        rows = np.concatenate([rows, np.sqrt(0.5) * np.eye(dimension)])
        targets = np.concatenate([value[[after for *_, after in places]], np.zeros(dimension)])
        weights = np.linalg.lstsq(rows, targets)[0]
        np.testing.assert_allclose(found.transitions[step] @ value, features @ weights, atol=2e-5)
        variance = np.einsum("sad,de,sae->sa", features, np.linalg.inv(rows.T @ rows), features)
        np.testing.assert_allclose(found.width[step], np.sqrt(variance), rtol=1e-4)
        np.testing.assert_allclose(noise[:, step].std(0), np.sqrt(variance), rtol=0.06)


def test_thresholds_by_hand():
    def at(width, low=0.2, high=0.6):
        return float(threshold(jnp.array(1.0), jnp.array(width), 5.0, low, high))

    assert [at(0.1), at(0.2), at(0.6), at(2.0)] == [1.0, 1.0, 5.0, 5.0]
    assert at(0.3) == pytest.approx(0.75 * 1.0 + 0.25 * 5.0)
    assert at(2.0, 0.0, 0.0) == 1.0  # off
    assert at(0.5, 0.4, 0.4) == 5.0  # a step


def certain(theta):
    """A belief that is sure of a reward."""
    precision = 1e10 * jnp.eye(len(theta))
    return RewardBelief(jnp.asarray(theta), precision, precision, no_comparisons(1, 1))


SLOW = [pytest.mark.slow]


@pytest.mark.parametrize("name", ["pr_lsvi", pytest.param("linear", marks=SLOW), pytest.param("pbts", marks=SLOW)])
def test_a_plan_of_what_is_known_is_optimal(name):
    """Rewards are known up to a constant, and values below 0 are none the less ordered."""
    mdp = random_mdp(S, A, H, seed=3)
    counts = np.broadcast_to(1e7 * mdp.transitions, (H, S, A, S)).astype(np.float32)
    config = (pbts if name == "pbts" else pr_lsvi).default_config()
    agent = pbts.pbts(config) if name == "pbts" else pr_lsvi.pr_lsvi(config, 10.0, name == "pr_lsvi")
    plan = jax.jit(agent.plan)
    plans = [plan(certain(mdp.rewards.ravel() + shift), counts, ONE_HOT, jax.random.key(1)) for shift in (0.0, -2.0)]
    value = np.zeros(S)
    for step in reversed(range(H)):
        q = mdp.rewards + mdp.transitions @ value
        for actions in plans:
            np.testing.assert_array_equal(actions[step], q.argmax(-1))
        value = q.max(-1)


def test_without_noise_a_plan_is_the_same_for_any_key():
    """Ties go to the first action, for both policies of a pair."""
    config = pr_lsvi.default_config()
    config.update({"sigma_reward": 0.0, "sigma_transitions": 0.0})
    agent, belief = pr_lsvi.pr_lsvi(config, 1.0, True), certain(np.zeros(S * A))
    plan = jax.jit(agent.plan)
    plans = [plan(belief, jnp.zeros(COUNTS.shape), ONE_HOT, key) for key in KEYS[:2]]
    np.testing.assert_array_equal(plans[0], np.zeros((H, S)))
    np.testing.assert_array_equal(plans[0], plans[1])


def test_unknown_pairs_are_tried_where_thresholds_say_so():
    """All but one pair of the last step are well known and worthless; the default draws the plan there."""
    config = pr_lsvi.default_config()
    config.update({"alpha_low": 0.3, "alpha_high": 0.6, "sigma_transitions": 0.0})
    counts = np.full((H, S, A, S), 100.0, np.float32)
    counts[-1, 2, 1] = 0.0
    plan = jax.jit(pr_lsvi.pr_lsvi(config, 1.0, True).plan)
    actions = plan(certain(np.zeros(S * A)), counts, ONE_HOT, KEYS[0])
    assert int(actions[-1, 2]) == 1


def test_noise_cannot_lift_a_value_above_what_can_be_earned():
    """Of two values beyond the bound the first is taken: action 1 wins where its noise alone is positive, a quarter of
    all keys, not half of them."""
    config = pr_lsvi.default_config()
    config.update({"sigma_reward": 0.0, "sigma_transitions": 1e4})
    agent = pr_lsvi.pr_lsvi(config, 1.0, True)
    plan = jax.jit(jax.vmap(lambda key: agent.plan(certain(np.zeros(S * A)), jnp.zeros(COUNTS.shape), ONE_HOT, key)))
    np.testing.assert_allclose(plan(KEYS).mean(0), 0.25, atol=0.04)


@pytest.mark.parametrize("name", ["pr_lsvi", pytest.param("pbts", marks=SLOW)])
def test_the_end_is_worth_nothing(name):
    """The last state has no features: whoever goes there by action 1 earns nothing more, and 0 for action 0 is better
    than the -1 of all that is left."""
    features = ONE_HOT[..., :-A] * (np.arange(S) < S - 1)[:, None, None]
    counts = np.zeros((H, S, A, S), np.float32)
    counts[:, :, 0, 0] = counts[:, :, 1, S - 1] = 1e7
    config = (pbts if name == "pbts" else pr_lsvi).default_config()
    agent = pbts.pbts(config) if name == "pbts" else pr_lsvi.pr_lsvi(config, 1.0, True)
    theta = np.where(np.arange((S - 1) * A) % A == 0, -0.4, -0.5)
    actions = np.asarray(jax.jit(agent.plan)(certain(theta), counts, features, KEYS[0]))
    assert (actions[:-1, : S - 1] == 1).all() and (actions[-1, : S - 1] == 0).all()


def test_dirichlet_draws_have_the_posterior_mean():
    rows = jax.jit(jax.vmap(lambda key: pbts.drawn_transitions(key, COUNTS, 0.5)))(KEYS)
    weights = COUNTS.sum(0) + 0.5
    np.testing.assert_allclose(rows.sum(-1), 1.0, rtol=1e-5)
    np.testing.assert_allclose(rows.mean(0), weights / weights.sum(-1, keepdims=True), atol=0.01)
