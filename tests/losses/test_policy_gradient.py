"""The clipped policy-gradient loss and its companions: hand numbers, a loop in numpy, finite differences."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rl_jax.losses.policy_gradient import clipped_value_loss, entropy_loss, policy_gradient_loss

RNG = np.random.default_rng(0)
# Below, within and above the clip, with a good and with a bad action.
RATIOS = np.array([0.5, 1.0, 1.5, 0.5, 1.0, 1.5], np.float32)
ADVANTAGES = np.array([2.0, 2.0, 2.0, -2.0, -2.0, -2.0], np.float32)
ONES = np.ones(6, np.float32)
CLIPS = {"clip_low": 0.2, "clip_high": 0.3}


def loss_at(ratios, advantages, mask=ONES, old=-1.0, **settings):
    old = np.full(np.shape(ratios), old, np.float32)
    return policy_gradient_loss(old + jnp.log(ratios), old, advantages, mask, **{**CLIPS, **settings})


def terms(ratios, advantages, **settings):
    """The loss of each by itself."""
    return [
        float(loss_at(np.float32([r]), np.float32([a]), np.ones(1, np.float32), **settings)[0])
        for r, a in zip(ratios, advantages, strict=True)
    ]


def test_each_side_of_the_clip_by_hand():
    # Clipped to 0.8 below and to 1.3 above, where that makes the objective smaller.
    np.testing.assert_allclose(terms(RATIOS, ADVANTAGES), [-1.0, -2.0, -2.6, 1.6, 2.0, 3.0], rtol=1e-6)


INFINITY = float("inf")


@pytest.mark.parametrize(
    "clips, expected",
    [
        # The lower one acts on bad actions below it, the upper one on good actions above it, and nothing else.
        ({"clip_low": 0.2, "clip_high": INFINITY}, [-1.0, -2.0, -3.0, 1.6, 2.0, 3.0]),
        ({"clip_low": INFINITY, "clip_high": 0.3}, [-1.0, -2.0, -2.6, 1.0, 2.0, 3.0]),
        ({"clip_low": INFINITY, "clip_high": INFINITY, "dual_clip": 1.2}, [-1.0, -2.0, -3.0, 1.0, 2.0, 2.4]),
    ],
)
def test_each_clip_acts_alone(clips, expected):
    np.testing.assert_allclose(terms(RATIOS, ADVANTAGES, **clips), expected, rtol=1e-6)


def test_the_dual_clip_bounds_bad_actions_alone():
    np.testing.assert_allclose(
        terms(RATIOS, ADVANTAGES, dual_clip=1.2), [-1.0, -2.0, -2.6, 1.6, 2.0, 2.4], rtol=1e-6
    )
    huge = terms([50.0, 50.0], [-1.0, 1.0], dual_clip=3.0)
    np.testing.assert_allclose(huge, [3.0, -1.3], rtol=1e-6)


def test_without_a_clip_it_is_importance_weighting():
    free = {"clip_low": np.inf, "clip_high": np.inf}
    np.testing.assert_allclose(terms(RATIOS, ADVANTAGES, **free), -RATIOS * ADVANTAGES, rtol=1e-6)


def test_the_gradient_is_the_ratio_times_the_advantage_and_nothing_beyond_the_clip():
    def total(log_prob, advantages, old):
        return policy_gradient_loss(log_prob, old, advantages, ONES, **CLIPS, aggregation=1.0)[0]

    old = np.full(6, -1.0, np.float32)
    grads = jax.grad(total, argnums=(0, 1, 2))(old + np.log(RATIOS), ADVANTAGES, old)
    # Only where the objective still grows by moving: not above for a good action, not below for a bad one.
    np.testing.assert_allclose(grads[0], [-1.0, -2.0, 0.0, 0.0, 2.0, 3.0], rtol=1e-6)
    assert not np.any(grads[1]) and not np.any(grads[2])  # what was collected is no variable


def by_loop(log_prob, old, advantages, mask, low, high, dual, aggregation):
    """The definition in float64, term by term."""
    out = np.zeros(log_prob.shape)
    for place in itertools.product(*map(range, log_prob.shape)):
        ratio, a = np.exp(log_prob[place] - old[place]), advantages[place]
        value = min(ratio * a, min(max(ratio, 1 - low), 1 + high) * a)
        out[place] = -max(value, dual * a) if dual and a < 0 else -value
    kept = [[x for x, m in zip(row, weights, strict=True) if m] for row, weights in zip(out, mask, strict=True)]
    if aggregation == "token_mean":
        return np.mean(sum(kept, []))
    if aggregation == "sequence_mean":
        return np.mean([np.mean(row) for row in kept if row])
    return sum(sum(row) for row in kept) / aggregation


@pytest.mark.parametrize("aggregation", ["token_mean", "sequence_mean", 7.0])
@pytest.mark.parametrize("dual", [None, 1.5])
def test_loss_and_gradient_are_the_definitions(aggregation, dual):
    old = RNG.normal(-1, 0.3, (5, 7))
    log_prob, advantages = old + RNG.normal(0, 0.4, old.shape), RNG.normal(0, 1, old.shape)
    mask = (np.arange(7) < np.array([7, 3, 1, 0, 5])[:, None]).astype(float)  # one sequence has no term at all
    arrays = [x.astype(np.float32) for x in (log_prob, old, advantages, mask)]

    def loss(x):
        return policy_gradient_loss(x, *arrays[1:], **CLIPS, dual_clip=dual, aggregation=aggregation)[0]

    value, gradient = jax.value_and_grad(loss)(arrays[0])
    exact = [x.astype(np.float64) for x in arrays]
    assert value == pytest.approx(by_loop(*exact, 0.2, 0.3, dual, aggregation), rel=1e-5)
    for place in [(0, 0), (0, 6), (1, 2), (2, 0), (4, 1), (1, 4), (3, 0)]:
        step = np.zeros(old.shape)
        step[place] = 1e-6
        sides = [by_loop(exact[0] + s, *exact[1:], 0.2, 0.3, dual, aggregation) for s in (step, -step)]
        assert gradient[place] == pytest.approx((sides[0] - sides[1]) / 2e-6, rel=1e-4, abs=1e-6)


def test_descent_makes_good_actions_likelier_and_bad_ones_rarer():
    logits = jnp.zeros((2, 3))
    actions, advantages = np.array([0, 1]), np.array([1.0, -1.0], np.float32)

    def log_probs(logits):
        return jax.nn.log_softmax(logits)[np.arange(2), actions]

    def loss(logits):
        return policy_gradient_loss(log_probs(logits), log_probs(jnp.zeros((2, 3))), advantages, np.ones(2), **CLIPS)[0]

    before, after = log_probs(logits), log_probs(logits - 0.1 * jax.grad(loss)(logits))
    assert after[0] > before[0] and after[1] < before[1]


@pytest.mark.parametrize("settings", [{}, {"clip_low": INFINITY, "clip_high": INFINITY}, {"dual_clip": 1.5}])
def test_at_a_ratio_of_one_no_clip_acts_and_it_is_reinforce(settings):
    """One update a batch: the gradient is that of -mean(A log pi), the ratio and the clips have no part in it."""
    log_prob = np.log(RATIOS)
    loss = lambda x: policy_gradient_loss(x, log_prob, ADVANTAGES, ONES, **{**CLIPS, **settings})[0]  # noqa: E731
    ours = jax.grad(loss)(log_prob)
    np.testing.assert_allclose(ours, -ADVANTAGES / 6, rtol=1e-6)


def test_what_it_reports():
    _, info = loss_at(RATIOS, ADVANTAGES)
    assert info["actor/clip_fraction"] == pytest.approx(4 / 6)
    assert info["actor/approx_kl"] == pytest.approx(np.mean(RATIOS - 1 - np.log(RATIOS)), rel=1e-5)
    assert info["actor/loss"] == pytest.approx((-1.0 - 2.0 - 2.6 + 1.6 + 2.0 + 3.0) / 6, rel=1e-5)
    _, one_sided = loss_at(RATIOS, ADVANTAGES, clip_high=np.inf)
    assert one_sided["actor/clip_fraction"] == pytest.approx(2 / 6)


@pytest.mark.parametrize("garbage", [np.nan, np.inf, -np.inf, 1e30])
def test_what_is_masked_may_be_anything(garbage):
    mask = np.array([1, 1, 1, 1, 1, 0], np.float32)

    def loss(log_prob, advantages):
        return policy_gradient_loss(log_prob, np.zeros(6, np.float32), advantages, mask, **CLIPS)[0]

    dirty = np.log(RATIOS), ADVANTAGES.copy()
    dirty[0][-1] = dirty[1][-1] = garbage
    expected = np.sum([-1.0, -2.0, -2.6, 1.6, 2.0]) / 5
    assert loss(*dirty) == pytest.approx(expected, rel=1e-5)
    gradient = jax.grad(loss)(*dirty)
    assert np.all(np.isfinite(gradient)) and gradient[-1] == 0


def test_entropy_loss_is_minus_the_mean_of_what_counts():
    entropy, mask = np.array([0.5, 1.0, 7.0]), np.array([1.0, 1.0, 0.0])
    loss, info = entropy_loss(entropy, mask)
    assert (loss, info["actor/entropy"]) == (-0.75, 0.75)
    assert entropy_loss(entropy, mask, 3.0)[0] == -0.5


def test_clipped_value_loss_by_hand():
    # The target is 1 above the old value. Moved towards it beyond the clip, the clipped value counts and holds the
    # gradient back; moved away, the value itself does.
    old, returns, ones = np.zeros(3), np.ones(3), np.ones(3)
    values = np.array([0.1, 0.9, -0.9])
    settings = {"clip": 0.2, "aggregation": 1.0}
    total, info = clipped_value_loss(values, old, returns, ones, **settings)
    assert total == pytest.approx(0.9**2 + 0.8**2 + 1.9**2, rel=1e-6)
    assert info["value/mean"] == pytest.approx(0.1 / 3, abs=1e-6)
    gradient = jax.grad(lambda v: clipped_value_loss(v, old, returns, ones, **settings)[0])(values)
    np.testing.assert_allclose(gradient, [-1.8, 0.0, -3.8], rtol=1e-6)
    free, _ = clipped_value_loss(values, old, returns, ones, clip=np.inf)
    assert free == pytest.approx(np.mean(np.square(values - returns)), rel=1e-6)
