"""Minimax learning of ratios of visitations and values: the exact ones are saddle points, and tables are learnt."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rl_jax.agents import dice as module
from rl_jax.agents.dice import METHODS, Marginal
from rl_jax.agents.fqe import PolicyTransitions
from rl_jax.data.transitions import Transitions
from rl_jax.networks.distributions import Categorical
from rl_jax.tabular.stochastic import random_mdp

DISCOUNT = 0.7
MDP = random_mdp(3, 2, horizon=1, seed=4)._replace(start=np.full(3, 1 / 3))
POLICY, BEHAVIOUR = np.array([[0.8, 0.2], [0.3, 0.7], [0.5, 0.5]]), np.array([[0.4, 0.6], [0.6, 0.4], [0.5, 0.5]])


def visitation(policy, discount=DISCOUNT):
    """(1 - gamma) sum_t gamma^t Pr(s_t = s, a_t = a), [S, A], of an endless episode."""
    moves = np.einsum("sa,sax->sx", policy, MDP.transitions)
    states = np.linalg.solve(np.eye(3) - discount * moves.T, (1 - discount) * MDP.start)
    return states[:, None] * policy


RATIO = visitation(POLICY) / visitation(BEHAVIOUR)
FLOW = np.einsum("sax,xb->saxb", MDP.transitions, POLICY).reshape(6, 6)
Q = np.linalg.solve(np.eye(6) - DISCOUNT * FLOW, MDP.rewards.ravel()).reshape(3, 2)


def population(discount=DISCOUNT):
    """Every step with how often the behaviour policy's data have it, as one batch; starts likewise."""
    states, actions, after = (x.ravel() for x in np.meshgrid(np.arange(3), np.arange(2), np.arange(3), indexing="ij"))
    chances = visitation(BEHAVIOUR, discount)[states, actions] * MDP.transitions[states, actions, after]
    one_hot, log_policy = np.eye(3, dtype=np.float32), np.log(POLICY).astype(np.float32)
    steps = Transitions(
        one_hot[states], actions.astype(np.int32), MDP.rewards[states, actions].astype(np.float32),
        np.ones(18, np.float32), one_hot[after],
    )
    return jax.tree.map(jnp.asarray, Marginal(
        PolicyTransitions(steps, Categorical(log_policy[after])),
        (chances * 18 / (1 - discount)).astype(np.float32), one_hot, Categorical(log_policy),
    ))


def settings(method, **overrides):
    config = module.default_config()
    config.update({"method": method, "hidden_dims": (), "discount": DISCOUNT, "bandwidth": 0.3, **overrides})
    return config


def with_tables(state, ratio=None, q=None):
    """The state with these tables [S, A] as its linear networks of one-hot states."""

    def linear(table):
        return {"params": {"MLP_0": {"Dense_0": {"kernel": jnp.asarray(table, jnp.float32), "bias": jnp.zeros(2)}}}}

    params = dict(state.params)
    if ratio is not None:
        params["ratio"] = linear(np.log(np.expm1(ratio)) - module.ONE)
    if q is not None:
        params["critic"] = linear(q)
    assert jax.tree.structure(params) == jax.tree.structure(state.params)
    return state.replace(params=params)


@pytest.mark.parametrize("method, network", [("mwl", "critic"), ("mql", "ratio"), ("best_dice", "multiplier")])
def test_exact_ratios_and_values_are_saddle_points(method, network):
    """With the exact ratio the flow of any function vanishes and its mean is 1, with the exact Q the Bellman errors."""
    agent = module.dice(settings(method), num_actions=2)
    state = agent.init(jax.random.key(0), population())
    exact = with_tables(state, RATIO, Q)
    shown = agent.weights(exact.params, jnp.eye(3), jnp.array([1, 0, 1]))
    np.testing.assert_allclose(shown, RATIO[[0, 1, 2], [1, 0, 1]], rtol=1e-5)
    update = jax.jit(agent.update)
    norms = [
        float(update(one, population(), jax.random.key(0))[1][f"{network}/grad_norm"])
        for one in (exact, with_tables(state, np.ones((3, 2)), np.zeros((3, 2))))
    ]
    assert norms[0] < 1e-5
    assert network == "multiplier" or norms[1] > 1e-2


