"""The raw record of evaluated episodes: round trip, resume, damage."""

import numpy as np
import pytest

from rl_jax.evaluation.records import read_episodes, record_episodes
from rl_jax.evaluation.rollouts import EpisodeResults


def results(value, num_runs=2):
    shape = (num_runs, 3)
    return EpisodeResults(
        np.full(shape, value + 0.125), np.full(shape, value, np.int64), np.full(shape, value % 2 == 0)
    )


def test_round_trip_and_resume(tmp_path):
    path = tmp_path / "evaluations.npz"
    for step in (100, 200, 300):
        record_episodes(path, step, results(step))
    record_episodes(path, 200, results(7))  # resumed from a checkpoint at 150
    record = read_episodes(path)
    np.testing.assert_array_equal(record.steps, [100, 200])
    assert record.episodes.returns.shape == (2, 2, 3)
    np.testing.assert_array_equal(record.episodes.returns[:, 0, 0], [100.125, 7.125])
    np.testing.assert_array_equal(record.episodes.lengths[:, 1, 2], [100, 7])
    np.testing.assert_array_equal(record.episodes.terminated[:, 0, 0], [True, False])
    assert [p.name for p in tmp_path.iterdir()] == ["evaluations.npz"]


def test_damage_and_other_runs_are_named(tmp_path):
    path = tmp_path / "evaluations.npz"
    record_episodes(path, 1, results(1))
    with pytest.raises(ValueError, match="another run"):
        record_episodes(path, 2, results(1, num_runs=5))
    path.write_bytes(path.read_bytes()[:-40])
    with pytest.raises(ValueError, match="evaluations.npz is not a record"):
        read_episodes(path)
