"""The pool of modulators over three tasks against what the authors' own selected, counted and pulled (PROVENANCE)."""

from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

from rl_jax.networks import modulation

with np.load(Path(__file__).parent / "authors_l2m.npz", allow_pickle=False) as file:
    GOLDEN = dict(file)


def test_selection_counts_and_pull_are_the_authors():
    keys, counts, inverse, last = jnp.asarray(GOLDEN["keys"]), jnp.zeros(6), None, -1
    for update, task in enumerate(GOLDEN["task"]):
        query = jnp.asarray(GOLDEN["queries"][update])
        if task != last:
            inverse, last = modulation.inverse_counts(counts), task
        np.testing.assert_allclose(inverse, GOLDEN["inverse"][update], rtol=2e-5)
        chosen = modulation.select(modulation.cosines(query, keys), 1, inverse if task > 0 else None)
        np.testing.assert_array_equal(chosen, GOLDEN["chosen"][update])
        counts = modulation.count(counts, jnp.float32(update), chosen)
        np.testing.assert_allclose(counts, GOLDEN["counts"][update], atol=1e-6)
        pulled, slope = jax.value_and_grad(lambda k, query=query, chosen=chosen: modulation.pull(
            modulation.cosines(query, k), chosen))(keys)
        np.testing.assert_allclose(pulled, GOLDEN["pull"][update], rtol=1e-5)
        np.testing.assert_allclose(slope, GOLDEN["gradient"][update], atol=1e-6)