def learnt(method, num_updates=2000, **overrides):
    agent, batch = module.dice(settings(method, **overrides), num_actions=2), population()
    state = agent.init(jax.random.key(0), batch)

    def both_halves(key):  # of a kernel's batch are the whole population
        return jax.tree.map(lambda x: jnp.concatenate([x, x]), batch) if "kernel" in METHODS[method] else batch

    def step(state, key):
        return agent.update(state, both_halves(key), key)[0], None

    state, _ = jax.jit(lambda s: jax.lax.scan(step, s, jax.random.split(jax.random.key(1), num_updates)))(state)
    states, actions = jnp.repeat(jnp.eye(3), 2, 0), jnp.tile(jnp.arange(2), 3)
    return tuple(np.asarray(f(state.params, states, actions)).reshape(3, 2) for f in (agent.weights, agent.q))


@pytest.mark.parametrize("method", [
    pytest.param("dual_dice", marks=pytest.mark.slow), pytest.param("algae_dice", marks=pytest.mark.slow), "kernel_mwl",
    pytest.param("kernel_mql", marks=pytest.mark.slow),
])
def test_what_is_learnt_is_the_exact_ratio_or_q(method):
    w, q = learnt(method, learning_rate=0.01)
    if method == "kernel_mql":
        np.testing.assert_allclose(q, Q, atol=0.01)
    else:
        np.testing.assert_allclose(w, RATIO, atol=0.2 if method == "algae_dice" else 0.02)


def test_ratios_of_a_wrong_pattern_cost_less_the_smaller_they_are():
    """Why learnt ratios shrink at first where the discount is near 1, also where they are 1 on the mean."""
    agent = module.dice(settings("kernel_mwl", discount=0.98), num_actions=2)
    batch = jax.tree.map(lambda x: jnp.concatenate([x, x]), population(0.98))
    state, update = agent.init(jax.random.key(0), batch), jax.jit(agent.update)
    exact = visitation(POLICY, 0.98) / visitation(BEHAVIOUR, 0.98)
    losses = [
        float(update(with_tables(state, ratio), batch, jax.random.key(0))[1]["kernel/loss"])
        for ratio in (exact, np.full((3, 2), 0.1), np.ones((3, 2)))
    ]
    assert abs(losses[0]) < 1e-3 * losses[1] and losses[2] > 5 * losses[1] > 1e-5


def test_the_exact_ratio_of_states_is_a_saddle_point_too():
    """With the policies' ratio beside rho(s) the flow of any function of state and action vanishes."""
    agent, batch = module.dice(settings("mwl", marginal="state"), num_actions=2), population()
    given = batch.steps.transitions
    taken = jnp.argmax(given.observations, -1), given.actions
    batch = batch.replace(ratios=jnp.asarray((POLICY / BEHAVIOUR).astype(np.float32))[taken])
    state, update, norms = agent.init(jax.random.key(0), batch), jax.jit(agent.update), []
    for rho in (RATIO[:, 0] * BEHAVIOUR[:, 0] / POLICY[:, 0], np.ones(3)):
        table = jax.tree.map(lambda x: jnp.zeros_like(x), state.params["ratio"])
        kernel = jnp.asarray(np.log(np.expm1(rho)) - module.ONE, jnp.float32)[:, None]
        table = jax.tree.map(lambda x: kernel if x.shape == kernel.shape else x, table)
        exact = state.replace(params=state.params | {"ratio": table})
        np.testing.assert_allclose(agent.weights(exact.params, jnp.eye(3), jnp.zeros(3, jnp.int32)), rho, rtol=1e-5)
        norms.append(float(update(exact, batch, jax.random.key(0))[1]["critic/grad_norm"]))
    assert norms[0] < 1e-5 < 1e-2 < norms[1]


@pytest.mark.parametrize("fields, message", [
    ({"method": "dual"}, "unknown method 'dual': "),
    ({"method": "mwl", "marginal": "states"}, "unknown marginal 'states'"),
])
def test_what_is_unknown(fields, message):
    with pytest.raises(ValueError, match=message):
        module.dice(settings(**fields))
