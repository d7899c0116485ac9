"""Rows: how they are made, and that no cut, order, packing or padding of a batch changes a loss or its gradient."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rl_jax.language.rows import Builder, Rows, bucket, pack, pad, weights
from rl_jax.losses.aggregation import aggregate
from tests.language.tiny import CONFIG, DOCUMENTS, PARAMS, log_probs

GOLDEN_MASK = np.array([[0, 1, 1, 1], [0, 0, 1, 0], [0, 0, 0, 0]], np.float32)


def test_a_document_is_appended_piece_by_piece():
    builder = Builder(10, 8).append([1, 2], sampled=False).append([3, 4], sampled=True, log_probs=[-0.5, -0.25])
    document = builder.append([5], sampled=False).append([6], sampled=True).document(group=3, reward=1.5)
    assert document.tokens.tolist() == [1, 2, 3, 4, 5, 6] and document.mask.tolist() == [0, 0, 1, 1, 0, 1]
    rows = pad([document], 8)
    assert rows.segments[0].tolist() == [1] * 6 + [0] * 2 and rows.positions[0].tolist() == [0, 1, 2, 3, 4, 5, 0, 0]
    assert rows.log_probs[0].tolist() == [0, 0, -0.5, -0.25, 0, 0, 0, 0]
    assert rows.group.tolist() == [3] and rows.reward.tolist() == [1.5] and not rows.truncated[0]


def test_the_first_token_is_never_learnt():
    assert Builder(10, 8).append([1, 2], sampled=True).document().mask.tolist() == [0, 1]


@pytest.mark.parametrize("tokens, sampled, message", [
    ([3, 10], False, "token 10 is outside the vocabulary of 10: the tokenizer is another model's"),
    ([-1], True, "token -1 is outside the vocabulary"),
    ([], True, "an answer is empty"),
    ([1] * 9, False, "a prompt of 9 tokens makes a document of 9, longer than the context of 8"),
    ([1] * 9, True, "an answer of 9 tokens makes a document of 9, longer than the context of 8"),
])
def test_a_bad_piece_is_one_error_and_leaves_the_document_as_it_was(tokens, sampled, message):
    builder = Builder(10, 8)
    with pytest.raises(ValueError, match=message):
        builder.append(tokens, sampled)
    with pytest.raises(ValueError, match="1 tokens with 2 log-probs"):
        builder.append([1], True, [0.0, 0.0])
    assert len(builder.document().tokens) == 0


def test_a_document_longer_than_a_row_or_a_bucket_is_an_error():
    with pytest.raises(ValueError, match="does not fit a row of 4"):
        pad(DOCUMENTS, 4)
    with pytest.raises(ValueError, match="longer than the largest bucket, 6"):
        bucket(pad(DOCUMENTS, 16), (4, 6))


def test_packing_keeps_every_token_and_fills_rows():
    rows = pack(DOCUMENTS, 16)
    assert len(rows) == 3  # 11 + 5, 9 + 7, 8 + 4 tokens, and none is lost
    assert (rows.segments > 0).sum() == sum(len(document.tokens) for document in DOCUMENTS)
    assert rows.mask.sum() == sum(document.mask.sum() for document in DOCUMENTS)
    assert all(rows.positions[rows.segments > 0][rows.positions[rows.segments > 0] == 0] == 0)
    assert (rows.positions[rows.segments > 0] == 0).sum() == len(DOCUMENTS)


@pytest.mark.parametrize("kind", ["token_mean", "sequence_mean", 7.0])
def test_weights_by_hand_and_as_the_aggregation_of_the_same_name(kind):
    expected = {
        "token_mean": GOLDEN_MASK / 4, "sequence_mean": GOLDEN_MASK / np.array([[6], [2], [1]]), 7.0: GOLDEN_MASK / 7
    }[kind]
    found = weights(GOLDEN_MASK, kind)
    np.testing.assert_allclose(found, expected, rtol=1e-6)
    terms = jnp.arange(12.0).reshape(3, 4)
    np.testing.assert_allclose(jnp.sum(found * terms), aggregate(terms, GOLDEN_MASK, kind), rtol=1e-6)


def test_prompts_weigh_the_same_however_many_tokens_they_have():
    # Prompt 7 has 3 + 1 tokens in two rows, prompt 900 has 2.
    mask = np.array([[0, 1, 1, 1], [0, 1, 1, 0], [0, 1, 0, 0]], np.float32)
    found = jax.jit(lambda mask, group: weights(mask, "prompt_mean", group=group))(mask, np.array([7, 900, 7]))
    np.testing.assert_allclose(found, mask / np.array([[8], [4], [8]]), rtol=1e-6)


def test_unknown_weights_are_an_error():
    with pytest.raises(ValueError, match="the weights are 'mean': choose token_mean"):
        weights(GOLDEN_MASK, "mean")
    with pytest.raises(ValueError, match="need the group"):
        weights(GOLDEN_MASK, "prompt_mean")


@jax.jit
@jax.value_and_grad
def of_part(params, rows):
    return jnp.sum(-rows.weights * log_probs(params, rows))


def loss_and_gradient(*parts: Rows):
    """The loss of a whole batch that is cut into parts, and its gradient by the decoder's parameters."""
    return jax.tree.map(lambda *x: sum(x), *(of_part(PARAMS, rows) for rows in parts))


@pytest.mark.parametrize("kind", ["token_mean", "sequence_mean", "prompt_mean", 100.0])
def test_no_cut_order_packing_or_padding_changes_a_loss_or_its_gradient(kind):
    padded = pad(DOCUMENTS, 16)
    padded = padded.replace(weights=weights(padded.mask, kind, group=padded.group))
    whole = loss_and_gradient(padded)
    order = np.array([5, 3, 0, 2, 4, 1])
    others = {
        "micro-batches": [padded.take(np.array([0, 1, 2])), padded.take(np.array([3, 4, 5]))],
        "order": [padded.take(order)],
        "padding": [pad(DOCUMENTS, 24).replace(weights=np.pad(padded.weights, ((0, 0), (0, 8))))],
        "buckets": list(bucket(padded, (8, 16)).values()),
    }
    if kind != "prompt_mean":
        packed = pack(DOCUMENTS, 16)
        others["packing"] = [packed.replace(weights=weights(packed.mask, kind, segments=packed.segments))]
    for name, parts in others.items():
        loss, gradient = loss_and_gradient(*parts)
        np.testing.assert_allclose(loss, whole[0], rtol=2e-6, err_msg=name)
        for found, expected in zip(jax.tree.leaves(gradient), jax.tree.leaves(whole[1]), strict=True):
            np.testing.assert_allclose(found, expected, atol=2e-6, err_msg=name)


def test_a_packed_document_has_the_log_probs_that_it_has_alone():
    packed = pack(DOCUMENTS, 16)
    together, found = jax.jit(lambda *rows: [log_probs(PARAMS, one) for one in rows])(packed, pad(DOCUMENTS, 16))
    alone = {tuple(document.tokens): own for document, own in zip(DOCUMENTS, found, strict=True)}
    for row in range(len(packed)):
        for segment in range(1, packed.segments[row].max() + 1):
            inside = packed.segments[row] == segment
            own = alone[tuple(packed.tokens[row][inside])]
            np.testing.assert_allclose(together[row][inside][1:], own[1 : inside.sum()], atol=2e-6)
    assert CONFIG.context_length >= 16
