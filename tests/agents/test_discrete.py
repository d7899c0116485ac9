"""Agents of numbered actions in a table: cloning finds frequencies, CQL the exact Q where nothing is pushed down."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rl_jax.agents import discrete_bc, discrete_cql
from rl_jax.data.transitions import Transitions

# Two states; action 0 stays and is worth 0.1, action 1 goes to the other state and is worth the state's number. The
# data have action 0 thrice as often.
STATES, ACTIONS = np.repeat([0, 1], 4), np.tile([0, 0, 0, 1], 2)
AFTER, REWARDS = np.where(ACTIONS == 1, 1 - STATES, STATES), np.where(ACTIONS == 1, STATES, 0.1)
ONE_HOT, DISCOUNT = np.eye(2, dtype=np.float32), 0.5
BATCH = jax.tree.map(jnp.asarray, Transitions(
    ONE_HOT[STATES], ONE_HOT[ACTIONS], REWARDS.astype(np.float32), np.ones(8, np.float32), ONE_HOT[AFTER]
))


def trained(agent, updates):
    def step(state, key):
        return agent.update(state, BATCH, key)[0], None

    state = agent.init(jax.random.key(0), BATCH)
    return jax.jit(lambda s: jax.lax.scan(step, s, jax.random.split(jax.random.key(1), updates))[0])(state).params


def test_cloning_finds_the_frequencies():
    config = discrete_bc.default_config()
    config.update({"hidden_dims": (), "learning_rate": 0.05})
    agent = discrete_bc.discrete_bc(config, 2)
    params = trained(agent, 300)
    np.testing.assert_allclose(jax.nn.softmax(agent.policy(params, ONE_HOT).logits), [[0.75, 0.25]] * 2, atol=0.01)
    acted = agent.act(params, ONE_HOT, jax.random.key(0), 0.0)
    np.testing.assert_array_equal(acted, ONE_HOT[[0, 0]])


@pytest.mark.parametrize("conservatism", [0.0, 5.0])
def test_q_is_exact_and_the_more_conservative_policy_does_as_the_data(conservatism):
    config = discrete_cql.default_config()
    config.update({"hidden_dims": (), "learning_rate": 0.02, "discount": DISCOUNT, "tau": 0.1,
                   "conservatism": conservatism, "temperature": 0.5})
    agent = discrete_cql.discrete_cql(config, 2)
    q = 0.5 * agent.policy(trained(agent, 600), ONE_HOT).logits
    if conservatism:
        assert (np.argmax(q, 1) == 0).all()
    else:  # V(0) = 1/2 V(1), V(1) = 1 + 1/2 V(0)
        np.testing.assert_allclose(q, [[0.1 + 1 / 3, 2 / 3], [0.1 + 2 / 3, 4 / 3]], atol=0.02)
