"""Which answers are compared: by hand, and against a count of every pair."""

import itertools

import numpy as np
import pytest

from rl_jax.language.comparisons import (
    Comparisons,
    against,
    annotated,
    best_and_random,
    best_and_worst,
    combinations,
    distinct,
    documents,
    knockout,
    length_balanced,
    sampled_documents,
    truncated_at,
)
from rl_jax.language.rows import Builder
from rl_jax.language.sampler import Samples

NAN = np.nan
SCORES = np.array([[1.0, 3.0, 2.0], [2.0, 2.0, 2.0], [NAN, 0.0, 5.0], [NAN, 4.0, NAN]])
RNG = np.random.default_rng(0)


def triples(found):
    return list(zip(found.prompt.tolist(), found.better.tolist(), found.worse.tolist()))


def test_best_over_worst_without_ties_and_unknown_scores():
    found = best_and_worst(SCORES)
    assert triples(found) == [(0, 1, 0), (2, 2, 1)] and found.margin.tolist() == [2.0, 5.0]


def test_equal_answers_are_no_pair_whatever_their_scores():
    same = np.array([[7, 7, 8], [1, 2, 3], [0, 1, 2], [0, 1, 2]])
    assert triples(best_and_worst(SCORES, same)) == [(2, 2, 1)]
    assert triples(combinations(SCORES, RNG, same)) == [(0, 2, 0), (0, 1, 2), (2, 2, 1)]


def test_the_best_over_a_random_other_one():
    scores = np.tile([[0.0, 5.0, 1.0]], (400, 1))
    found = best_and_random(scores, np.random.default_rng(1))
    assert np.all(found.better == 1) and set(found.worse) == {0, 2}
    assert abs(np.mean(found.worse == 0) - 0.5) < 0.1


def test_all_combinations_are_those_of_a_count_of_every_pair():
    scores = np.random.default_rng(2).integers(0, 4, (20, 5)).astype(float)
    expected = {
        (prompt, *sorted((i, j), key=lambda column: -scores[prompt, column]))
        for prompt in range(20) for i, j in itertools.combinations(range(5), 2)
        if abs(scores[prompt, i] - scores[prompt, j]) >= 2
    }
    found = combinations(scores, RNG, least=2.0)
    assert set(triples(found)) == expected and len(found) == len(expected)
    few = combinations(scores, RNG, least=2.0, most=2)
    possible = np.bincount([prompt for prompt, *_ in expected], minlength=20)
    np.testing.assert_array_equal(np.bincount(few.prompt, minlength=20), np.minimum(possible, 2))
    assert set(triples(few)) <= expected and np.all(np.diff(few.prompt) >= 0)


def test_at_most_so_many_pairs_are_drawn_evenly():
    scores = np.tile([[0.0, 1.0, 2.0]], (3000, 1))
    pairs = triples(combinations(scores, np.random.default_rng(0), most=1))
    counts = [sum(pair[1:] == which for pair in pairs) for which in ((1, 0), (2, 0), (2, 1))]
    assert sum(counts) == 3000 and np.all(np.abs(np.array(counts) - 1000) < 4 * np.sqrt(3000 * 2 / 9))


def test_answers_against_an_anchor_on_either_side():
    found = against(SCORES, 2)
    assert triples(found) == [(0, 2, 0), (0, 1, 2), (2, 2, 1)]
    assert triples(against(SCORES[:1], np.array([0]))) == [(0, 1, 0), (0, 2, 0)]


def test_an_annotator_is_as_often_right_as_boltzmann_says():
    scores = np.tile([[0.0, 0.5]], (4000, 1))
    found = annotated(best_and_worst(scores), 2.0, np.random.default_rng(0))
    expected = 1 / (1 + np.exp(-1.0))
    assert abs(np.mean(found.better == 1) - expected) < 4 * np.sqrt(expected * (1 - expected) / 4000)
    np.testing.assert_array_equal(found.margin, np.where(found.better == 1, 0.5, -0.5))
    np.testing.assert_array_equal(found.better + found.worse, 1)


def test_the_balance_of_lengths_takes_the_best_threshold():
    # Shortenings 0.6, 0.2 and -0.5 of three pairs: without the first, means 8 + 6 against 10 + 4 are equal.
    lengths = np.array([[4, 10], [8, 10], [6, 4]])
    found = Comparisons(np.arange(3), np.zeros(3, int), np.ones(3, int), np.ones(3))
    assert length_balanced(found, lengths).prompt.tolist() == [1, 2]
    even = Comparisons(np.arange(2), np.zeros(2, int), np.ones(2, int), np.ones(2))
    assert len(length_balanced(even, np.array([[4, 6], [6, 4]]))) == 2
    assert len(length_balanced(even.take(np.zeros(2, bool)), lengths)) == 0


@pytest.mark.parametrize("n", [1, 2, 3, 5, 8])
def test_a_tournament_finds_the_best_with_one_comparison_fewer_than_answers(n):
    strength, compared = np.random.default_rng(n).random((6, n)), []

    def beats(first, second):
        compared.append(first.shape[1])
        return np.take_along_axis(strength, first, 1) > np.take_along_axis(strength, second, 1)

    np.testing.assert_array_equal(knockout(beats, 6, n), strength.argmax(1))
    assert sum(compared) == n - 1
    worst = knockout(lambda first, second: ~beats(first, second), 6, n)
    np.testing.assert_array_equal(worst, strength.argmin(1))


def samples_of(rows):
    """Host samples of (prompt, answer) pairs; log-probs are minus the place."""
    width = max(len(prompt) + len(answer) for prompt, answer in rows)
    places = np.arange(width)
    prompts, lengths = (np.array(x) for x in zip(*((len(p), len(p) + len(a)) for p, a in rows)))
    tokens = np.stack([np.pad(np.array([*p, *a]), (0, width - len(p) - len(a))) for p, a in rows])
    drawn = (places >= prompts[:, None]) & (places < lengths[:, None])
    log_probs = np.where(drawn, -places, 0.0)
    return Samples(tokens, lengths, prompts, drawn, log_probs, log_probs, np.zeros(len(rows), bool))


SAMPLES = samples_of([([1, 2], [3]), ([1, 2], [3, 0]), ([4], [5]), ([4], [5])])


def test_equal_samples_are_found_whatever_fills_their_rows():
    same = distinct(SAMPLES, 2)
    assert same.shape == (2, 2) and same[0, 0] != same[0, 1] and same[1, 0] == same[1, 1]


def test_samples_become_documents_of_pairs():
    answers = sampled_documents(SAMPLES, 2, groups=[8, 9])
    found = Comparisons(np.array([0]), np.array([1]), np.array([0]), np.array([2.5]))
    ((chosen, rejected, margin),) = documents(found, answers)
    assert chosen.tokens.tolist() == [1, 2, 3, 0] and chosen.mask.tolist() == [0, 0, 1, 1] and chosen.group == 8
    assert chosen.log_probs.tolist() == [0, 0, -2, -3] and rejected.tokens.tolist() == [1, 2, 3] and margin == 2.5


def test_a_document_is_cut_at_a_step():
    whole = Builder(10, 8).append([1, 2], sampled=False).append([3, 4, 5], sampled=True).document(group=3)
    cut = truncated_at(whole, 4)
    assert cut.tokens.tolist() == [1, 2, 3, 4] and cut.mask.tolist() == [0, 0, 1, 1]
    assert cut.truncated and cut.group == 3
    assert not truncated_at(whole, 5).truncated
    with pytest.raises(ValueError, match="the first 2 tokens of a document have nothing to learn"):
        truncated_at(whole, 2)
