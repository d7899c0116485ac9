"""SAC: the least of all critics, the temperature that holds the entropy, and how it acts."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats

from rl_jax.agents import sac
from tests.agents.cases import SIZE, act, make_agent, make_config, train, transitions, update_of

RNG = np.random.default_rng(3)
DATA = jax.tree.map(
    jnp.asarray, transitions(RNG.normal(size=SIZE), RNG.uniform(-1, 1, SIZE), RNG.normal(size=SIZE), masks=1.0)
)


# Many copies, so that means over the policy's draws have little noise.
MANY = jax.tree.map(lambda x: jnp.tile(x, (100,) + (1,) * (x.ndim - 1)), DATA)


def constant_critics():
    """An update that moves nothing, and a state in which all networks are zero."""
    settings = {"num_critics": 4, "learning_rate": 0.0}
    state = make_agent("sac", **settings).init(jax.random.key(0), DATA)
    return update_of("sac", **settings), jax.tree.map(jnp.zeros_like, state)


def test_the_target_is_the_least_of_all_critics():
    update, state = constant_critics()
    last = state.target_params["critic"]["params"]["members"]["MLP_0"]["Dense_2"]
    last["bias"] = jnp.array([[3.0], [4.0], [-2.0], [5.0]])
    state.params["temperature"]["log_alpha"] = jnp.float32(-50.0)  # no entropy
    _, metrics = update(state, MANY, jax.random.key(0))
    target = DATA.rewards - 2.0 * make_config("sac").discount
    assert metrics["critic/loss"] == pytest.approx(4 * float(jnp.mean(target**2)), rel=1e-5)  # four critics that say 0


def test_the_target_counts_the_entropy_of_the_next_action():
    """All networks are zero: -log p of a standard normal that is squashed, by quadrature."""
    update, state = constant_critics()
    _, metrics = update(state, MANY.replace(rewards=jnp.zeros(len(MANY))), jax.random.key(0))
    u = np.linspace(-12, 12, 100_001)
    log_probs = scipy.stats.norm.logpdf(u) + 2 * np.log(np.cosh(u))
    entropy, mean_square = (np.trapezoid(scipy.stats.norm.pdf(u) * x, u) for x in (-log_probs, log_probs**2))
    assert metrics["temperature/alpha"] == 1.0
    assert metrics["actor/entropy"] == pytest.approx(entropy, abs=0.03)
    assert metrics["critic/loss"] == pytest.approx(4 * make_config("sac").discount ** 2 * mean_square, rel=0.06)


@pytest.mark.slow
def test_the_temperature_holds_the_entropy_at_its_target_in_closed_form():
    """Reward -(a - 0.2)^2: a Gaussian of entropy -1, of which alpha log(deviation) - variance is stationary."""
    rewards = -np.square(DATA.actions[:, 0] - 0.2)
    state, _ = train("sac", transitions(0.0, DATA.actions[:, 0], rewards), steps=2500)
    deviation = np.exp(-1.0 - scipy.stats.norm.entropy())  # of the action: in so narrow a band the squashing is linear
    samples = make_agent("sac").act(state.params, jnp.zeros((20_000, 1)), jax.random.key(0), 1.0)
    assert np.mean(samples) == pytest.approx(0.2, abs=0.03)
    assert np.std(samples) == pytest.approx(deviation, rel=0.25)
    alpha = float(jnp.exp(state.params["temperature"]["log_alpha"]))
    assert alpha == pytest.approx(2 * deviation**2, rel=0.35)
    assert act("sac", state.params, [0.0])[0] == pytest.approx(0.2, abs=0.03)


def test_actions_are_the_squashed_gaussian_with_its_deviation_scaled():
    agent = make_agent("sac", hidden_dims=(8,))
    params = agent.init(jax.random.key(0), DATA).params
    last = params["actor"]["params"]["MLP_0"]["Dense_1"]
    last["kernel"], last["bias"] = jnp.zeros((8, 2)), jnp.array([0.3, -1.0])
    observations = jnp.zeros((20_000, 1))
    for temperature in (0.0, 0.5, 1.0):
        unsquashed = np.arctanh(agent.act(params, observations, jax.random.key(1), temperature))
        assert unsquashed.mean() == pytest.approx(0.3, abs=0.01)
        assert unsquashed.std() == pytest.approx(temperature * np.exp(-1.0), rel=0.02, abs=1e-6)


def test_each_critic_is_drawn_by_itself_and_the_deviations_bound_is_the_configs():
    config = sac.sac_n_config()
    config.hidden_dims, config.num_critics = (8, 8), 7
    agent = sac.sac(config, 1)
    state = agent.init(jax.random.key(0), DATA)
    kernel = np.asarray(state.params["critic"]["params"]["members"]["MLP_0"]["Dense_0"]["kernel"])
    assert kernel.shape == (7, 2, 8) and len(np.unique(kernel)) == kernel.size
    last = state.params["actor"]["params"]["MLP_0"]["Dense_2"]
    last["kernel"], last["bias"] = jnp.zeros((8, 2)), jnp.array([0.0, -20.0])
    samples = np.arctanh(agent.act(state.params, jnp.zeros((20_000, 1)), jax.random.key(1), 1.0))
    assert samples.std() == pytest.approx(np.exp(-5.0), rel=0.02)
