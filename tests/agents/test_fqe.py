"""Fitted Q-evaluation against the solution of Bellman's linear equations, with numbered actions and with vectors."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rl_jax.agents import fqe
from rl_jax.agents.fqe import PolicyTransitions
from rl_jax.data.transitions import Transitions
from rl_jax.networks.distributions import Categorical, Deterministic, Gaussian

DISCOUNT = 0.8


def settings(**overrides):
    """A linear function, with which fitted Q-evaluation has the exact answer where observations are one-hot."""
    config = fqe.default_config()
    config.update({"hidden_dims": (), "learning_rate": 0.05, "discount": DISCOUNT, "target_every": 20, **overrides})
    return config


def trained(agent, batch, num_updates):
    state = agent.init(jax.random.key(0), batch)

    def step(state, key):
        state, metrics = agent.update(state, batch, key)
        return state.replace(step=state.step + 1), metrics

    state, metrics = jax.jit(lambda state, keys: jax.lax.scan(step, state, keys))(
        state, jax.random.split(jax.random.key(1), num_updates)
    )
    return state, metrics


def test_numbered_actions_have_the_exact_values_and_time_outs_bootstrap():
    """3 states and 2 actions, one step each: action 1 in state 2 terminates, action 0 there is cut by a time-out."""
    states, actions = np.repeat(np.arange(3), 2), np.tile(np.arange(2), 3)
    after, rewards = np.array([1, 2, 2, 0, 0, 1]), np.array([1.0, 0.0, -1.0, 2.0, 0.5, 3.0])
    masks = np.array([1.0, 1.0, 1.0, 1.0, 1.0, 0.0])
    policy = np.array([[0.25, 0.75], [0.5, 0.5], [0.9, 0.1]])
    one_hot = np.eye(3, dtype=np.float32)
    batch = jax.tree.map(jnp.asarray, PolicyTransitions(
        Transitions(one_hot[states], actions.astype(np.int32), rewards.astype(np.float32), masks.astype(np.float32),
                    one_hot[after]),
        Categorical(np.log(policy[after]).astype(np.float32)),
    ))
    # Q = r + gamma masks P_pi Q, six equations.
    transition = np.zeros((6, 6))
    for row, (state, mask) in enumerate(zip(after, masks)):
        transition[row, 2 * state : 2 * state + 2] = DISCOUNT * mask * policy[state]
    expected = np.linalg.solve(np.eye(6) - transition, rewards)

    agent = fqe.fqe(settings(), num_actions=2)
    state, metrics = trained(agent, batch, 1500)
    given = batch.transitions
    np.testing.assert_allclose(agent.q(state.params, given.observations, given.actions), expected, atol=0.02)
    values = agent.value(state.params, jnp.asarray(one_hot), Categorical(jnp.log(policy)), jax.random.key(0))
    np.testing.assert_allclose(values, (policy * expected.reshape(3, 2)).sum(1), atol=0.02)
    assert metrics["critic/loss"][-1] < 1e-3 < metrics["critic/loss"][0]


@pytest.mark.parametrize("policy, slack", [
    (lambda mean: Deterministic(mean), 0.02),
    pytest.param(lambda mean: Gaussian(mean, jnp.full_like(mean, jnp.log(0.1))), 0.05, marks=pytest.mark.slow),
])
def test_actions_that_are_vectors(policy, slack):
    """State 0 leads to state 1, which ends; both are worth the action, and the policy does 0.5: Q(0, a) = a + 0.4."""
    rng = np.random.default_rng(0)
    actions = rng.uniform(-1, 1, (64, 1)).astype(np.float32)
    first = np.arange(64) % 2 == 0
    one_hot = np.eye(2, dtype=np.float32)
    batch = jax.tree.map(jnp.asarray, PolicyTransitions(
        Transitions(one_hot[1 - first], actions, actions[:, 0], first.astype(np.float32), one_hot[np.ones(64, int)]),
        policy(jnp.full((64, 1), 0.5)),
    ))
    agent = fqe.fqe(settings(num_samples=8, learning_rate=0.02))
    state, _ = trained(agent, batch, 1500)
    found = agent.q(state.params, batch.transitions.observations, batch.transitions.actions)
    np.testing.assert_allclose(found, actions[:, 0] + np.where(first, DISCOUNT * 0.5, 0.0), atol=slack)
    values = agent.value(state.params, jnp.eye(2), policy(jnp.full((2, 1), 0.5)), jax.random.key(2))
    np.testing.assert_allclose(values, [0.5 + DISCOUNT * 0.5, 0.5], atol=0.1)


def test_the_target_copy_follows_every_so_many_updates():
    batch = PolicyTransitions(
        Transitions(jnp.ones((4, 1)), jnp.zeros(4, jnp.int32), jnp.ones(4), jnp.zeros(4), jnp.ones((4, 1))),
        Categorical(jnp.zeros((4, 2))),
    )
    agent = fqe.fqe(settings(target_every=3), num_actions=2)
    state, update = agent.init(jax.random.key(0), batch), jax.jit(agent.update)
    start = state.params
    for done in range(1, 7):
        state, _ = update(state, batch, jax.random.key(done))
        state = state.replace(step=state.step + 1)
        latest = jax.tree.map(np.array_equal, state.target_params, state.params)
        assert all(jax.tree.leaves(latest)) == (done % 3 == 0)
    assert not all(jax.tree.leaves(jax.tree.map(np.array_equal, state.target_params, start)))
