"""The bisimulation loss: hand numbers, NumPy's loops, a closed form against transport, and its guards."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from rl_jax.losses import bisimulation
from rl_jax.losses.bisimulation import Outlook

RNG = np.random.default_rng(0)


def outlook(rows, size, rng=RNG):
    parts = rng.normal(size=rows), rng.normal(size=(rows, size)), rng.uniform(0.1, 2.0, (rows, size))
    return Outlook(*(jnp.asarray(part, jnp.float32) for part in parts))


def test_hand_numbers():
    """Latents 5 apart; rewards 1 and 3, next latents with means 3 and deviations 4 apart: target 2 + 0.5 * 5."""
    one = Outlook(jnp.array([1.0]), jnp.array([[0.0, 0.0]]), jnp.array([[1.0, 5.0]]))
    other = Outlook(jnp.array([3.0]), jnp.array([[3.0, 0.0]]), jnp.array([[1.0, 1.0]]))
    target = bisimulation.bisimulation_target(one, other, 0.5)
    assert float(target[0]) == pytest.approx(4.5)
    loss = bisimulation.bisimulation_loss(jnp.zeros((1, 2)), jnp.array([[3.0, 4.0]]), target)
    assert float(loss[0]) == pytest.approx(0.25, abs=1e-5)


def test_loops_of_numpy_agree():
    one, other, z, w = outlook(7, 3), outlook(7, 3), RNG.normal(size=(7, 3)), RNG.normal(size=(7, 3))
    z, w = z.astype(np.float32), w.astype(np.float32)
    got = bisimulation.bisimulation_loss(z, w, bisimulation.bisimulation_target(one, other, 0.9))
    for m in range(7):
        apart = sum((one.mean[m, d] - other.mean[m, d]) ** 2 + (one.std[m, d] - other.std[m, d]) ** 2 for d in range(3))
        target = abs(one.reward[m] - other.reward[m]) + 0.9 * apart**0.5
        assert float(got[m]) == pytest.approx(float((np.linalg.norm(z[m] - w[m]) - target) ** 2), rel=1e-4)


def test_the_distance_of_gaussians_is_that_of_the_best_transport():
    """Of one dimension: quantiles onto quantiles."""
    levels = (np.arange(200_000) + 0.5) / 200_000
    moved = stats.norm.ppf(levels, 1.0, 2.0) - stats.norm.ppf(levels, -0.5, 0.7)
    rows = [Outlook(jnp.zeros(1), jnp.array([[m]]), jnp.array([[s]])) for m, s in ((1.0, 2.0), (-0.5, 0.7))]
    assert float(bisimulation.gaussian_distance(*rows)[0]) == pytest.approx(np.sqrt(np.mean(moved**2)), rel=1e-3)


def test_the_log_loss_is_scipys():
    own, successors = outlook(5, 3), RNG.normal(size=(5, 3)).astype(np.float32)
    want = -stats.norm.logpdf(successors, own.mean, own.std).sum(-1)
    np.testing.assert_allclose(bisimulation.gaussian_log_loss(own, successors), want, rtol=1e-4)


def test_a_mixture_of_actions_has_the_moments_of_its_samples():
    every = jax.tree.map(lambda x: x[:, None], outlook(4, 2))
    chances = np.array([0.1, 0.2, 0.3, 0.4])
    drawn = RNG.choice(4, 200_000, p=chances)
    samples = RNG.normal(np.asarray(every.mean)[drawn, 0], np.asarray(every.std)[drawn, 0])
    found = bisimulation.expected_outlook(every, jnp.asarray(chances, jnp.float32)[:, None])
    np.testing.assert_allclose(found.mean[0], samples.mean(0), atol=0.02)
    np.testing.assert_allclose(found.std[0], samples.std(0), rtol=0.02)
    assert float(found.reward[0]) == pytest.approx(float(chances @ np.asarray(every.reward)[:, 0]), rel=1e-5)
    certain = bisimulation.expected_outlook(every, jnp.array([0.0, 0.0, 1.0, 0.0])[:, None])
    jax.tree.map(lambda x, y: np.testing.assert_allclose(x[0], y[2, 0], rtol=1e-3), certain, every)


def test_the_gradient_of_the_norm_at_zero_is_finite():
    at_zero = jnp.zeros(3)
    assert np.all(np.isnan(jax.grad(lambda x: jnp.sqrt(jnp.sum(x**2)))(at_zero)))  # of the plain one it is not
    np.testing.assert_array_equal(jax.grad(bisimulation.smooth_norm)(at_zero), np.zeros(3))


@pytest.mark.parametrize("there", [[0, 1, 1, 0, 1, 1, 1, 0], [1] * 6, [0, 1, 0], [0, 0]])
def test_pairs_are_of_different_steps_that_are_there(there):
    mask = jnp.asarray(there, jnp.float32)
    steps, dropped, draw = set(np.flatnonzero(there)), 0, jax.jit(bisimulation.pairs_of_steps)
    for seed in range(20):
        one, other, valid = map(np.asarray, draw(jax.random.key(seed), mask))
        kept, count = valid > 0, len(steps)
        assert set(one[kept]) | set(other[kept]) <= steps and np.all(one[kept] != other[kept])
        assert set(one[:count]) == set(other[:count]) == steps, "a permutation"
        dropped += count - int(kept.sum())
    assert dropped > 0 or len(steps) == 0, "a permutation has fixed points now and then"


def test_the_target_is_a_constant_and_a_constant_encoder_has_no_loss():
    def loss(mean):
        one = Outlook(jnp.zeros(2), mean, jnp.ones((2, 3)))
        other = Outlook(jnp.ones(2), jnp.zeros((2, 3)), jnp.ones((2, 3)))
        target = bisimulation.bisimulation_target(one, other, 0.9)
        return jnp.sum(bisimulation.bisimulation_loss(jnp.ones((2, 3)), jnp.zeros((2, 3)), target))

    np.testing.assert_array_equal(jax.grad(loss)(jnp.ones((2, 3))), np.zeros((2, 3)))
    same = jax.tree.map(lambda x: jnp.broadcast_to(x[:1], x.shape), outlook(2, 3))  # of one latent one outlook
    target = bisimulation.bisimulation_target(same, same, 0.9)
    collapsed = bisimulation.bisimulation_loss(jnp.ones((2, 3)), jnp.ones((2, 3)), target)
    np.testing.assert_allclose(collapsed, 0.0, atol=1e-6)  # collapse: why it is never trained alone
