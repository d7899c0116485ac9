"""The replay buffer: what it keeps and draws, batches mixed with prior data, returns of episodes, how it goes on."""

import jax
import numpy as np
import pytest
from flax import serialization
from scipy import stats

from rl_jax.data.replay import ReplayBuffer
from rl_jax.data.transitions import Collected, Transitions, mix_with_prior
from tests.data.sets import make_episodes


def step(number: float, num_runs: int = 2) -> dict[str, np.ndarray]:
    """A step filled with its number; run s adds 1000 s to it, so that a drawn row names its run and step."""
    runs = number + 1000.0 * np.arange(num_runs)
    return {
        "observations": np.stack([runs, runs + 0.5], 1), "actions": -runs[:, None], "rewards": runs,
        "masks": np.full(num_runs, number % 2), "next_observations": np.stack([runs + 1, runs + 1.5], 1),
    }


def fill(replay: ReplayBuffer, numbers, ends=()) -> None:
    for number in numbers:
        replay.add(np.full(replay.num_runs, number in ends), **step(number, replay.num_runs))


def prior(size: int) -> Transitions:
    """Rows that are told by a negative number, -1 .. -size."""
    rows = -1.0 - np.arange(size, dtype=np.float32)
    pairs = np.stack([rows, rows], 1)
    return Transitions(pairs, rows[:, None], rows, np.ones(size, np.float32), pairs, mc_returns=10 * rows)


def generators(seed: int = 0, num_runs: int = 2) -> list[np.random.Generator]:
    return [np.random.default_rng([seed, run]) for run in range(num_runs)]


def test_the_ring_keeps_the_newest_steps_of_each_run_whole_and_uniformly():
    replay = ReplayBuffer(2, 50, 2, 1)
    fill(replay, range(73))
    batch = replay.sample(generators(), 20_000)
    for run in range(2):
        number = batch.rewards[run] - 1000 * run
        rows = np.stack([batch.rewards[run], batch.rewards[run] + 0.5], 1)
        np.testing.assert_array_equal(batch.observations[run], rows)
        np.testing.assert_array_equal(batch.next_observations[run, :, 0], batch.rewards[run] + 1)
        np.testing.assert_array_equal(batch.actions[run, :, 0], -batch.rewards[run])
        np.testing.assert_array_equal(batch.masks[run], number % 2)
        counts = np.bincount(number.astype(int), minlength=73)
        assert not counts[:23].any(), "a step older than the capacity is drawn"
        assert stats.chisquare(counts[23:]).pvalue > 0.01
    assert all(column.dtype == np.float32 for column in vars(batch).values() if column is not None)
    assert batch.mc_returns is None and batch.next_actions is None


def test_runs_keep_different_steps():
    replay = ReplayBuffer(2, 20, 2, 1, marks_expert=True)
    kept = np.arange(50) % 5 != 3
    for number in range(50):
        marks = np.array([number % 2, 1.0])
        replay.add(np.zeros(2, bool), kept=np.array([kept[number], True]), expert=marks, **step(number))
    np.testing.assert_array_equal(replay.added, [40, 50])
    np.testing.assert_array_equal(replay.drawable, [20, 20])
    batch = replay.sample(generators(), 2000)
    assert {*batch.rewards[0]} == {*np.flatnonzero(kept)[20:]} and {*batch.rewards[1]} == {*range(1030, 1050)}
    np.testing.assert_array_equal(batch.expert[0], batch.rewards[0] % 2)
    assert batch.expert[1].all()


def test_a_run_draws_by_its_own_generator_and_from_its_own_steps():
    both, second = ReplayBuffer(2, 100, 2, 1), ReplayBuffer(1, 100, 2, 1)
    for number in range(40):
        both.add(np.zeros(2, bool), **step(number))
        second.add(np.zeros(1, bool), **{name: column[1:] for name, column in step(number).items()})
    pair, alone = both.sample(generators(), 64), second.sample(generators()[1:], 64)
    for name in ("observations", "actions", "rewards", "masks", "next_observations"):
        np.testing.assert_array_equal(getattr(pair, name)[1], getattr(alone, name)[0])
    assert set(pair.rewards[0]) != set(pair.rewards[1] - 1000)


