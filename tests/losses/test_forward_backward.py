"""Forward-backward losses: hand numbers, loops, and the exact representation of a maze."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rl_jax.losses.forward_backward import (
    imitation_latent,
    mixed_latents,
    on_sphere,
    orthonormality_loss,
    pessimistic,
    reward_latent,
    successor_loss,
    successor_target,
    value_loss,
    value_target,
)

RNG = np.random.default_rng(0)
COUNT, SIZE = 5, 3
FORWARD, NEXT = RNG.normal(size=(2, 2, COUNT, SIZE))
BACKWARD, NEXT_BACKWARD, LATENTS = RNG.normal(size=(3, COUNT, SIZE))
DISCOUNTS = 0.9 * np.array([1.0, 1.0, 0.0, 1.0, 1.0])


def test_the_loss_is_what_two_loops_say():
    """The diagonal has no part in the square, the linear term no half, and the pairs are N (N - 1)."""
    target = successor_target(NEXT, NEXT_BACKWARD, DISCOUNTS)
    loss = 0.0
    for f in FORWARD:
        for i in range(COUNT):
            for j in range(COUNT):
                future = DISCOUNTS[i] * np.mean([own[i] @ NEXT_BACKWARD[j] for own in NEXT])
                measure = f[i] @ BACKWARD[j]
                loss += -measure / COUNT if i == j else 0.5 * (measure - future) ** 2 / (COUNT * (COUNT - 1))
    np.testing.assert_allclose(successor_loss(FORWARD, BACKWARD, target)[0], loss, rtol=1e-5)


def test_nothing_follows_a_terminal_and_the_target_has_no_gradient():
    target = successor_target(NEXT, NEXT_BACKWARD, DISCOUNTS, 0.5)
    np.testing.assert_array_equal(target[2], 0.0)
    smaller = np.minimum(*(own @ NEXT_BACKWARD.T for own in NEXT))
    np.testing.assert_allclose(target, DISCOUNTS[:, None] * smaller, rtol=1e-5)
    for target_of in (lambda f: successor_target(f, BACKWARD, DISCOUNTS),
                      lambda f: value_target(f, BACKWARD, LATENTS, DISCOUNTS)):
        assert not np.any(jax.grad(lambda f: jnp.sum(target_of(f)))(jnp.asarray(NEXT)))


def test_estimates_of_three_networks():
    values = jnp.array([[1.0], [2.0], [6.0]])
    np.testing.assert_allclose(pessimistic(values, 0.0), [3.0])
    np.testing.assert_allclose(pessimistic(values, 0.3), [3.0 - 0.3 * (1 + 4 + 5) / 3], rtol=1e-6)


def test_orthonormality_is_least_at_the_identity():
    """Rows +-sqrt(D) e_k, all alike often, have E[B B'] = I; any other scale or direction is worse."""
    rows = np.sqrt(SIZE) * np.tile(np.eye(SIZE), (60, 1))
    least = float(orthonormality_loss(rows)[0])
    assert least == pytest.approx(-SIZE, abs=0.1)  # |E[B B'] - I|^2 less D
    for other in (0.8 * rows, 1.2 * rows, rows + [1.0, 0.0, 0.0], on_sphere(np.ones_like(rows))):
        assert float(orthonormality_loss(other)[0]) > least + 0.1


def test_the_reward_of_a_value_is_the_projection_of_z():
    """B times the least-squares coefficients: regressing any reward B w on B gives w back, so z = Cov w earns B w."""
    weights = np.array([0.5, -1.0, 2.0])
    covariance = BACKWARD.T @ BACKWARD / COUNT
    latents = np.tile(covariance @ weights, (COUNT, 1))
    target = value_target(np.zeros_like(NEXT), BACKWARD, latents, DISCOUNTS)
    np.testing.assert_allclose(target, BACKWARD @ weights, rtol=1e-4)
    loss, _ = value_loss(np.stack([latents, 0 * latents]), latents, jnp.zeros(COUNT))
    np.testing.assert_allclose(loss, 0.5 * np.sum(latents[0] ** 2) ** 2, rtol=1e-5)


def test_latents_have_length_sqrt_d_and_some_are_those_of_goals():
    rows = np.asarray(mixed_latents(jax.random.key(0), on_sphere(jnp.eye(64)), 0.5))
    np.testing.assert_allclose(np.linalg.norm(rows, axis=1), 8.0, rtol=1e-5)
    goals = rows[(rows == 0.0).sum(1) == 63]
    assert 20 <= len(goals) <= 44 and len(np.unique(goals.argmax(1))) == len(goals)  # a permutation: no goal twice
    assert np.isfinite(np.asarray(on_sphere(jnp.zeros(3)))).all()


def test_latents_of_rewards_and_of_experts():
    rewards = np.arange(COUNT) - 1.0
    np.testing.assert_allclose(
        reward_latent(rewards, BACKWARD), sum(r * b for r, b in zip(rewards, BACKWARD)) / COUNT, rtol=1e-5
    )
    np.testing.assert_allclose(imitation_latent(BACKWARD[:2]), (BACKWARD[0] + BACKWARD[1]) / 2, rtol=1e-5)
    np.testing.assert_allclose(imitation_latent(BACKWARD[:2], jnp.array([3.0, 1.0])), 0.75 * BACKWARD[0]
                               + 0.25 * BACKWARD[1], rtol=1e-5)
    # Of the data's rows with weights rho^E / rho the two are the same latent.
    ratio = np.array([0.0, 2.5, 0.0, 2.5, 0.0])
    np.testing.assert_allclose(reward_latent(ratio, BACKWARD), imitation_latent(BACKWARD[[1, 3]]), rtol=1e-5)
