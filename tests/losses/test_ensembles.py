"""Losses over ensembles against numpy, scipy and hand numbers."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.spatial.distance import cdist

from rl_jax.losses.ensembles import gradient_similarity


def test_similarity_is_the_sum_of_the_pairs_cosines():
    gradients = np.random.default_rng(0).normal(size=(5, 7, 3)).astype(np.float32)
    batch = [(1.0 - cdist(g, g, "cosine")).sum() - 5 for g in gradients.swapaxes(0, 1)]
    np.testing.assert_allclose(gradient_similarity(gradients), np.array(batch) / 4, rtol=1e-5, atol=1e-6)


def test_similarity_of_agreeing_orthogonal_and_opposed_members():
    one = jnp.array([[0.3, -0.4]])
    assert gradient_similarity(jnp.stack([one, 2 * one, 5 * one]))[0] == pytest.approx(3.0)
    assert gradient_similarity(jnp.stack([one, jnp.array([[4.0, 3.0]])]))[0] == pytest.approx(0.0, abs=1e-6)
    assert gradient_similarity(jnp.stack([one, -one]))[0] == pytest.approx(-2.0)
    # Three directions 120 degrees apart are as far as three can be.
    angles = 2 * np.pi * np.arange(3) / 3
    star = jnp.asarray(np.stack([np.cos(angles), np.sin(angles)], -1)[:, None])
    assert gradient_similarity(star)[0] == pytest.approx(-3 / 2)


def test_a_member_without_a_gradient_counts_nothing_and_harms_nothing():
    gradients = jnp.array([[[1.0, 0.0]], [[0.0, 0.0]], [[1.0, 0.0]]])
    value, slope = jax.value_and_grad(lambda g: gradient_similarity(g).sum())(gradients)
    assert value == pytest.approx(2 * 1.0 / 2)  # one pair, both ways, over N - 1
    assert np.isfinite(slope).all()