def mixed(replay: ReplayBuffer, size: int, fraction: float, seed: int = 0) -> np.ndarray:
    """The rewards of the first run's batch of `size` rows, mixed with prior(30)."""
    batch = jax.tree.map(lambda x: x[0], replay.sample(generators(seed, replay.num_runs), size))
    collected = Collected(batch, np.full(size, replay.drawable[0], np.int32))
    out = jax.jit(mix_with_prior, static_argnums=3)(columns_of(prior(30)), collected, jax.random.key(seed), fraction)
    np.testing.assert_array_equal(out.actions[:, 0], -np.abs(out.rewards))  # of either kind's own row
    assert out.observations.shape == (size, 2) and out.masks.shape == (size,)
    return np.asarray(out.rewards)


def columns_of(transitions: Transitions) -> Transitions:
    return transitions.replace(mc_returns=None)


def test_half_of_a_batch_comes_from_the_prior_data():
    replay = ReplayBuffer(2, 100, 2, 1)
    everything = mixed(replay, 4000, 0.5)
    assert (everything < 0).all(), "with nothing collected the whole batch is prior"
    assert stats.chisquare(np.bincount(-everything.astype(int), minlength=31)[1:]).pvalue > 0.01
    fill(replay, range(10))
    rewards = mixed(replay, 4001, 0.5)
    assert (rewards < 0).sum() == 2000  # 4001 / 2, rounded down
    assert stats.chisquare(np.bincount(rewards[rewards >= 0].astype(int), minlength=10)).pvalue > 0.01
    # The ring may turn over; the prior data stay.
    fill(replay, range(10, 350))
    rewards = mixed(replay, 1000, 0.5)
    assert (rewards < 0).sum() == 500 and rewards[rewards >= 0].min() >= 250


@pytest.mark.parametrize("fraction, prior_rows", [(0.0, 0), (0.25, 100), (1.0, 400)])
def test_any_share_of_a_batch_may_be_prior(fraction, prior_rows):
    replay = ReplayBuffer(1, 20, 2, 1)
    fill(replay, range(3))
    assert (mixed(replay, 400, fraction) < 0).sum() == prior_rows


def test_one_buffer_of_prior_and_collected_steps():
    replay = ReplayBuffer(1, 20, 2, 1)
    assert (mixed(replay, 300, -1.0) < 0).all()
    fill(replay, range(15))
    rows = mixed(replay, 45_000, -1.0).astype(int)
    counts = np.bincount(np.where(rows < 0, -1 - rows, 30 + rows), minlength=45)
    assert len(counts) == 45 and stats.chisquare(counts).pvalue > 0.01


def test_returns_are_those_of_the_episodes_and_wait_for_their_ends():
    """Against Episodes.returns_to_go, which computes a data set's; the first run's episodes and the second's differ."""
    episodes, discount = make_episodes(), 0.9
    lengths, size = episodes.lengths, len(episodes)
    replay = ReplayBuffer(2, 64, 3, 2, discount=discount)
    ends = np.cumsum(lengths) - 1
    drawable = []
    for t in range(size):
        later = (t + 5) % size  # the second run is five steps ahead; its episodes wrap at the set's end
        pick = [t, later]
        replay.add(
            np.isin(pick, ends), observations=episodes.observations[pick], actions=episodes.actions[pick],
            rewards=episodes.rewards[pick], masks=1.0 - episodes.terminated[pick],
            next_observations=episodes.next_observations[pick],
        )
        if t >= 5:
            batch = replay.sample(generators(t), 200)
            drawable.append([len(np.unique(rewards)) for rewards in batch.rewards])
    # Episodes of 4, 1, 6 and 3 steps: the first run has ended them after 4, 5, 11 and 14 steps; the second begins with
    # the one of 6.
    assert [one for one, _ in drawable] == [5] * 5 + [11] * 3 + [14]
    assert [two for _, two in drawable] == [6] * 3 + [9] * 4 + [13, 14]
    returns = episodes.returns_to_go(discount)
    batch = replay.sample(generators(99), 500)
    for run, known in enumerate((range(14), [*range(5, 14), *range(5)])):
        by_reward = {float(episodes.rewards[row]): row for row in known}
        rows = [by_reward[float(reward)] for reward in batch.rewards[run]]
        np.testing.assert_allclose(batch.mc_returns[run], returns[rows], rtol=1e-5, atol=1e-6)


