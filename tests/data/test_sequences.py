"""Sequences: cut by hand from small episodes, the sampler's distribution, and what it costs."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from rl_jax.data.episodes import Episodes
from rl_jax.data.sequences import (
    Sequences,
    Trajectories,
    sample_episodes,
    sample_sequences,
    sequences_at,
    to_rewarded_trajectories,
    to_trajectories,
    with_successors,
)
from tests.data.sets import make_episodes

EPISODES = make_episodes()
DATA = to_trajectories(EPISODES)
DRAW = jax.jit(sample_sequences, static_argnums=(2, 3))


def by_hand(episodes: Episodes, start: int, length: int) -> Sequences:
    """One sequence by slices of its own episode."""
    episode = int(np.searchsorted(episodes.starts, start, side="right")) - 1
    first, last = episodes.starts[episode], episodes.starts[episode] + episodes.lengths[episode]
    steps = range(start, min(start + length, last))

    def padded(values, width=()):
        out = np.zeros((length, *width))
        out[: len(steps)] = values
        return out

    return Sequences(
        padded(episodes.observations[steps], (3,)), padded(episodes.actions[steps], (2,)),
        padded([episodes.rewards[step:last].sum() for step in steps]), padded([step - first for step in steps]),
        padded(np.ones(len(steps))),
    )


def assert_equal(got: Sequences, want: Sequences, **tolerance) -> None:
    for field in Sequences.__dataclass_fields__:
        np.testing.assert_allclose(getattr(got, field), getattr(want, field), **tolerance, err_msg=field)


@pytest.mark.parametrize("length", [1, 2, 5, 20])
def test_a_sequence_stays_in_its_episode_and_is_padded_behind(length):
    """From every step of episodes of 4, 1, 6 and 3 steps; 20 is longer than the whole set."""
    got = sequences_at(DATA, np.arange(len(DATA)), length)
    want = [by_hand(EPISODES, start, length) for start in range(len(DATA))]
    assert_equal(got, jax.tree.map(lambda *x: np.stack(x), *want), rtol=1e-5, atol=1e-6)
    assert got.observations.shape == (14, length, 3) and got.actions.shape == (14, length, 2)
    assert got.timesteps.dtype == np.int32
    for field in ("observations", "actions", "returns_to_go", "mask"):
        assert getattr(got, field).dtype == np.float32, field


def test_returns_to_go_are_undiscounted_and_time_counts_from_each_beginning():
    np.testing.assert_array_equal(DATA.timesteps, [0, 1, 2, 3, 0, 0, 1, 2, 3, 4, 5, 0, 1, 2])
    np.testing.assert_allclose(DATA.returns_to_go[EPISODES.starts], EPISODES.returns, rtol=1e-6)
    np.testing.assert_allclose(DATA.returns_to_go[:3] - DATA.returns_to_go[1:4], EPISODES.rewards[:3], atol=1e-6)


def test_the_sampler_cuts_the_same_sequences_on_the_device():
    batch = DRAW(DATA, jax.random.key(0), 64, 5)
    # No two steps of the set have the same first observation: it tells the start.
    first = np.asarray(batch.observations[:, 0])
    starts = [int(np.flatnonzero((DATA.observations == row).all(-1))[0]) for row in first]
    assert len(set(starts)) > 8
    assert_equal(batch, sequences_at(DATA, np.array(starts), 5))


def test_an_episode_is_drawn_in_proportion_to_its_length_and_its_start_uniformly():
    size = 14_000
    batch = DRAW(DATA, jax.random.key(1), size, 1)
    returns_to_go = np.asarray(batch.returns_to_go[:, 0])
    counts = np.array([np.sum(returns_to_go == value) for value in DATA.returns_to_go])
    assert counts.sum() == size, "every step is known by its return-to-go"
    assert stats.chisquare(counts).pvalue > 0.01
    by_episode = np.add.reduceat(counts, EPISODES.starts)
    assert stats.chisquare(by_episode, size * EPISODES.lengths / len(DATA)).pvalue > 0.01


def test_a_batch_is_a_function_of_its_key_also_under_vmap():
    keys = jax.random.split(jax.random.key(3), 3)
    batches = jax.jit(jax.vmap(lambda key: sample_sequences(DATA, key, 8, 5)))(keys)
    for i, key in enumerate(keys):
        assert_equal(jax.tree.map(lambda x: x[i], batches), DRAW(DATA, key, 8, 5))
    assert np.any(batches.observations[0] != batches.observations[1])


def test_no_array_of_all_sequences_is_made():
    size, length = 100_000, 20
    shapes = [((size, 11), float), ((size, 3), float), (size, float), (size, int)]
    data = Trajectories(*(jnp.zeros(shape, dtype) for shape, dtype in shapes))
    compiled = DRAW.lower(data, jax.random.key(0), 64, length).compile()
    assert compiled.memory_analysis().temp_size_in_bytes < size


def test_an_episode_is_drawn_whole_with_the_state_after_its_last_step():
    """Episodes of 4, 1, 6 and 3 steps; a terminal and a time-out differ in `masks` alone."""
    data = to_rewarded_trajectories(EPISODES)
    batch = jax.jit(sample_episodes, static_argnums=(2, 3))(data, jax.random.key(0), 400, 6)
    np.testing.assert_array_equal(batch.timesteps[:, 0], 0)
    lengths = np.asarray(batch.mask).sum(1).astype(int)
    assert stats.chisquare([np.sum(lengths == length) for length in (4, 1, 6, 3)]).pvalue > 0.01, "episodes uniformly"
    row = int(np.argmax(lengths == 3))
    steps, after = slice(EPISODES.starts[3], EPISODES.starts[3] + 3), with_successors(batch)
    np.testing.assert_allclose(batch.rewards[row], [*EPISODES.rewards[steps], 0, 0, 0], rtol=1e-6)
    np.testing.assert_allclose(batch.masks[row], [*(1.0 - EPISODES.terminated[steps]), 0, 0, 0])
    np.testing.assert_allclose(after.observations[row, :3], EPISODES.observations[steps], rtol=1e-6)
    np.testing.assert_allclose(after.observations[row, 3], EPISODES.next_observations[steps][-1], rtol=1e-6)
    np.testing.assert_allclose(after.actions[row, :3], EPISODES.actions[steps], rtol=1e-6)
    np.testing.assert_array_equal(after.actions[row, 3:], 0.0)
    np.testing.assert_array_equal(after.timesteps[row], [0, 1, 2, 3, 0, 0, 0])
    np.testing.assert_array_equal(after.mask[row], [1, 1, 1, 1, 0, 0, 0])
    ended = [episode for episode in range(4) if EPISODES.truncated[(EPISODES.starts + EPISODES.lengths)[episode] - 1]]
    for episode in ended:  # a time-out bootstraps
        last = int(EPISODES.starts[episode] + EPISODES.lengths[episode] - 1)
        assert data.masks[last] == 1.0
    assert 0 < len(ended) < 4
