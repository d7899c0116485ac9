"""CQL and Cal-QL: what the regulariser makes of Q in closed form, the bound by the data's returns, the noise."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.optimize

from rl_jax.agents import cql
from rl_jax.networks.values import Critic
from tests.agents.cases import SIZE, SMALL, make_agent, make_config, train, transitions, update_of

RNG = np.random.default_rng(4)
DATA = transitions(RNG.normal(size=SIZE), RNG.uniform(-1, 1, SIZE), RNG.normal(size=SIZE), masks=1.0)
# The bandit: one observation, actions that fill the box evenly, rewards that are best in its middle, where the policy
# starts: with a policy that stays there few samples estimate the integral of exp Q well.
ACTIONS = np.linspace(-1, 1, 2 * SIZE + 1)[1::2]
REWARDS = -6.0 * np.square(ACTIONS)
BANDIT = {"conservatism": 2.0, "actor_learning_rate": 0.0}
MIDDLE = np.abs(ACTIONS) < 0.8  # at the edges of the box a small network smooths


def bandit(mc_returns: float):
    return transitions(1.0, ACTIONS, REWARDS).replace(mc_returns=np.full(SIZE, mc_returns, np.float32))


def q_values(params) -> np.ndarray:
    batch = transitions(1.0, ACTIONS)
    return np.asarray(Critic(SMALL["hidden_dims"]).apply(params["critic"], batch.observations, batch.actions))


def regularised(weight: float) -> np.ndarray:
    """The minimiser of mean (Q - r)^2 + weight (log integral exp Q - mean Q) over uniform actions.

    Where its derivative is zero, Q = r - weight / 2 (p / beta - 1), with p the density exp Q / Z and beta the data's.
    """

    def residual(q: np.ndarray) -> np.ndarray:
        return q - REWARDS + weight / 2 * (np.exp(q) / np.exp(q).mean() - 1.0)

    return scipy.optimize.root(residual, REWARDS).x


@pytest.mark.slow
def test_q_is_the_regularised_regression_in_closed_form():
    state, _ = train("cql", bandit(0.0), **BANDIT, num_samples=8)
    answer = regularised(2.0)
    for other in (0.0, 1.0, 4.0):  # what the tolerance must tell apart
        assert np.abs(answer - regularised(other))[MIDDLE].max() > 0.3
    for member in q_values(state.params):
        np.testing.assert_allclose(member[MIDDLE], answer[MIDDLE], atol=0.1)


@pytest.mark.slow
def test_returns_far_above_leave_nothing_to_push_down():
    """Every action of the policy counts with the return for its value and the random ones are outweighed: what stays of
    the regulariser lifts the data, Q = r + weight / 2."""
    state, metrics = train("cql", bandit(100.0), **BANDIT, calibrated=True)
    assert metrics["critic/bounded"] == 1.0
    for member in q_values(state.params):
        np.testing.assert_allclose(member[MIDDLE], REWARDS[MIDDLE] + 1.0, atol=0.12)


def test_without_a_bound_a_calibrated_update_is_cqls():
    states = []
    for calibrated in (False, True):
        agent = make_agent("cql", calibrated=calibrated)
        state = agent.init(jax.random.key(0), DATA)
        unbounded = DATA.replace(mc_returns=np.full(SIZE, -np.inf, np.float32))
        states.append(update_of("cql", calibrated=calibrated)(state, unbounded, jax.random.key(1))[0])
    for one, other in zip(*map(jax.tree.leaves, states), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-6, atol=1e-8)


def test_missing_returns_are_named_with_the_remedy():
    with pytest.raises(ValueError, match=r"mc_returns: set config.dataset.columns = \('mc_returns',\)"):
        make_agent("cql", calibrated=True).init(jax.random.key(0), DATA.replace(mc_returns=None))


def test_cal_ql_is_cql_with_the_bound():
    differing = {field for field, value in cql.cal_ql_config().items() if value != cql.default_config()[field]}
    assert differing == {"calibrated"}


def test_the_policy_starts_narrow_and_flat_and_so_do_the_critics():
    agent = make_agent("cql")
    params = agent.init(jax.random.key(0), DATA).params
    observations = jnp.asarray(DATA.observations)
    modes = agent.act(params, observations, jax.random.key(1), 0.0)
    samples = jnp.arctanh(agent.act(params, jnp.full((20_000, 1), 0.1), jax.random.key(1), 1.0))
    assert np.abs(modes).max() < 0.05
    assert np.std(samples) == pytest.approx(np.exp(-1.0), rel=0.03)
    q = Critic(make_config("cql").hidden_dims).apply(params["critic"], observations, DATA.actions)
    assert 0 < np.abs(q).max() < 0.1
    for layer, gain in enumerate((2**0.5, 2**0.5, 0.01)):
        for kernel in params["critic"]["params"]["members"]["MLP_0"][f"Dense_{layer}"]["kernel"]:
            np.testing.assert_allclose(np.linalg.svd(kernel, compute_uv=False), gain, rtol=1e-4)
