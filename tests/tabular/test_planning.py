"""Exact returns of policies against the analysis of them as exploration policies, and against episodes."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rl_jax.tabular import planning
from rl_jax.tabular.effective_horizon import analyze
from rl_jax.tabular.environment import environment
from rl_jax.tabular.files import bridge_mdp
from rl_jax.tabular.mdp import TabularMDP

LOOP = TabularMDP(np.array([[1, 0], [2, 0], [0, -1]]), np.array([[0, 1], [2, -1], [0.5, 3]], np.float32), 6)


@pytest.mark.parametrize("sticky", [0.0, 0.25])
def test_returns_of_policies_are_exact(sticky):
    mdp, rng = bridge_mdp("maze_easy_l0_30_fs1"), np.random.default_rng(0)
    policy = rng.dirichlet(np.full(mdp.num_actions, 0.3), (mdp.horizon, mdp.num_states))
    uniform = np.full(mdp.rewards.shape, 1.0 / mdp.num_actions)
    random = analyze(mdp, sticky=sticky).random_return
    assert planning.policy_return(mdp, uniform, sticky) == pytest.approx(random, rel=1e-13)
    together = planning.policy_returns(mdp, sticky)(np.stack([policy, np.broadcast_to(uniform, policy.shape)]))
    assert together.dtype == np.float64
    expected = [analyze(mdp, sticky=sticky, exploration_policy=policy).random_return, random]
    np.testing.assert_allclose(together, expected, rtol=1e-12)


def test_episodes_have_the_exact_return_on_average():
    sticky, episodes = 0.25, 20_000
    env, policy = environment(LOOP, sticky=sticky), np.array([[0.7, 0.3], [0.2, 0.8], [0.5, 0.5]])

    def episode(key):
        def step(carry, key):
            state, alive, total = carry
            action_key, step_key = jax.random.split(key)
            action = jax.random.categorical(action_key, jnp.log(policy)[state.state])
            state, result = env.step(state, action, step_key)
            total += alive * result.reward
            return (state, alive & ~(result.terminated | result.truncated), total), None

        return jax.lax.scan(step, (env.reset(key)[0], True, 0.0), jax.random.split(key, LOOP.horizon))[0][2]

    returns = np.asarray(jax.jit(jax.vmap(episode))(jax.random.split(jax.random.key(0), episodes)))
    exact = planning.policy_return(LOOP, policy, sticky)
    assert abs(returns.mean() - exact) < 4 * returns.std() / math.sqrt(episodes)
    assert abs(planning.policy_return(LOOP, policy) - exact) > 8 * returns.std() / math.sqrt(episodes)


def test_bad_policies_are_named():
    with pytest.raises(ValueError, match=r"policy has shape \(2, 2\): give \[6, 3, 2\]"):
        planning.policy_return(LOOP, np.ones((2, 2)) / 2)
    wrong = np.full((6, 3, 2), 0.5)
    wrong[1, 2] = [0.5, 0.6]
    with pytest.raises(ValueError, match=r"policy\[1, 2\] is \[0.5, 0.6\]: probabilities .* sum to 1"):
        planning.policy_return(LOOP, wrong)
    with pytest.raises(ValueError, match=r"policies has shape \(6, 3, 2\): give \[policies, 6 or 1, 3, 2\]"):
        planning.policy_returns(LOOP)(wrong)
