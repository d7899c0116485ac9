"""Segments of episodes: cutting, scores, and batches of comparisons."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rl_jax.data.episodes import Episodes
from rl_jax.data.segments import (
    best_segments,
    cut,
    draw_comparisons,
    regret_scores,
    return_scores,
    segments_at,
    to_segments,
)
from rl_jax.data.shifts import random_shift

# Two episodes: steps 0..4, which a terminal ends, and 5..8, which time ends.
STEPS = np.arange(9, dtype=np.float32)[:, None]
ENDS = np.isin(np.arange(9), [4, 8])
EPISODES = Episodes(
    STEPS, STEPS / 10, STEPS[:, 0], ENDS & (STEPS[:, 0] == 4), ENDS & (STEPS[:, 0] == 8), STEPS + 1, np.array([0, 5])
)
STARTS, LENGTHS = np.array([0, 2, 5, 6]), np.array([3, 3, 3, 3])
SCORED = to_segments(EPISODES, STARTS, LENGTHS, np.array([1.0, 3.0, 3.0, 2.0]))


def test_scores_by_hand():
    """Behind the terminal step V counts as 0, behind a time-out it does not."""
    assert return_scores(EPISODES, STARTS, LENGTHS).tolist() == [3, 9, 18, 21]
    values, behind = np.array([10.0, 20, 30, 40]), np.array([1.0, 2, 3, 4])
    found = regret_scores(EPISODES, STARTS, LENGTHS, values, behind)
    assert found.tolist() == [3 + 1 - 10, 9 - 20, 18 + 3 - 30, 21 + 4 - 40]


def test_a_cut_stays_in_its_episode():
    starts, lengths = cut(EPISODES, 3, 300, np.random.default_rng(0))
    assert {*zip(starts.tolist(), lengths.tolist())} == {(s, 3) for s in (0, 1, 2, 5, 6)}
    starts, lengths = cut(EPISODES, 5, 50, np.random.default_rng(0))
    assert {*zip(starts.tolist(), lengths.tolist())} == {(0, 5), (5, 4)}  # the second is shorter than asked for
    with pytest.raises(ValueError, match="0 of 3 steps asked for"):
        cut(EPISODES, 3, 0, np.random.default_rng(0))


def test_padding_is_zeros_and_masked():
    segments = to_segments(EPISODES, np.array([5, 3]), np.array([4, 2]), np.zeros(2))
    steps, mask = segments_at(segments, jnp.array([1, 0]), 4)
    assert mask.tolist() == [[1, 1, 0, 0], [1, 1, 1, 1]]
    assert steps.observations[..., 0].tolist() == [[3, 4, 0, 0], [5, 6, 7, 8]]
    assert steps.rewards.tolist() == [[3, 4, 0, 0], [5, 6, 7, 8]]
    assert steps.masks.tolist() == [[1, 0, 0, 0], [1, 1, 1, 1]]


def test_actions_lie_inside_the_box():
    wide = Episodes(STEPS, np.full_like(STEPS, 1.0), *(getattr(EPISODES, name) for name in (
        "rewards", "terminated", "truncated", "next_observations", "starts")))
    segments = to_segments(wide, STARTS, LENGTHS, np.zeros(4))
    assert segments.steps.actions.max() == np.float32(1 - 1e-5)


@pytest.mark.parametrize("starts, lengths, scores, message", [
    ([0, 3], [3, 3], [0.0, 0.0], "segment 1 is of 3 steps from step 3, and its episode ends at step 5"),
    ([0, 3], [3, 0], [0.0, 0.0], "segment 1 is of 0 steps"),
    ([0, 5], [3, 3], [0.0, np.nan], "the score of segment 1 is not a finite number"),
])
def test_what_is_no_segment_is_named(starts, lengths, scores, message):
    with pytest.raises(ValueError, match=message):
        to_segments(EPISODES, np.array(starts), np.array(lengths), np.array(scores))


def test_the_best_are_kept():
    assert best_segments(SCORED, 0.5).starts.tolist() == [2, 5]
    assert best_segments(SCORED, 0.01).starts.tolist() == [2]
    with pytest.raises(ValueError, match="fraction is 0.0"):
        best_segments(SCORED, 0.0)


def start_of(batch, side):
    return np.asarray(batch.steps.observations)[np.asarray(side), 0, 0]


@pytest.mark.parametrize("pairing", ["rank", "comparison", "score"])
def test_labels_are_of_the_scores(pairing):
    """Also where the two are equal; and what the other segment of a pair may be."""
    batch = draw_comparisons(3, pairing)(SCORED, jax.random.key(0), 64)
    score_of = dict(zip(STARTS.tolist(), [1.0, 3.0, 3.0, 2.0]))
    first, second = (np.vectorize(score_of.get)(start_of(batch, side)) for side in (batch.first, batch.second))
    assert np.array_equal(batch.labels, np.where(first == second, 0.5, second > first))
    seen = {*zip(start_of(batch, batch.first).ravel().tolist(), start_of(batch, batch.second).ravel().tolist())}
    assert seen == ({(0, 5), (2, 6)} if pairing == "comparison" else {(a, b) for a in STARTS for b in STARTS})


def test_score_compares_all_pairs_of_a_batch_once_in_each_order():
    batch = draw_comparisons(3, "score")(SCORED, jax.random.key(0), 5)
    pairs = [*zip(np.ravel(batch.first).tolist(), np.ravel(batch.second).tolist())]
    assert sorted(pairs) == [(a, b) for a in range(5) for b in range(5) if a != b]
    with pytest.raises(ValueError, match="unknown way to pair segments in config.dataset.pairing 'ranks': did you"):
        draw_comparisons(3, "ranks")


def test_random_shift_moves_a_row_as_a_whole():
    images = jnp.arange(2 * 3 * 5 * 5).reshape(2, 3, 5, 5, 1)
    shifted = np.asarray(random_shift(images, jax.random.key(3), 1))
    assert shifted.shape == images.shape
    padded = np.pad(images, ((0, 0), (0, 0), (1, 1), (1, 1), (0, 0)), mode="edge")
    for row in range(2):
        corners = [(i, j) for i in range(3) for j in range(3)
                   if np.array_equal(padded[row, :, i : i + 5, j : j + 5], shifted[row])]
        assert len(corners) == 1
    assert np.array_equal(random_shift(images, jax.random.key(3), 0), images)
