"""Probes: data sets whose answer is known, each agent learns them in seconds."""

from typing import NamedTuple

import numpy as np
import pytest
import scipy.stats

from rl_jax.networks.values import Critic, Value
from tests.agents.cases import SIZE, SMALL, act, make_config, train, transitions

# `make test` probes one agent of a kind; those that differ from it by a loss or a network have tests of that.
QUICK = ("td3_bc", "iql")
CRITICS = [
    pytest.param(name, marks=[] if name in QUICK else pytest.mark.slow)
    for name in ("td3_bc", "awac", "iql", "xql", "fdvl", "cql", "sac", "edac", "rebrac")
]
RNG = np.random.default_rng(0)
UNIFORM = RNG.uniform(-1, 1, SIZE)  # actions that say nothing
SIGNS = np.where(np.arange(SIZE) % 2 == 0, -1.0, 1.0)

# The bandit: rewards of Gaussian actions around 0, best at 0.5.
BEST = 0.5
BEHAVIOUR = np.clip(RNG.normal(0.0, 0.4, SIZE), -1, 1)
SHUFFLED = RNG.permutation(UNIFORM)


def bandit_reward(action):
    return 1.0 - np.square(action - BEST)


def bandit():
    return transitions(1.0, BEHAVIOUR, bandit_reward(BEHAVIOUR))


def q_values(params, observations, actions) -> np.ndarray:
    """Q of every member [2, SIZE]."""
    batch = transitions(observations, actions)
    norm = "LayerNorm_0" in params["critic"]["params"]["members"]["MLP_0"] and "after"  # ReBRAC's
    critic = Critic(SMALL["hidden_dims"], layer_norm=norm)
    return np.asarray(critic.apply(params["critic"], batch.observations, batch.actions))


def v_values(params, observations) -> np.ndarray:
    layer_norm = "LayerNorm_0" in params["value"]["params"]["MLP_0"]  # XQL's
    value = Value(SMALL["hidden_dims"], layer_norm=layer_norm)
    return np.asarray(value.apply(params["value"], transitions(observations, 0.0).observations))


@pytest.mark.parametrize("name", CRITICS)
def test_constant_reward_of_one_step(name):
    # f-DVL's value nears it the slowest: 0.07 away after 1,500 updates, 0.04 after 3,000, 0.015 after 6,000.
    state, _ = train(name, transitions(UNIFORM, SHUFFLED, rewards=1.0), steps=6000 if name == "fdvl" else 1500)
    # At actions that a set of 128 hardly has CQL's regulariser still shows, at a hundredth of its weight.
    tolerance = 0.15 if name == "cql" else 0.05
    np.testing.assert_allclose(q_values(state.params, UNIFORM, UNIFORM[::-1]), 1.0, atol=tolerance)
    if "value" in state.params:
        np.testing.assert_allclose(v_values(state.params, UNIFORM), 1.0, atol=0.05)


@pytest.mark.parametrize("name", CRITICS)
def test_reward_that_depends_on_the_observation(name):
    state, _ = train(name, transitions(SIGNS, UNIFORM, rewards=SIGNS))
    np.testing.assert_allclose(q_values(state.params, SIGNS, UNIFORM), np.stack([SIGNS, SIGNS]), atol=0.05)
    if "value" in state.params:
        np.testing.assert_allclose(v_values(state.params, SIGNS), SIGNS, atol=0.05)


@pytest.mark.parametrize("name", CRITICS)
def test_two_steps_are_discounted(name):
    """-1 leads to +1 without a reward; +1 ends with reward 1: Q(-1) = discount."""
    last = SIGNS == 1.0
    data = transitions(SIGNS, UNIFORM, rewards=last, masks=~last, next_observations=1.0)
    state, _ = train(name, data)
    expected = np.where(last, 1.0, make_config(name).discount)
    np.testing.assert_allclose(q_values(state.params, SIGNS, UNIFORM), np.stack([expected, expected]), atol=0.05)


@pytest.mark.parametrize("name", CRITICS)
def test_a_time_out_bootstraps_and_a_terminal_does_not(name):
    """Both observations stay where they are with reward 1; only at +1 does the episode end."""
    state, _ = train(name, transitions(SIGNS, UNIFORM, rewards=1.0, masks=SIGNS == -1.0))
    expected = np.where(SIGNS == -1.0, 1.0 / (1.0 - make_config(name).discount), 1.0)
    np.testing.assert_allclose(q_values(state.params, SIGNS, UNIFORM), np.stack([expected, expected]), atol=0.08)


