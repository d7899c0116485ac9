"""AWAC: the policy as weighted data, the advantage over the policy's own actions, a Gaussian that is not squashed."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats

from rl_jax.core.program import Metrics
from tests.agents.cases import SIZE, act, linear_critics, make_agent, make_config, train, transitions, update_of

ACTIONS = np.clip(np.random.default_rng(7).normal(0.0, 0.4, SIZE), -1, 1)
REWARDS = 1.0 - np.square(ACTIONS - 0.5)


def weighted(temperature: float) -> tuple[float, float]:
    """Mean and deviation of the data weighted by exp(temperature * Q): the policy's own V scales all weights alike."""
    weights = np.exp(temperature * REWARDS)
    mean = np.average(ACTIONS, weights=weights)
    return mean, np.sqrt(np.average(np.square(ACTIONS - mean), weights=weights))


TEMPERATURES = [0.0, 1.5, 3.0]


@pytest.mark.parametrize("temperature", TEMPERATURES)
def test_the_policy_is_the_weighted_data_in_closed_form(temperature):
    state, _ = train("awac", transitions(1.0, ACTIONS, REWARDS), temperature=temperature)
    mean, std = weighted(temperature)
    assert act("awac", state.params, [1.0])[0] == pytest.approx(mean, abs=0.04)
    assert np.exp(float(state.params["actor"]["params"]["log_std"][0])) == pytest.approx(std, abs=0.04)


def test_the_closed_forms_tell_the_temperatures_apart():
    means, stds = zip(*(weighted(temperature) for temperature in TEMPERATURES), strict=True)
    assert min(np.diff(means)) > 0.06 and max(np.diff(stds)) < -0.03


def update(action, mean=0.0, log_std=-20.0, online=(0.0, 0.0), target=(0.0, 0.0), masks=0.0, **settings) -> Metrics:
    """Metrics of one update at a learning rate of 0, where pi(s) = N(mean, std) and Q_i(s, a) = slope_i * a."""
    data = jax.tree.map(jnp.asarray, transitions(1.0, action, masks=masks))
    shapes = jax.eval_shape(make_agent("awac").init, jax.random.key(0), data)
    state = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), shapes)
    actor = state.params["actor"]["params"]
    actor["MLP_0"]["Dense_2"]["bias"] = jnp.array([mean])
    actor["log_std"] = jnp.array([log_std])
    linear_critics(state.params["critic"], online)
    linear_critics(state.target_params["critic"], target)
    return update_of("awac", **{"learning_rate": 0.0, **settings})(state, data, jax.random.key(1))[1]


def test_the_advantage_is_over_the_policys_own_action_and_of_the_lesser_critic():
    both = {"online": (1.0, 2.0), "target": (-5.0, 7.0), "temperature": 1.5}
    # Q(0.5) = min(0.5, 1), and V = min(-0.25, -0.5)
    assert update(0.5, mean=-0.25, **both)["actor/weight"] == pytest.approx(np.exp(1.5 * 1.0), rel=1e-5)
    # Q(-0.5) = min(-0.5, -1), and V = min(0.25, 0.5)
    assert update(-0.5, mean=0.25, **both)["actor/weight"] == pytest.approx(np.exp(1.5 * -1.25), rel=1e-5)
    # The policy's action is clipped into the box: V = min(1, 2).
    assert update(0.5, mean=5.0, **both)["actor/weight"] == pytest.approx(np.exp(1.5 * -0.5), rel=1e-5)
    assert update(0.5, mean=-0.25, max_weight=2.0, **both)["actor/weight"] == pytest.approx(2.0)


def test_v_is_of_a_sample_of_the_policy():
    # Of Q = a at N(0, 0.1): E exp(T (0 - a')) = exp(T^2 0.1^2 / 2), and it varies from action to action.
    metrics = update(0.0, log_std=np.log(0.1), online=(1.0, 1.0), temperature=10.0)
    assert metrics["actor/weight"] == pytest.approx(np.exp(0.5), abs=0.7)
    assert metrics["actor/weight"] != pytest.approx(1.0, abs=0.01)


@pytest.mark.parametrize("masks, target", [(1.0, 0.5 * 0.25), (0.0, 0.0)])
def test_the_target_is_of_the_policys_next_action_and_of_the_lesser_target_critic(masks, target):
    assert make_config("awac").discount == 0.5
    metrics = update(0.7, mean=0.25, target=(1.0, 2.0), masks=masks)
    assert metrics["critic/loss"] == pytest.approx(2 * target**2, rel=1e-4)  # Q = 0, and both critics add


def test_the_mean_is_not_squashed_and_an_action_is_clipped():
    metrics = update(0.5, mean=3.0, log_std=0.3, temperature=0.0)
    assert metrics["actor/loss"] == pytest.approx(-scipy.stats.norm.logpdf(0.5, 3.0, np.exp(0.3)), rel=1e-5)
    agent = make_agent("awac")
    params = jax.tree.map(jnp.zeros_like, agent.init(jax.random.key(0), transitions(1.0, 0.0)).params)
    params["actor"]["params"]["MLP_0"]["Dense_2"]["bias"] = jnp.array([3.0])
    assert act("awac", params, [1.0])[0] == 1.0
    params["actor"]["params"]["MLP_0"]["Dense_2"]["bias"] = jnp.array([0.9])
    assert act("awac", params, [1.0])[0] == pytest.approx(0.9)
