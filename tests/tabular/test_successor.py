"""Successor measures and the exact forward-backward representation of a maze, in float64."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rl_jax.losses.forward_backward import successor_loss, successor_target
from rl_jax.tabular.maze import maze_mdp
from rl_jax.tabular.successor import Chain, backward, forward, occupancy, optimal_values, successor_measure, values_of

CHAIN = Chain(np.asarray(maze_mdp(["S..", ".#.", "..G"])[0].transitions), 0.9)
COUNT, ACTIONS = CHAIN.transitions.shape


def test_the_measure_counts_what_follows_by_hand_and_by_roll_outs():
    """Two states: action 0 stays, action 1 goes to the other one."""
    chain = Chain(np.array([[0, 1], [1, 0]]), 0.5)
    measure = successor_measure(chain, np.array([1, 0]))  # to state 1, and there for ever
    np.testing.assert_allclose(measure[0], [[1.0, 1.0], [0.0, 2.0]])  # s_{t+1}, so that the next state is counted first
    policy = np.random.default_rng(0).integers(0, ACTIONS, COUNT)
    found, at = np.zeros(COUNT), CHAIN.transitions[3, 2]
    for t in range(400):
        found[at] += CHAIN.discount**t
        at = CHAIN.transitions[at, policy[at]]
    np.testing.assert_allclose(successor_measure(CHAIN, policy)[3, 2], found, rtol=1e-10)


@pytest.mark.parametrize("seed", range(3))
def test_the_policy_of_a_reward_is_optimal_and_that_of_an_expert_at_least_as_good(seed):
    rng = np.random.default_rng(seed)
    rewards = rng.normal(size=COUNT)
    _, policy = forward(CHAIN, CHAIN.visits * rewards @ backward(CHAIN))  # z_r = E_rho[r B]
    np.testing.assert_allclose(values_of(CHAIN, policy, rewards), optimal_values(CHAIN, rewards), atol=1e-10)
    expert = rng.dirichlet(np.ones(ACTIONS), COUNT)
    visits = occupancy(CHAIN, expert, 0)
    assert visits.sum() == pytest.approx(1.0)
    _, policy = forward(CHAIN, visits @ backward(CHAIN))  # z_imit = E_expert[B]
    ratio = visits / CHAIN.visits
    assert values_of(CHAIN, policy, ratio)[0] >= values_of(CHAIN, expert, ratio)[0]
    assert values_of(CHAIN, expert, ratio)[0] == pytest.approx(visits @ ratio / (1 - CHAIN.discount))


def gradients(of_pair):
    """The gradient in F and B of a loss of batches (i, j), the mean over all pairs, at the exact representation."""
    with jax.enable_x64(True):
        f, policy = forward(CHAIN, np.random.default_rng(0).normal(size=COUNT))
        f, b = jnp.asarray(f.reshape(-1, COUNT)), jnp.asarray(backward(CHAIN))
        after = jnp.asarray(CHAIN.transitions.ravel())
        best = after * ACTIONS + jnp.asarray(policy)[after]
        pairs = jnp.stack(jnp.meshgrid(jnp.arange(len(f)), jnp.arange(len(f))), -1).reshape(-1, 2)

        def population(tables):
            def batch(pair):
                target = successor_target(f[best[pair]][None], b[after[pair]], jnp.full(2, CHAIN.discount))
                return of_pair(tables[0][pair][None], tables[1][after[pair]], target)

            return jnp.mean(jax.vmap(batch)(pairs))

        return [float(jnp.max(jnp.abs(x))) for x in jax.jit(jax.grad(population))((f, b))]


def test_the_population_loss_has_no_gradient_at_the_exact_representation():
    assert max(gradients(lambda *pair: successor_loss(*pair)[0])) < 1e-12


def test_the_gradient_is_there_if_the_diagonal_joins_or_the_linear_term_is_halved():
    def with_diagonal(f, b, target):
        measures = f @ b.T
        return 0.5 * jnp.mean(jnp.square(measures - target)) - jnp.mean(jnp.diagonal(measures[0]))

    def halved(f, b, target):
        loss, info = successor_loss(f, b, target)
        return loss - 0.5 * info["fb/diagonal"]

    for wrong in (with_diagonal, halved):
        assert min(gradients(wrong)) > 1e-3


def test_a_state_that_never_follows_is_named():
    with pytest.raises(ValueError, match="state 0 is never reached"):
        backward(Chain(np.array([[1], [1]]), 0.9))