def test_behavioural_cloning_finds_the_policy_of_the_data():
    policy = lambda x: np.tanh(1.2 * x - 0.3)  # noqa: E731
    observations = RNG.normal(size=SIZE)
    state, metrics = train("bc", transitions(observations, policy(observations)))
    unseen = np.linspace(-1.5, 1.5, 20)
    np.testing.assert_allclose(act("bc", state.params, unseen), policy(unseen), atol=0.03)
    assert 0 < metrics["actor/loss"] < 0.05


def test_behavioural_cloning_takes_the_mean_action_whatever_its_reward():
    state, _ = train("bc", bandit())
    assert act("bc", state.params, [1.0])[0] == pytest.approx(BEHAVIOUR.mean(), abs=0.01)


@pytest.mark.parametrize("name", CRITICS)
def test_a_better_action_of_the_data_is_found(name):
    """Better than the mean action by more than 60% of what can be gained."""
    state, _ = train(name, bandit(), temperature=10.0)
    gain = bandit_reward(act(name, state.params, [1.0])[0]) - bandit_reward(BEHAVIOUR.mean())
    assert gain > 0.6 * (bandit_reward(BEST) - bandit_reward(BEHAVIOUR.mean()))


@pytest.mark.parametrize("name", CRITICS)
def test_the_better_of_two_actions_depends_on_the_observation(name):
    """Reward is observation times action: the policy must change its sign with the observation's."""
    state, _ = train(name, transitions(SIGNS, UNIFORM, SIGNS * UNIFORM), temperature=10.0)
    low, high = act(name, state.params, [-1.0, 1.0])
    assert low < UNIFORM[SIGNS < 0].mean() - 0.4 and high > UNIFORM[SIGNS > 0].mean() + 0.4


def test_td3_bc_weighs_q_against_cloning_in_closed_form():
    """With lambda = alpha / |Q(a)|, -lambda Q(a) + mean (a - a_i)^2 is least at (mean + lambda best) / (1 + lambda)."""
    state, _ = train("td3_bc", bandit())
    action = BEHAVIOUR.mean()
    for _ in range(50):
        weight = make_config("td3_bc").alpha / abs(bandit_reward(action))
        action = (BEHAVIOUR.mean() + weight * BEST) / (1.0 + weight)
    assert act("td3_bc", state.params, [1.0])[0] == pytest.approx(action, abs=0.06)


class Answer(NamedTuple):
    """What IQL must find on the bandit, from the true rewards."""

    value: float
    mean: float
    std: float
    weight: float


def weighted_data(expectile: float, temperature: float, max_weight: float) -> Answer:
    rewards = bandit_reward(BEHAVIOUR)
    value = scipy.stats.expectile(rewards, expectile)
    weights = np.minimum(np.exp(temperature * (rewards - value)), max_weight)
    mean = np.average(BEHAVIOUR, weights=weights)
    return Answer(value, mean, np.sqrt(np.average(np.square(BEHAVIOUR - mean), weights=weights)), weights.mean())


# expectile, temperature, max_weight: the second clones, the last clips
IQL_SETTINGS = [(0.7, 10.0, 100.0), (0.95, 0.0, 100.0), (0.5, 10.0, 0.5)]


@pytest.mark.parametrize("setting", IQL_SETTINGS)
def test_iql_is_the_expectile_and_the_weighted_data_in_closed_form(setting):
    expectile, temperature, max_weight = setting
    state, metrics = train("iql", bandit(), expectile=expectile, temperature=temperature, max_weight=max_weight)
    answer = weighted_data(*setting)
    assert v_values(state.params, 1.0)[0] == pytest.approx(answer.value, abs=0.015)
    assert act("iql", state.params, [1.0])[0] == pytest.approx(answer.mean, abs=0.03)
    assert np.exp(float(state.params["actor"]["params"]["log_std"][0])) == pytest.approx(answer.std, abs=0.03)
    assert metrics["actor/weight"] <= max_weight
    # Averaged over the run, so its first updates with wrong values are in it.
    assert metrics["actor/weight"] == pytest.approx(answer.weight, rel=0.25)


def test_the_closed_forms_of_iql_tell_the_settings_apart():
    greedy, cloned, clipped = (weighted_data(*setting) for setting in IQL_SETTINGS)
    assert greedy.mean - clipped.mean > 0.1 and clipped.mean - cloned.mean > 0.05
    assert cloned.value - greedy.value > 0.05 and greedy.value - clipped.value > 0.03
