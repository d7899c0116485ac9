"""Ratios of two policies: hand numbers, verl's corrections, GSPO's loss and gradient."""

from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rl_jax.losses.importance import kept_mask, sequence_log_ratio, truncated_weights
from rl_jax.losses.policy_gradient import policy_gradient_loss

GOLDEN = np.load(Path(__file__).parents[1] / "golden" / "verifiable.npz")
LOG_PROBS, OLD, MASK = (GOLDEN[f"given/{name}"] for name in ("log_probs", "old_log_probs", "mask"))


def test_weights_and_rejection_by_hand():
    # Ratios 2 and 1/4, and one that the mask hides, where nothing is finite.
    log_prob = jnp.log(jnp.array([[0.8, 0.1, 0.0]]))
    behaviour, mask = jnp.log(jnp.array([[0.4, 0.4, 0.5]])), jnp.array([[1.0, 1.0, 0.0]])
    np.testing.assert_allclose(truncated_weights(log_prob, behaviour, mask, 1.5), [[1.5, 0.25, 0.0]], rtol=1e-6)
    np.testing.assert_allclose(
        truncated_weights(log_prob, behaviour, mask, 1.5, "sequence"), [[0.5, 0.5, 0.0]], rtol=1e-6
    )
    np.testing.assert_array_equal(kept_mask(log_prob, behaviour, mask, 0.5, 3.0), [[1.0, 0.0, 0.0]])
    # The geometric mean is sqrt(1/2) = 0.707.
    for low, kept in ((0.7, 1.0), (0.72, 0.0)):
        np.testing.assert_array_equal(kept_mask(log_prob, behaviour, mask, low, 3.0, "sequence"), [[kept, kept, 0.0]])
    np.testing.assert_allclose(
        sequence_log_ratio(log_prob, behaviour, mask), [[np.log(0.5) / 2, np.log(0.5) / 2, 0.0]], rtol=1e-6
    )


@pytest.mark.parametrize("level", ["token", "sequence"])
def test_corrections_are_those_of_verl(level):
    weights = truncated_weights(LOG_PROBS, OLD, MASK, 1.2, level)
    np.testing.assert_allclose(weights, GOLDEN[f"truncated/{level}"], rtol=1e-5)
    assert np.any(weights == np.float32(1.2)) and np.any((weights > 0) & (weights < 1))
    # verl's mask says nothing of what was masked before.
    kept = kept_mask(LOG_PROBS, OLD, MASK, 0.8, 1.25, level)
    np.testing.assert_array_equal(kept, GOLDEN[f"kept/{level}"] * MASK)
    assert 0 < kept.sum() < MASK.sum()


def test_a_correction_is_a_factor_of_the_advantage():
    """The clipped objective of w A is w times that of A."""
    advantages, weights = GOLDEN["given/advantages"], truncated_weights(LOG_PROBS, OLD, MASK, 1.2)

    def loss(log_prob, advantages, mask):
        return policy_gradient_loss(
            log_prob, OLD, advantages, mask, clip_low=0.05, clip_high=0.1, dual_clip=3.0, aggregation=1.0
        )[0]

    whole = loss(LOG_PROBS, advantages * weights, MASK)
    one = np.eye(MASK.size, dtype=np.float32).reshape(-1, *MASK.shape) * MASK
    parts = jax.vmap(lambda mask: loss(LOG_PROBS, advantages, mask))(one)
    np.testing.assert_allclose(whole, np.sum(parts * weights.reshape(-1)), rtol=1e-4)


def test_gspo_is_that_of_verl_in_value_and_gradient():
    def loss(log_prob):
        ratio = sequence_log_ratio(log_prob, OLD, MASK)
        return policy_gradient_loss(
            ratio, jnp.zeros_like(ratio), GOLDEN["given/advantages"], MASK, clip_low=0.05, clip_high=0.1,
            aggregation="sequence_mean",
        )[0]

    value, gradient = jax.value_and_grad(loss)(LOG_PROBS)
    np.testing.assert_allclose(value, GOLDEN["gspo"], rtol=1e-5)
    np.testing.assert_allclose(gradient, GOLDEN["gspo/gradient"], rtol=1e-4, atol=1e-7)


def test_corrections_have_no_gradient_and_an_unknown_level_is_an_error():
    def total(log_prob):
        return jnp.sum(truncated_weights(log_prob, OLD, MASK, 2.0) + kept_mask(log_prob, OLD, MASK, 0.5, 2.0))

    assert not np.any(jax.grad(total)(LOG_PROBS))
    with pytest.raises(ValueError, match="the level of the ratio is 'row': choose token or sequence"):
        truncated_weights(LOG_PROBS, OLD, MASK, 2.0, "row")
