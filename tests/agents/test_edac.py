"""EDAC: the similarity of the critics' gradients, and what eta does to it."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from rl_jax.agents import edac, sac
from rl_jax.data.transitions import Transitions
from rl_jax.networks.values import Critic
from tests.agents.cases import QUICK, make_agent, transitions, update_of

BATCH, ACTION_DIM, CRITICS = 32, 3, 4
RNG = np.random.default_rng(4)
DATA = Transitions(
    observations=jnp.asarray(RNG.normal(size=(BATCH, 2)), jnp.float32),
    actions=jnp.asarray(RNG.uniform(-1, 1, (BATCH, ACTION_DIM)), jnp.float32),
    rewards=jnp.ones(BATCH),
    masks=jnp.zeros(BATCH),
    next_observations=jnp.asarray(RNG.normal(size=(BATCH, 2)), jnp.float32),
)


def make(eta, learning_rate=1e-3):
    config = edac.default_config()
    config.update({"hidden_dims": (16, 16), "num_critics": CRITICS, "learning_rate": learning_rate})
    with config.ignore_type():  # a traced scalar
        config.eta = eta
    return edac.edac(config, ACTION_DIM)


def test_the_similarity_is_of_the_gradients_that_finite_differences_give():
    agent = make(eta=7.0, learning_rate=0.0)
    state = agent.init(jax.random.key(0), DATA)
    # Larger outputs than at the start, so that differences of Q are not lost in rounding.
    state = state.replace(params={**state.params, "critic": jax.tree.map(lambda x: 3 * x, state.params["critic"])})
    _, metrics = jax.jit(agent.update, compiler_options=QUICK)(state, DATA, jax.random.key(0))
    critic = Critic((16, 16), ensemble_size=CRITICS)
    with jax.enable_x64(True):
        params, observations, actions = (
            jax.tree.map(lambda x: jnp.asarray(np.asarray(x), jnp.float64), x)
            for x in (state.params["critic"], DATA.observations, DATA.actions)
        )
        q = jax.jit(lambda step: critic.apply(params, observations, actions + step))
        steps = 1e-7 * jnp.eye(ACTION_DIM)
        slopes = np.stack([(q(step) - q(-step)) / 2e-7 for step in steps], -1)
        error = np.square(q(0.0) - 1.0).mean() * CRITICS
    units = slopes / np.linalg.norm(slopes, axis=-1, keepdims=True)
    pairs = [(units[i] * units[j]).sum(-1).mean() for i in range(CRITICS) for j in range(CRITICS) if i != j]
    similarity = sum(pairs) / (CRITICS - 1)
    assert metrics["critic/similarity"] == pytest.approx(similarity, rel=1e-4)
    assert metrics["critic/loss"] == pytest.approx(error + 7.0 * similarity, rel=1e-4)


@pytest.mark.slow
def test_eta_drives_the_gradients_apart_while_the_critics_fit_the_data():
    def run(eta):
        agent = make(eta)

        def step(state, key):
            state, metrics = agent.update(state, DATA, key)
            return state.replace(step=state.step + 1), metrics

        keys = jax.random.split(jax.random.key(1), 400)
        state, metrics = jax.lax.scan(step, agent.init(jax.random.key(0), DATA), keys)
        return metrics["critic/similarity"][-1], metrics["critic/mean"][-1]

    similarities, means = jax.jit(jax.vmap(run))(jnp.array([0.0, 1.0]))
    # No four directions in space are further apart than a tetrahedron's corners: -N / (N - 1).
    assert -4 / 3 - 1e-5 <= similarities[1] < -1.0 < 0.0 < similarities[0]
    np.testing.assert_allclose(means, 1.0, atol=0.1)


def test_with_one_action_dimension_edac_is_sac_n():
    data = jax.tree.map(jnp.asarray, transitions(DATA.rewards[0], 0.3, 1.0))
    data = data.replace(actions=jnp.asarray(RNG.uniform(-1, 1, data.actions.shape), jnp.float32))
    gradients = []
    for name in ("edac", "sac"):
        state = make_agent(name).init(jax.random.key(0), data)
        state, _ = update_of(name, log_std_min=-5.0)(state, data, jax.random.key(1))
        gradients.append(optax.tree_utils.tree_get(state.opt_state["critic"], "mu"))
    for ours, sacs in zip(*map(jax.tree.leaves, gradients), strict=True):
        np.testing.assert_allclose(ours, sacs, atol=1e-5)


def test_one_critic_is_refused():
    config = edac.default_config()
    config.num_critics = 1
    with pytest.raises(ValueError, match="num_critics is 1"):
        edac.edac(config, ACTION_DIM)


def test_what_edac_shares_with_sac_n_is_sac_ns():
    shared = edac.default_config().to_dict()
    assert shared.pop("eta") == 1.0 and shared.pop("name") == "edac"
    assert shared == {name: value for name, value in sac.sac_n_config().items() if name != "name"}
