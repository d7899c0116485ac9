"""Small data sets made by hand for the tests of rl_jax/data."""

import numpy as np

from rl_jax.data.episodes import Episodes, concatenate_episodes


def make_episode(length: int, terminal: bool, seed: int, extras: bool = False) -> Episodes:
    """One random episode with three observation and two action components."""
    rng = np.random.default_rng(seed)
    observations = rng.standard_normal((length + 1, 3)).astype(np.float32)
    terminated, truncated = np.zeros(length, bool), np.zeros(length, bool)
    terminated[-1], truncated[-1] = terminal, not terminal
    return Episodes(
        observations=observations[:-1],
        actions=rng.uniform(-1, 1, (length, 2)).astype(np.float32),
        rewards=rng.standard_normal(length).astype(np.float32),
        terminated=terminated,
        truncated=truncated,
        next_observations=observations[1:],
        starts=np.zeros(1, np.int64),
        extras={"step_cost": rng.standard_normal((length, 2)).astype(np.float32)} if extras else {},
    )


def make_episodes(extras: bool = False) -> Episodes:
    """Episodes of 4 (terminal), 1 (terminal), 6 (time-out) and 3 steps (terminal)."""
    shapes = [(4, True), (1, True), (6, False), (3, True)]
    return concatenate_episodes([make_episode(n, end, seed, extras) for seed, (n, end) in enumerate(shapes)])


def assert_same(got: Episodes, want: Episodes) -> None:
    """Every array equal in value and dtype."""
    for field in ("observations", "actions", "rewards", "terminated", "truncated", "next_observations", "starts"):
        a, b = getattr(got, field), getattr(want, field)
        assert a.dtype == b.dtype, field
        np.testing.assert_array_equal(a, b, err_msg=field)
    assert set(got.extras) == set(want.extras)
    for field, array in want.extras.items():
        np.testing.assert_array_equal(got.extras[field], array, err_msg=field)
