"""Losses of preferences against TRL's trainers and hand numbers, and what each is for."""

from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rl_jax.losses import preference as losses

GOLDEN = np.load(Path(__file__).parents[1] / "golden" / "preference.npz")
BETA, SMOOTHING, GAMMA = 0.3, 0.1, 0.5
MASK = GOLDEN["given/mask"][:, 1:].astype(np.float32)
LENGTHS = MASK.sum(1)


def summed(logits):
    """Log-probs of the given answers, [10]."""
    log_probs = jax.nn.log_softmax(logits[:, :-1])
    return jnp.sum(jnp.take_along_axis(log_probs, GOLDEN["given/tokens"][:, 1:, None], -1)[..., 0] * MASK, -1)


def ratios(logits):
    return losses.log_ratios(summed(logits), summed(GOLDEN["given/reference_logits"]))


def halves(x):
    return x[:5], x[5:]


def kto(name):
    divergence = losses.kto_divergence(GOLDEN[f"given/{name}/other"], GOLDEN[f"given/{name}/other_reference"])
    return lambda logits: jnp.mean(losses.kto_loss(
        BETA * ratios(logits), GOLDEN["given/desirable"], BETA * divergence, desirable_weight=1.3,
        undesirable_weight=0.7,
    ))


# Our terms, or their mean where TRL's trainer gives that, and what they are functions of.
CASES = {
    "dpo": ("logits", lambda x: jnp.mean(losses.dpo_loss(*halves(BETA * ratios(x))))),
    "cdpo": ("ratios", lambda x: losses.dpo_loss(*halves(BETA * x), label_smoothing=SMOOTHING)),
    "ipo": ("logits", lambda x: jnp.mean(losses.ipo_loss(*halves(ratios(x) / LENGTHS), BETA))),
    "nca": ("logits", lambda x: jnp.mean(losses.nca_loss(*halves(BETA * ratios(x))))),
    "kto": ("logits", kto("kto")),
    "kto_below": ("logits", kto("kto_below")),
    "orpo": ("logits", lambda x: losses.odds_ratio_loss(*halves(summed(x) / LENGTHS))),
    "simpo": ("logits", lambda x: losses.simpo_loss(*halves(summed(x) / LENGTHS), BETA, GAMMA)),
    "bradley_terry": ("rewards", lambda x: jnp.mean(losses.bradley_terry_loss(*halves(x)))),
    "bradley_terry_margin": (
        "rewards", lambda x: jnp.mean(losses.bradley_terry_loss(*halves(x), GOLDEN["given/margin"]))
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_values_and_gradients_are_those_of_trl(name):
    variable, loss = CASES[name]
    found, pull = jax.vjp(loss, jnp.asarray(GOLDEN[f"given/{variable}"]))
    np.testing.assert_allclose(found, GOLDEN[name], rtol=2e-5, atol=1e-6)
    np.testing.assert_allclose(pull(jnp.ones_like(found))[0], GOLDEN[f"{name}/gradient"], rtol=2e-4, atol=1e-6)


def test_by_hand():
    chosen, rejected = jnp.log(jnp.array([4.0])), jnp.log(jnp.array([2.0]))
    np.testing.assert_allclose(losses.dpo_loss(chosen, rejected), -np.log(2 / 3), rtol=1e-6)
    expected = -0.9 * np.log(2 / 3) - 0.1 * np.log(1 / 3)
    np.testing.assert_allclose(losses.dpo_loss(chosen, rejected, 0.1), expected, rtol=1e-6)
    np.testing.assert_allclose(losses.bradley_terry_loss(chosen, rejected, np.log(2.0)), np.log(2.0), rtol=1e-6)
    expected = -np.log(4 / 5) - 0.5 * (np.log(1 / 5) + np.log(1 / 3))
    np.testing.assert_allclose(losses.nca_loss(chosen, rejected), expected, rtol=1e-6)
    # Odds 3 and 1/3: a ratio of 9.
    chosen, rejected = jnp.log(jnp.array([0.75])), jnp.log(jnp.array([0.25]))
    np.testing.assert_allclose(losses.odds_ratio_loss(chosen, rejected), -np.log(0.9), rtol=1e-6)
    np.testing.assert_allclose(losses.ipo_loss(jnp.array([2.0]), jnp.array([0.5]), 0.5), 0.25)
    rewards, good = jnp.log(jnp.array([3.0, 3.0])), jnp.array([True, False])
    np.testing.assert_allclose(losses.kto_loss(rewards, good, jnp.zeros(())), [0.25, 0.75], rtol=1e-6)


def test_dpo_may_lower_the_chosen_and_nca_may_not():
    """With both answers far below the reference, NCA raises the chosen one; DPO sees their difference alone."""
    chosen, rejected = jnp.array([-5.0]), jnp.array([-20.0])
    of_dpo = jax.grad(lambda x: losses.dpo_loss(x, rejected)[0])(chosen)
    of_nca = jax.grad(lambda x: losses.nca_loss(x, rejected)[0])(chosen)
    assert abs(float(of_dpo[0])) < 1e-5 and float(of_nca[0]) < -0.9


def test_no_gradient_flows_through_a_reference_or_a_baseline():
    x, good = jnp.array([-2.0, -3.0]), jnp.array([True, False])
    assert not np.any(jax.grad(lambda reference: jnp.sum(losses.log_ratios(x, reference)))(x - 1.0))
    assert not np.any(jax.grad(lambda z: jnp.sum(losses.kto_loss(x, good, z)))(jnp.ones(())))
    assert not np.any(jax.grad(lambda x: losses.kto_divergence(x, x - 1.0))(x))


def test_a_certain_answer_has_finite_odds_and_gradient():
    value, gradient = jax.value_and_grad(lambda x: losses.odds_ratio_loss(x, jnp.array([-1.0]))[0])(jnp.zeros(1))
    assert np.isfinite(value) and np.all(np.isfinite(gradient))


# CPL


def test_the_bias_is_of_the_other_segment_alone():
    """By hand; both directions of a tie; and what the bias is for: to lose both segments costs, and else does not."""
    first, second, labels = jnp.array([-1.0, -1.0, -1.0]), jnp.array([-2.0, -2.0, -2.0]), jnp.array([0.0, 1.0, 0.5])
    found = losses.cpl_loss(first, second, labels, 0.5)
    as_first, as_second = np.log1p(np.exp(1.0 - 0.5 * 2.0)), np.log1p(np.exp(2.0 - 0.5 * 1.0))
    np.testing.assert_allclose(found, [as_first, as_second, (as_first + as_second) / 2], rtol=1e-6)
    lower = losses.cpl_loss(first - 3, second - 3, labels, 0.5)
    assert np.all(lower > found)
    even = losses.cpl_loss(first, second, labels)
    np.testing.assert_allclose(losses.cpl_loss(first - 3, second - 3, labels), even, rtol=1e-6)
    # Long segments have scores at which exp overflows.
    far = losses.cpl_loss(jnp.array([-1e4]), jnp.array([-3e4]), jnp.array([1.0]), 0.5)
    np.testing.assert_allclose(far, [2.5e4])


def test_cpl_of_log_ratios_of_single_steps_is_dpo():
    chosen, rejected = (jnp.asarray(part) for part in halves(GOLDEN["given/ratios"]))
    found = losses.cpl_loss(BETA * rejected, BETA * chosen, jnp.ones(5))
    np.testing.assert_allclose(found, losses.dpo_loss(BETA * chosen, BETA * rejected), rtol=1e-6)


def test_scores_labels_and_who_is_preferred_by_hand():
    terms, mask = jnp.array([[1.0, 2.0, 4.0], [8.0, 9.0, 9.0]]), jnp.array([[1.0, 1.0, 1.0], [1.0, 0.0, 0.0]])
    np.testing.assert_allclose(losses.segment_scores(terms, mask, 0.1), [0.7, 0.8])
    np.testing.assert_allclose(losses.segment_scores(terms, mask, 1.0, 0.5), [3.0, 8.0])
    labels = losses.preference_labels(jnp.array([1.0, 2.0, 2.0]), jnp.array([2.0, 1.0, 2.0]))
    assert labels.tolist() == [1.0, 0.0, 0.5]
    soft = losses.preference_labels(jnp.array([1.0, 2.0, 2.0]), jnp.array([2.0, 1.0, 2.0]), 0.5)
    np.testing.assert_allclose(soft, [1 / (1 + np.exp(-2.0)), 1 / (1 + np.exp(2.0)), 0.5], rtol=1e-6)
    assert [side.tolist() for side in losses.preferred(labels)] == [[0, 1, 1], [1, 0, 1]]


def test_the_probability_of_winning_by_hand_and_what_it_is_symmetric_in():
    """Known odds; a place that is preferred cancels, the other answer has the rest, an answer is even with itself."""
    first, second = jnp.array([0.9, 0.7, 0.3]), jnp.array([0.3, 0.7, 0.9])
    np.testing.assert_allclose(losses.win_probability(first, second), [0.8, 0.5, 0.2], rtol=1e-6)
    np.testing.assert_allclose(losses.win_probability(second, first), [0.2, 0.5, 0.8], rtol=1e-6)


def test_the_loss_of_a_judge_by_hand_and_by_finite_differences():
    """q_wl = 3/4 and q_lw = 1/3: -(log 3/4 + log 2/3) / 2, and the orders are 3/4 - 2/3 apart."""
    odds = jnp.log(jnp.array([3.0])), jnp.log(jnp.array([0.5]))
    crossed = -0.5 * (np.log(3 / 4) + np.log(2 / 3))
    np.testing.assert_allclose(losses.judge_loss(*odds), [crossed], rtol=1e-6)
    np.testing.assert_allclose(losses.judge_loss(*odds, 2.0), [crossed + 2 / 144], rtol=1e-6)
    with jax.enable_x64(True):
        at = jnp.array([0.7]), jnp.array([-0.4])
        found = jax.grad(lambda x, y: losses.judge_loss(x, y, 2.0)[0], argnums=(0, 1))(*at)
        for side, gradient in enumerate(found):
            moved = [[x + step * (n == side) for n, x in enumerate(at)] for step in (1e-6, -1e-6)]
            rise = (losses.judge_loss(*moved[0], 2.0) - losses.judge_loss(*moved[1], 2.0)) / 2e-6
            np.testing.assert_allclose(gradient, rise, rtol=1e-6)
    # The consistency term alone has no opinion: it is 0 wherever both orders say the same, right or wrong.
    same = jnp.array([2.0, -1.0])
    np.testing.assert_allclose(losses.judge_loss(same, -same, 5.0), losses.judge_loss(same, -same), rtol=1e-6)
