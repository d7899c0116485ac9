"""Transitions: the sampler's distribution and reproducibility, and the checks."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from rl_jax.data.transitions import Transitions, check_transitions, sample, write_rows


def make_transitions(size: int) -> Transitions:
    """Row i is filled with the number i, so that a sampled row names its source."""
    rows = np.arange(size, dtype=np.float32)
    return Transitions(
        observations=np.stack([rows, rows + 0.5], axis=1),
        actions=np.full((size, 1), 0.25, np.float32),
        rewards=-rows,
        masks=(rows % 3 != 0).astype(np.float32),
        next_observations=np.stack([rows + 1, rows + 1.5], axis=1),
        next_actions=np.full((size, 1), 0.5, np.float32),
        mc_returns=2 * rows,
        expert=rows % 2,
    )


def test_sample_is_uniform_over_all_rows():
    size, draws = 37, 37_000
    batch = jax.jit(sample, static_argnums=2)(make_transitions(size), jax.random.key(0), draws)
    counts = np.bincount(np.asarray(batch.observations[:, 0]).astype(int), minlength=size)
    assert len(counts) == size
    assert stats.chisquare(counts).pvalue > 0.01
    # Neighbouring draws are independent: their correlation is a standard normal over the square root of their number.
    row = np.asarray(batch.observations[:, 0])
    assert abs(np.corrcoef(row[:-1], row[1:])[0, 1]) * np.sqrt(draws) < 3


def test_sample_keeps_rows_together():
    data = make_transitions(101)
    batch = sample(data, jax.random.key(1), 64)
    rows = np.asarray(batch.observations[:, 0]).astype(int)
    for field in dataclasses.fields(data):
        np.testing.assert_array_equal(getattr(batch, field.name), getattr(data, field.name)[rows])
    assert len(batch) == 64 and isinstance(batch, Transitions)


def test_sample_is_a_function_of_its_key():
    data = jax.tree.map(jnp.asarray, make_transitions(1000))
    draw = jax.jit(sample, static_argnums=2)
    first, again, other = (draw(data, jax.random.key(seed), 32) for seed in (7, 7, 8))
    np.testing.assert_array_equal(first.rewards, again.rewards)
    assert (np.asarray(first.rewards) != np.asarray(other.rewards)).any()
    np.testing.assert_array_equal(first.rewards, sample(data, jax.random.key(7), 32).rewards)


def test_sample_under_vmap_equals_single_draws():
    data = make_transitions(50)
    keys = jax.random.split(jax.random.key(3), 4)
    batches = jax.vmap(lambda key: sample(data, key, 8))(keys)
    for i, key in enumerate(keys):
        np.testing.assert_array_equal(batches.rewards[i], sample(data, key, 8).rewards)


def test_columns_that_no_agent_asked_for_cost_nothing():
    data = make_transitions(20).replace(next_actions=None, mc_returns=None)
    batch = sample(data, jax.random.key(0), 4)
    assert batch.next_actions is None and batch.mc_returns is None
    check_transitions(data, "set")


def test_good_transitions_pass():
    check_transitions(make_transitions(10), "set", action_bound=1.0)


@pytest.mark.parametrize(
    "field, index, value, message",
    [
        ("observations", (4, 1), np.nan, r"set: field 'observations' at step 4, component 1 is nan"),
        ("rewards", 2, np.inf, r"set: field 'rewards' at step 2 is inf"),
        ("masks", 3, 0.5, r"set: field 'masks' at step 3 is 0.5, expected 0 or 1"),
        ("actions", (7, 0), 1.01, r"set: field 'actions' at step 7, component 0 is 1.0.*\[-1, 1\]"),
        ("next_observations", (0, 0), -np.inf, r"set: field 'next_observations' at step 0, component 0 is -inf"),
    ],
)
def test_a_bad_value_is_named(field, index, value, message):
    data = make_transitions(10)
    getattr(data, field)[index] = value
    with pytest.raises(ValueError, match=message):
        check_transitions(data, "set", action_bound=1.0)


@pytest.mark.parametrize(
    "field, change, message",
    [
        ("rewards", lambda a: a[:-1], r"'rewards' has shape \(9,\), expected \(10\)"),
        ("masks", lambda a: a[:, None], r"'masks' has shape \(10, 1\)"),
        ("next_actions", lambda a: a[:-1], r"'next_actions' has shape \(9, 1\), expected \(10, 1\)"),
        ("mc_returns", lambda a: a[:, None], r"'mc_returns' has shape \(10, 1\)"),
        ("next_observations", lambda a: a[:, :1], r"'next_observations' has shape \(10, 1\), expected \(10, 2\)"),
        ("actions", lambda a: a.astype(np.float64), r"'actions' has dtype float64, expected float32"),
        ("observations", lambda a: a[:0], r"'observations' holds no steps"),
    ],
)
def test_a_bad_shape_or_dtype_is_named(field, change, message):
    data = make_transitions(10)
    with pytest.raises(ValueError, match=message):
        check_transitions(data.replace(**{field: change(getattr(data, field))}), "set")


def test_kept_rows_are_written_in_order_and_over_the_oldest():
    buffer = {"number": jnp.full(5, -1.0), "pair": jnp.full((5, 2), -1)}
    numbers = jnp.arange(6, dtype=jnp.float32).reshape(3, 2)
    rows = {"number": numbers, "pair": jnp.stack([numbers, 10 * numbers], -1)}
    kept = jnp.array([[False, True], [True, False], [True, True]])
    buffer, added = write_rows(buffer, rows, kept, jnp.int32(0))
    np.testing.assert_array_equal(buffer["number"], [1, 2, 4, 5, -1])
    buffer, added = write_rows(buffer, rows, kept, added)
    np.testing.assert_array_equal(buffer["number"], [2, 4, 5, 5, 1])
    np.testing.assert_array_equal(buffer["pair"][:, 1], [20, 40, 50, 50, 10])
    assert added == 8 and buffer["pair"].dtype == jnp.int32
