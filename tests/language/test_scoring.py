"""Scores against the same computed with all logits at once, and against TRL's log-probs."""

from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rl_jax.language import scoring

RNG = np.random.default_rng(0)
HIDDEN = RNG.normal(size=(3, 11, 4)).astype(np.float32)
KERNEL = RNG.normal(size=(4, 7)).astype(np.float32)
TOKENS = RNG.integers(0, 7, (3, 11))
SEGMENTS = (np.arange(11) < np.array([11, 4, 1])[:, None]).astype(np.int32)


def whole(hidden, kernel):
    """Log-probs [B, T] and entropies [B, T], with the logits of all tokens in memory."""
    log_probs = jax.nn.log_softmax(hidden[:, :-1] @ kernel)
    taken = jnp.take_along_axis(log_probs, TOKENS[:, 1:, None], -1)[..., 0]
    return tuple(jnp.pad(x, ((0, 0), (1, 0))) for x in (taken, -jnp.sum(jnp.exp(log_probs) * log_probs, -1)))


@pytest.mark.parametrize("chunk", [4, 5, 64])
def test_chunks_give_the_same_values_and_gradients(chunk):
    def of(score):
        def total(hidden, kernel):
            log_probs, entropies = score(hidden, kernel)
            ramp = jnp.arange(33.0).reshape(3, 11)
            return jnp.sum(ramp * log_probs) + jnp.sum(entropies * (40 - ramp)), (log_probs, entropies)

        return jax.jit(jax.value_and_grad(total, argnums=(0, 1), has_aux=True))(HIDDEN, KERNEL)

    found = of(lambda hidden, kernel: scoring.token_log_probs(hidden, kernel, TOKENS, chunk, entropy=True))
    jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, rtol=2e-5, atol=2e-4), found, of(whole))
    assert not np.any(found[0][1][0][:, 0])


def test_no_array_holds_all_logits():
    def loss(hidden, kernel):
        return jnp.sum(scoring.token_log_probs(hidden, kernel, np.zeros((2, 257), np.int32), 16)[0])

    hidden, kernel = (jax.ShapeDtypeStruct(shape, jnp.float32) for shape in ((2, 257, 8), (8, 1000)))
    compiled = jax.jit(jax.grad(loss, argnums=(0, 1))).lower(hidden, kernel).compile()
    assert compiled.memory_analysis().temp_size_in_bytes < 2 * 256 * 1000 * 4 / 2


def test_log_probs_are_those_of_trl():
    golden = np.load(Path(__file__).parents[1] / "golden" / "preference.npz")
    tokens, mask = golden["given/tokens"], golden["given/mask"]
    log_probs, entropy = scoring.token_log_probs(golden["given/logits"], np.eye(7, dtype=np.float32), tokens, 4)
    assert entropy is None
    means = scoring.answer_log_probs(log_probs, mask) / scoring.answer_lengths(mask)
    chosen, rejected = means[:5], means[5:]
    # TRL's odds ratio loss is a function of the mean log-probs alone.
    odds = (x - np.log1p(-np.exp(x)) for x in (chosen, rejected))
    np.testing.assert_allclose(np.log1p(np.exp(-np.subtract(*odds))), golden["orpo"], rtol=1e-5)


def test_perplexity_of_a_target_under_its_context():
    log_probs = jnp.log(jnp.array([[0.9, 0.5, 0.125], [0.9, 0.25, 0.5]]))
    mask = jnp.array([[0.0, 1.0, 1.0], [0.0, 1.0, 0.0]])
    np.testing.assert_allclose(scoring.perplexity(log_probs, mask), [4.0, 4.0], rtol=1e-6)


def test_scalars_and_values_by_hand():
    head = np.array([1.0, -1.0, 0.5, 2.0], np.float32)
    expected = [HIDDEN[0, 10] @ head, HIDDEN[1, 3] @ head, HIDDEN[2, 0] @ head]
    np.testing.assert_allclose(scoring.last_token_scalar(HIDDEN, SEGMENTS, head), expected, rtol=1e-5)
    values = scoring.token_values(HIDDEN, head)
    np.testing.assert_allclose(values[:, 1:], (HIDDEN @ head)[:, :-1], rtol=1e-5, atol=1e-6)
    assert not np.any(values[:, 0])


def test_probabilities_of_labels():
    labels = jnp.array([2, 5])
    found, mass = jax.jit(scoring.label_probabilities)(HIDDEN, SEGMENTS, KERNEL, labels)
    full = np.exp(HIDDEN[[0, 1, 2], [10, 3, 0]] @ KERNEL)
    full /= full.sum(-1, keepdims=True)
    np.testing.assert_allclose(mass, full[:, 2] + full[:, 5], rtol=1e-5)
    np.testing.assert_allclose(found, full[:, [2, 5]] / mass[:, None], rtol=1e-5)