def test_returns_by_hand():
    replay = ReplayBuffer(1, 4, 2, 1, discount=0.5)
    fill(replay, [1.0, 2.0, 4.0], ends=[4.0])
    batch = replay.sample(generators(num_runs=1), 100)
    expected = {1.0: 1 + 0.5 * 2 + 0.25 * 4, 2.0: 2 + 0.5 * 4, 4.0: 4.0}
    assert {*batch.rewards[0].tolist()} == {*expected}
    np.testing.assert_array_equal(batch.mc_returns[0], [expected[reward] for reward in batch.rewards[0].tolist()])
    collected = Collected(jax.tree.map(lambda x: x[0], batch), np.full(100, 3, np.int32))
    batch = mix_with_prior(prior(3), collected, jax.random.key(0), 0.5)
    expected = [10 * reward if reward < 0 else expected[reward] for reward in batch.rewards.tolist()]
    np.testing.assert_array_equal(batch.mc_returns, expected)


def test_an_episode_over_the_end_of_the_ring_keeps_its_returns():
    replay = ReplayBuffer(1, 5, 2, 1, discount=1.0)
    fill(replay, [1, 2, 3], ends=[3])
    fill(replay, [4, 5, 6, 7], ends=[7])
    batch = replay.sample(generators(num_runs=1), 200)
    assert {*zip(batch.rewards[0].tolist(), batch.mc_returns[0].tolist())} == {
        (3.0, 3.0), (4.0, 22.0), (5.0, 18.0), (6.0, 13.0), (7.0, 7.0)
    }


@pytest.mark.parametrize("discount, steps", [(None, 7), (None, 33), (0.9, 33)])
def test_a_restored_buffer_goes_on_as_the_one_that_was_saved(discount, steps):
    def make() -> ReplayBuffer:
        return ReplayBuffer(2, 20, 2, 1, discount=discount)

    replay, other = make(), make()
    fill(replay, range(steps), ends=range(0, 100, 6))
    # What a checkpoint does with it.
    saved = serialization.msgpack_restore(serialization.msgpack_serialize(replay.save()))
    assert saved["observations"].shape == (2, min(steps, 20), 2), "only what is filled is saved"
    other.restore(saved)
    for buffer in (replay, other):
        fill(buffer, range(steps, steps + 9), ends=range(0, 100, 6))
    one, two = replay.sample(generators(3), 256), other.sample(generators(3), 256)
    for name, column in vars(one).items():
        np.testing.assert_array_equal(column, getattr(two, name), err_msg=name)
    np.testing.assert_array_equal(replay.added, [steps + 9] * 2)
    np.testing.assert_array_equal(other.added, replay.added)


def test_a_saved_buffer_does_not_change_any_more():
    replay = ReplayBuffer(1, 3, 2, 1)
    fill(replay, range(3))
    saved = replay.save()
    fill(replay, range(3, 6))
    np.testing.assert_array_equal(saved["rewards"], [[0, 1, 2]])


def test_bad_input_is_named():
    with pytest.raises(ValueError, match="must be positive, not 0 and 5"):
        ReplayBuffer(0, 5, 2, 1)
    empty = ReplayBuffer(1, 5, 2, 1)
    whole_episodes = ReplayBuffer(1, 5, 2, 1, discount=0.9)
    fill(whole_episodes, range(5))
    with pytest.raises(ValueError, match="longer than the replay buffer's capacity of 5"):
        fill(whole_episodes, [5])
    fill(empty, range(4))
    with pytest.raises(ValueError, match=r"observations of shape \(1, 4, 2\), and this one needs \(1, 3, 2\)"):
        ReplayBuffer(1, 3, 2, 1).restore(empty.save())
