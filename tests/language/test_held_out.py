"""Judging on held-out rows: every row once, a number a prompt, how numbers go with length."""

import jax.numpy as jnp
import numpy as np

from rl_jax.language.held_out import by_prompt, correlations, over_held_out, won


def test_every_row_is_scored_once_whatever_the_parts():
    rows = {"x": np.arange(7.0, dtype=np.float32)}
    trained = {"scale": jnp.array([1.0, 10.0])}
    for size in (1, 3, 7, 20):
        judge = over_held_out(lambda own, fixed, part: {"y": own["scale"] * part["x"] + fixed}, size)
        found = judge(trained, 0.5, rows)
        np.testing.assert_allclose(found["y"], np.array([[1.0], [10.0]]) * rows["x"] + 0.5)


def test_prompts_weigh_the_same_whatever_their_rows():
    values, prompts = np.array([[1.0, 0.0, 1.0, 0.0], [1.0, 1.0, 1.0, 0.5]]), np.array([7, 2, 7, 7])
    np.testing.assert_allclose(by_prompt(values, prompts), [[0.0, 2 / 3], [1.0, 2.5 / 3]])


def test_even_answers_are_half_won():
    assert won(np.array([-2.0, 0.0, 0.1])).tolist() == [0.0, 0.5, 1.0]


def test_correlation_with_length():
    lengths = np.array([1, 2, 3, 5])
    values = np.array([[2.0, 4.0, 6.0, 10.0], [-1.0, -2.0, -3.0, -5.0], [3.0, 3.0, 3.0, 3.0]])
    np.testing.assert_allclose(correlations(values, lengths), [1.0, -1.0, 0.0], atol=1e-12)
    other = np.array([[1.0, 0.5, -2.0, 4.0]])
    np.testing.assert_allclose(correlations(other, lengths)[0], np.corrcoef(other[0], lengths)[0, 1])
