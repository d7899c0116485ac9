"""RLHF-V's weights, weighted log-probs and loss against what the authors' own code gave (PROVENANCE.md)."""

from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rl_jax.language.documents import PairDocuments
from rl_jax.language.pairs import compared, with_change_weights
from rl_jax.language.rows import Builder
from rl_jax.language.scoring import answer_lengths, answer_log_probs, token_log_probs
from rl_jax.losses.preference import dpo_loss

with np.load(Path(__file__).parent / "authors_rlhf_v.npz", allow_pickle=False) as file:
    GOLDEN = dict(file)
_, COUNT, WIDTH, VOCABULARY = GOLDEN["logits"].shape
INSIDE = slice(COUNT - 1)  # pairs that differ well inside of their answers, which is all but the last
SETTINGS = {"paper": (5.0, 0.5, True), "released": (1.1, 0.1, False)}  # gamma, beta, whether scores are averaged


def weighted(gamma, normalised):
    """The authors' pairs with weights of ours: short matches are changed, insertions and deletions are not."""
    def document(side, number):
        tokens, prompt = GOLDEN["tokens"][side, number, : GOLDEN["lengths"][side, number]], GOLDEN["prompts"][number]
        row = Builder(VOCABULARY, WIDTH).append(tokens[:prompt], sampled=False)
        return row.append(tokens[prompt:], sampled=True).document(group=number)

    pairs = [PairDocuments(document(0, number), document(1, number), 0.0) for number in range(COUNT)]
    return with_change_weights(compared(pairs, WIDTH), gamma, normalised=normalised, shortest=3, one_sided=False)


def log_probs(logits, rows):
    """Of the tokens of rows, from logits in place of hidden states."""
    return token_log_probs(jnp.asarray(logits), jnp.eye(VOCABULARY), rows.tokens)[0]


@pytest.mark.parametrize("setting", SETTINGS)
def test_weights_scores_loss_and_gradient_are_the_authors(setting):
    gamma, beta, averaged = SETTINGS[setting]
    pairs, golden = weighted(gamma, averaged), {name: GOLDEN[f"{setting}/{name}"] for name in
                                                ("weights", "scores", "reference", "losses", "gradient")}
    sides = (pairs.first, pairs.second)
    for rows, theirs in zip(sides, golden["weights"], strict=True):
        total = theirs.sum(-1, keepdims=True) if averaged else 1.0
        np.testing.assert_allclose(rows.weights[INSIDE], (theirs / total)[INSIDE], rtol=1e-6)

    def scores(found):
        return jnp.stack([answer_log_probs(x * rows.weights, rows.mask) for x, rows in zip(found, sides, strict=True)])

    ours, before = (
        jnp.stack([log_probs(x, rows) for x, rows in zip(GOLDEN[name], sides, strict=True)])
        for name in ("logits", "reference_logits")
    )
    reference = scores(before)
    np.testing.assert_allclose(scores(ours)[:, INSIDE], golden["scores"][:, INSIDE], rtol=1e-5)
    np.testing.assert_allclose(reference[:, INSIDE], golden["reference"][:, INSIDE], rtol=1e-5)

    def losses(found):
        terms = dpo_loss(*(beta * (scores(found) - reference)))
        return jnp.sum(terms[INSIDE]), terms

    gradient, terms = jax.grad(losses, has_aux=True)(ours)
    np.testing.assert_allclose(terms[INSIDE], golden["losses"][INSIDE], rtol=2e-5)
    np.testing.assert_allclose(gradient[:, INSIDE], golden["gradient"][:, INSIDE], rtol=1e-4, atol=1e-7)


def test_whole_answers_are_summed_and_averaged_as_the_authors_do():
    """What plain DPO reads, and the lengths that divide it."""
    pairs = weighted(1.0, True)
    for side, rows in enumerate((pairs.first, pairs.second)):
        found = log_probs(GOLDEN["reference_logits"][side], rows)
        total = answer_log_probs(found, rows.mask)
        np.testing.assert_allclose(total, GOLDEN["plain/summed"][side], rtol=1e-5)
        np.testing.assert_allclose(total / answer_lengths(rows.mask), GOLDEN["plain/averaged"][side], rtol=1e-5)
        np.testing.assert_allclose(answer_log_probs(found * rows.weights, rows.mask), GOLDEN["plain/averaged"][side],
                                   rtol=1e-5)


def test_next_to_the_ends_of_an_answer_the_authors_match_prompt_and_padding_too():
    """One token before the first change, and one after the last, are a match of three with what stands around the
    answer there, and part of the change here, where answers alone are compared."""
    pairs, last = weighted(5.0, False), COUNT - 1
    for side, rows in enumerate((pairs.first, pairs.second)):
        ours, theirs = rows.weights[last], GOLDEN["paper/weights"][side, last]
        end, prompt = GOLDEN["lengths"][side, last], GOLDEN["prompts"][last]
        assert np.flatnonzero(ours != theirs).tolist() == [prompt, end - 1]
        assert set(ours[[prompt, end - 1]]) == {5.0} and set(theirs[[prompt, end - 1]]) == {1.0}
