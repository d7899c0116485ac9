"""XQL: V as the soft maximum of Q, where it is fitted, its clip, and the critic's Huber loss."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.special
import scipy.stats

from rl_jax.core.program import Metrics, TrainState
from rl_jax.networks.values import Value
from tests.agents.cases import (
    SIZE,
    SMALL,
    act,
    linear_critics,
    make_agent,
    make_config,
    train,
    transitions,
    update_of,
)

ACTIONS = np.clip(np.random.default_rng(6).normal(0.0, 0.4, SIZE), -1, 1)
REWARDS = 1.0 - np.square(ACTIONS - 0.5)
MANY = 16 * SIZE  # enough draws for a rate to be known within 0.05


def soft_maximum(beta: float) -> float:
    return beta * (scipy.special.logsumexp(REWARDS / beta) - np.log(SIZE))


# beta, temperature: the authors', and a beta at which V is near the maximum
BANDITS = [(2.0, 3.0), (0.1, 10.0)]


@pytest.mark.parametrize("beta, temperature", BANDITS)
def test_v_is_the_soft_maximum_and_the_policy_the_weighted_data(beta, temperature):
    # The largest weight is exp(10 (1 - 0.85)); the cap is for the first updates, with values far off.
    settings = {"beta": beta, "temperature": temperature, "max_weight": 10.0}
    state, metrics = train("xql", transitions(1.0, ACTIONS, REWARDS), **settings)
    v = Value(SMALL["hidden_dims"], layer_norm=True).apply(state.params["value"], jnp.ones((1, 1)))
    assert v[0] == pytest.approx(soft_maximum(beta), abs=0.015)
    weights = np.exp(temperature * REWARDS)
    mean = np.average(ACTIONS, weights=weights)
    assert act("xql", state.params, [1.0])[0] == pytest.approx(mean, abs=0.03)
    std = np.sqrt(np.average(np.square(ACTIONS - mean), weights=weights))
    assert np.exp(float(state.params["actor"]["params"]["log_std"][0])) == pytest.approx(std, abs=0.03)
    assert metrics["value/clipped"] < 0.05


def test_the_closed_forms_tell_the_settings_apart():
    (mild, greedy) = (soft_maximum(beta) for beta, _ in BANDITS)
    assert REWARDS.mean() + 0.01 < mild < greedy - 0.1 and greedy < REWARDS.max() - 0.05


def update(actions, slopes=(1.0, 1.0), rewards=0.0, name="xql", **settings) -> tuple[TrainState, TrainState, Metrics]:
    """One update from networks that are zero but for the target critics, Q_i(s, a) = slopes[i] * a: so V is 0 too."""
    data = transitions(1.0, actions, rewards)
    data = jax.tree.map(lambda x: jnp.tile(x, (MANY // SIZE, *[1] * (x.ndim - 1))), data)
    shapes = jax.eval_shape(make_agent(name).init, jax.random.key(0), data)
    state = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), shapes)
    linear_critics(state.target_params["critic"], slopes)
    return state, *update_of(name, **settings)(state, data, jax.random.key(1))


def clipped(actions, **settings) -> float:
    """How often Q(s, a) lies above max_clip where V is fitted, for Q = a, V = 0 and beta = 1."""
    return float(update(actions, beta=1.0, **settings)[2]["value/clipped"])


def test_noise_where_v_is_fitted_is_clipped_and_so_is_the_action():
    huge = {"noise_std": 1e6}  # the clip itself, with either sign
    assert clipped(0.0, max_clip=0.49, **huge) == pytest.approx(0.5, abs=0.05)
    assert clipped(0.0, max_clip=0.51, **huge) == 0.0
    assert clipped(0.9, max_clip=0.99, **huge) == pytest.approx(0.5, abs=0.05)
    assert clipped(0.9, max_clip=1.01, **huge) == 0.0
    assert clipped(0.0, max_clip=0.05, noise_std=0.1) == pytest.approx(scipy.stats.norm.sf(0.5), abs=0.05)
    assert clipped(0.0, max_clip=0.001, noise_std=0.0) == 0.0


def test_uniform_actions_are_added_to_those_of_the_data():
    # Those of the data are never above, a uniform one is with probability 0.4.
    assert clipped(-1.0, max_clip=0.2, random_actions=3) == pytest.approx(0.75 * 0.4, abs=0.02)
    assert clipped(-1.0, max_clip=0.2, random_actions=0) == 0.0


def test_the_policy_is_weighted_at_the_actions_of_the_data():
    _, _, metrics = update(0.0, learning_rate=0.0, noise_std=1e6, random_actions=3)
    assert metrics["actor/weight"] == pytest.approx(1.0)  # Q(s, 0) = V


@pytest.mark.parametrize("action, least", [(0.5, 0.5), (-0.5, -1.0)])
def test_the_lesser_critic_counts_for_v_and_for_the_policy(action, least):
    _, _, metrics = update(action, slopes=(1.0, 2.0), learning_rate=0.0, beta=2.0, temperature=1.5)
    assert metrics["actor/weight"] == pytest.approx(np.exp(1.5 * least), rel=1e-5)
    z = least / 2.0
    assert metrics["value/loss"] == pytest.approx((np.exp(z) - z - 1) / np.exp(z), rel=1e-4)


def test_a_batch_that_is_clipped_as_a_whole_leaves_v_where_it_is():
    for max_clip, whole in [(0.4, True), (0.6, False)]:
        before, after, metrics = update(0.5, beta=1.0, max_clip=max_clip)
        moved = [np.any(a != b) for a, b in zip(*(jax.tree.leaves(s.params["value"]) for s in (before, after)))]
        assert (metrics["value/clipped"], any(moved)) == (float(whole), not whole)


@pytest.mark.parametrize("reward, huber", [(1.0, 0.5), (-10.0, 50.0), (100.0, 0.5 * 20**2 + 20 * 80)])
def test_the_critics_loss_is_a_line_beyond_huber_delta(reward, huber):
    assert make_config("xql").huber_delta == 20.0
    _, _, metrics = update(0.0, rewards=reward)  # Q = 0, and both critics add
    assert metrics["critic/loss"] == pytest.approx(2 * huber, rel=1e-5)


def test_f_dvl_fits_v_at_uniform_actions_too():
    """Q = 10 a lies 4 below V = 0 at three tenths of the uniform actions, and at none of the data's."""
    for count in (0, 1, 3):
        far = update(0.0, (10.0, 10.0), name="fdvl", random_actions=count)[2]["value/far"]
        assert far == pytest.approx(0.3 * count / (1 + count), abs=0.03)
