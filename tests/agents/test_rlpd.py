"""RLPD's own parts: the subset of the target, the mean of the policy, minibatches; updates are in tests/golden."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rl_jax.agents import rlpd
from tests.agents.cases import QUICK, SIZE, make_agent, make_config, transitions

RNG = np.random.default_rng(0)
DATA = transitions(RNG.normal(size=SIZE), RNG.uniform(-1, 1, SIZE), 0.0, 1.0, RNG.normal(size=SIZE))
CONSTANTS = np.array([0.0, 1.0, 10.0], np.float32)


def with_constant_members(agent):
    """A state whose critics and target critics are the constants, one a member, whatever they read."""
    state = agent.init(jax.random.key(0), DATA)
    critic = jax.tree.map(jnp.zeros_like, state.params["critic"])
    last = critic["params"]["members"]["MLP_0"]["Dense_2"]
    last["bias"] = jnp.asarray(CONSTANTS)[:, None]
    return state.replace(params=state.params | {"critic": critic}, target_params={"critic": critic})


@pytest.mark.parametrize("size, minima", [(1, {0.0, 1.0, 10.0}), (2, {0.0, 1.0})])
def test_the_minimum_is_over_a_subset_that_is_drawn_anew(size, minima):
    """Each critic is a constant c, each target a minimum m of some of them: the loss is the mean of (c - 0.5 m)^2."""
    agent = make_agent("rlpd", num_critics=3, num_min_critics=size, discount=0.5, utd=1)
    state, update = with_constant_members(agent), jax.jit(agent.update, compiler_options=QUICK)
    losses = [float(update(state, DATA, jax.random.key(i))[1]["critic/loss"]) for i in range(12)]
    expected = {m: float(np.mean(np.square(CONSTANTS - 0.5 * m))) for m in minima}
    found = {min(expected, key=lambda m: abs(expected[m] - loss)) for loss in losses}
    assert found == minima
    assert all(min(abs(loss - x) for x in expected.values()) < 1e-4 for loss in losses)


def test_the_policy_climbs_the_mean_of_all_critics():
    """With critics that do not change its loss is alpha log pi - mean; at the start alpha is 1."""
    agent = make_agent("rlpd", num_critics=3, num_min_critics=1, learning_rate=1e-12, utd=1)
    _, metrics = jax.jit(agent.update, compiler_options=QUICK)(with_constant_members(agent), DATA, jax.random.key(0))
    assert metrics["actor/loss"] + metrics["actor/entropy"] == pytest.approx(-CONSTANTS.mean(), abs=1e-4)


def test_a_batch_of_other_than_whole_minibatches_and_too_many_members_are_errors():
    with pytest.raises(ValueError, match="num_min_critics is 3: .* num_critics=2 critics, set it to at most that"):
        rlpd.rlpd(make_config("rlpd", num_min_critics=3), 1)
    agent = make_agent("rlpd", utd=3)
    with pytest.raises(ValueError, match="a batch of 128 steps is no utd=3 minibatches of equal size"):
        jax.eval_shape(agent.update, agent.init(jax.random.key(0), DATA), DATA, jax.random.key(0))


def test_its_settings_are_the_authors():
    config = rlpd.default_config()
    assert (config.num_critics, config.num_min_critics, config.utd) == (10, 2, 1)
    assert config.layer_norm and not config.backup_entropy
    assert (config.tau, config.discount, config.learning_rate, config.target_entropy) == (0.005, 0.99, 3e-4, 0.5)
