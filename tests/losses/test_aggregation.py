"""Aggregations of masked terms by hand."""

import numpy as np
import pytest

from rl_jax.losses.aggregation import aggregate


def test_aggregations_by_hand():
    values, mask = np.array([[1.0, 2.0, 3.0], [10.0, 99.0, 99.0]]), np.array([[1.0, 1.0, 1.0], [1.0, 0.0, 0.0]])
    assert aggregate(values, mask, "token_mean") == 4.0
    assert aggregate(values, mask, "sequence_mean") == 6.0
    assert aggregate(values, mask, 8.0) == 2.0
    for aggregation in ("token_mean", "sequence_mean", 8.0):
        assert aggregate(values, np.zeros((2, 3)), aggregation) == 0.0
    with pytest.raises(ValueError, match="aggregation is 'mean': choose token_mean, sequence_mean or a number"):
        aggregate(values, mask, "mean")
    with pytest.raises(ValueError, match="'sequence_mean' of terms"):
        aggregate(values[0], mask[0], "sequence_mean")
