"""ReCOIL in both its forms and ReCOIL-V: their targets, that rewards are not read, and a probe with a known expert."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rl_jax.data.transitions import Demonstrations
from rl_jax.losses.divergence import PEARSON_CHI2
from rl_jax.losses.dual import mixture_dual_loss
from tests.agents.cases import SIZE, act, as_demonstrations, train, transitions

RNG = np.random.default_rng(3)
OBSERVATIONS = RNG.uniform(-1, 1, SIZE)
EXPERT = np.where(OBSERVATIONS > 0, 0.5, -0.5)  # the expert's action
NEXT = RNG.uniform(-1, 1, SIZE)
METHODS = {
    "recoil": ("recoil", {"gumbel_beta": 0.5}),
    "recoil_objective": ("recoil", {"form": "objective", "gumbel_beta": 0.5}),
    "recoil_v": ("recoil_v", {}),
}


def demonstrations(masks=1.0):
    """Random actions, and an expert's in a fifth of the offline rows."""
    mixed = np.where(np.arange(SIZE) % 5 == 0, EXPERT, RNG.uniform(-1, 1, SIZE))
    return Demonstrations(
        transitions(OBSERVATIONS, EXPERT, masks=masks, next_observations=NEXT),
        transitions(OBSERVATIONS, mixed, masks=masks, next_observations=NEXT),
    )


def test_the_stated_objective_regresses_on_a_reward_of_two_for_the_expert_and_none_for_the_rest():
    """With chi2 and V held fixed: beta/4 (Q_E - t_E - 2)^2 + (1 - beta)/4 (Q_S - t_S)^2, but for a constant."""
    q, targets = RNG.normal(size=(2, 2, 7)).astype(np.float32)
    beta = 0.3

    def stated(q):
        expert, offline = targets - q
        return mixture_dual_loss(jnp.zeros(7), expert, offline, PEARSON_CHI2.conjugate, 0.99, beta)[0]

    def regression(q):
        errors = jnp.mean(jnp.square(q - targets - jnp.array([[2.0], [0.0]])), 1)
        return (beta * errors[0] + (1 - beta) * errors[1]) / 4

    np.testing.assert_allclose(jax.grad(stated)(q), jax.grad(regression)(q), rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("name, settings", [
    pytest.param(*method, id=label, marks=() if label == "recoil_v" else pytest.mark.slow)
    for label, method in METHODS.items()
])
def test_rewards_are_not_read(name, settings):
    data = as_demonstrations(transitions(OBSERVATIONS, EXPERT, masks=1.0, next_observations=NEXT))
    hidden = jax.tree.map(np.copy, data)
    for part in (hidden.expert, hidden.offline):
        part.rewards[:] = np.nan
    one, other = (train(name, batch, **settings)[0].params for batch in (data, hidden))
    for x, y in zip(jax.tree.leaves(one), jax.tree.leaves(other), strict=True):
        np.testing.assert_array_equal(x, y)


def test_fixed_targets_at_terminal_steps():
    """Every step ends: an expert's is worth 2 / (1 - discount), any other -2 - discount * 2 / (1 - discount)."""
    data = Demonstrations(transitions(1.0, 0.5, masks=0.0), transitions(-1.0, -0.5, masks=0.0))
    _, metrics = train("recoil", data, steps=1500, learning_rate=1e-2)
    discount, bound = 0.5, 4.0
    # Averages over the whole run: they approach the targets from 0.
    assert 0.8 * bound < metrics["critic/mean_expert"] < bound
    assert -2.0 - discount * bound < metrics["critic/mean_offline"] < 0.8 * (-2.0 - discount * bound)


@pytest.mark.parametrize("name, settings", METHODS.values(), ids=METHODS)
def test_the_policy_is_nearer_to_the_expert_than_cloning_all_data(name, settings):
    data = demonstrations()
    state, _ = train(name, data, steps=1500, **settings)
    error = np.mean(np.square(act(name, state.params, OBSERVATIONS, **settings) - EXPERT))
    # The mean of a fifth expert and four fifths uniform actions is a fifth of the expert's.
    cloning = np.mean(np.square(0.2 * EXPERT - EXPERT))
    assert error < 0.6 * cloning
