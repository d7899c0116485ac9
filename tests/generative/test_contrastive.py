"""CLIP's loss: numbers by hand, a closed form, its gradient by differences, and the clip of its scale."""

import itertools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rl_jax.generative.contrastive import MAX_LOGIT_SCALE, contrastive_loss

RNG = np.random.default_rng(0)
IMAGES, TEXTS = RNG.normal(size=(2, 3, 4)).astype(np.float32)


@jax.jit
def loss(*args):
    return contrastive_loss(*args)[0]


slope = jax.jit(jax.grad(loss, argnums=2))


def test_by_hand():
    # Cosines [[1, 0], [0.6, 0.8]] times 2. Images find texts with log(1 + e^-2) and log(1 + e^-0.4), texts find images
    # with log(1 + e^-0.8) and log(1 + e^-1.6).
    images, texts = jnp.array([[3.0, 0.0], [6.0, 8.0]]), jnp.array([[5.0, 0.0], [0.0, 0.1]])
    found, info = jax.jit(contrastive_loss)(images, texts, np.log(2.0))
    expected = sum(math.log1p(math.exp(-x)) for x in (2.0, 0.4, 0.8, 1.6)) / 4
    np.testing.assert_allclose(found, expected, rtol=1e-6)
    np.testing.assert_allclose(info["contrastive/loss"], expected, rtol=1e-6)
    assert info["contrastive/accuracy"] == 1 and info["contrastive/scale"] == pytest.approx(2.0)
    assert contrastive_loss(images, texts[::-1], jnp.log(2.0))[1]["contrastive/accuracy"] == 0


@pytest.mark.parametrize("size", [1, 3])
def test_closed_form_of_orthogonal_pairs(size):
    # Each finds its own at cosine 1 among size - 1 at 0: log(1 + (size - 1) e^-scale).
    pairs = jnp.eye(8)[:size]
    expected = math.log1p((size - 1) * math.exp(-7.0))
    np.testing.assert_allclose(loss(pairs, 3 * pairs, jnp.log(7.0)), expected, rtol=1e-3, atol=1e-7)


def test_length_and_the_two_sides_do_not_matter():
    expected = loss(IMAGES, TEXTS, np.float32(1))
    np.testing.assert_allclose(loss(5 * IMAGES, 0.1 * TEXTS, np.float32(1)), expected, rtol=1e-5)
    np.testing.assert_allclose(loss(TEXTS, IMAGES, np.float32(1)), expected, rtol=1e-6)


def test_gradient_is_that_of_differences():
    args, step = (IMAGES, TEXTS, np.float32(1.5)), 1e-2
    for number, gradient in enumerate(jax.jit(jax.grad(loss, argnums=(0, 1, 2)))(*args)):
        for index in itertools.islice(np.ndindex(gradient.shape), 6):
            one = np.zeros(gradient.shape, np.float32)
            one[index] = step
            there, back = ([*args], [*args])
            there[number], back[number] = args[number] + one, args[number] - one
            expected = (loss(*there) - loss(*back)) / (2 * step)
            np.testing.assert_allclose(gradient[index], expected, atol=2e-4)


def test_scale_is_clipped_at_100_and_can_fall_again():
    top, above = np.float32(MAX_LOGIT_SCALE), np.float32(MAX_LOGIT_SCALE + 3)
    np.testing.assert_allclose(loss(IMAGES, TEXTS, above), loss(IMAGES, TEXTS, top), rtol=1e-5)
    assert contrastive_loss(IMAGES, TEXTS, above)[1]["contrastive/scale"] == pytest.approx(100)
    assert slope(IMAGES, TEXTS, top) > 0
    np.testing.assert_allclose(slope(IMAGES, TEXTS, above), slope(IMAGES, TEXTS, top), rtol=1e-4)


def test_a_large_scale_stays_finite():
    same = np.ones((3, 4), np.float32)
    np.testing.assert_allclose(loss(same, same, np.float32(50)), math.log(3), rtol=1e-5)
    assert np.isfinite(slope(same, same, np.float32(50)))


def test_wrong_shapes():
    with pytest.raises(AssertionError):
        contrastive_loss(IMAGES, TEXTS[:2], np.float32(1))
    with pytest.raises(AssertionError):
        contrastive_loss(IMAGES[0], TEXTS[0], np.float32(1))
    with pytest.raises(AssertionError):
        contrastive_loss(IMAGES, TEXTS, np.ones(1))
