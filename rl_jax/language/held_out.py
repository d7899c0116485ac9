"""Judging a model on held-out rows: every row scored once, a number a prompt, and how numbers go with length."""

from collections.abc import Callable, Mapping

import jax
import jax.numpy as jnp
import numpy as np

from rl_jax.core.mesh import gather
from rl_jax.core.program import PyTree

# (trained parameters of one run, pretrained parameters, held-out rows [B, ...]) -> arrays [B] by name
Score = Callable[[PyTree, PyTree, PyTree], Mapping[str, jax.Array]]


def over_held_out(score: Score, batch_size: int) -> Callable[[PyTree, PyTree, PyTree], dict[str, np.ndarray]]:
    """The function (trained parameters of S runs, pretrained ones, held-out rows [N, ...]) -> host arrays [S, N].

    One run and `batch_size` rows are in memory at a time. Every process must call it.
    """

    @jax.jit
    def scored(trained: PyTree, pretrained: PyTree, rows: PyTree) -> Mapping[str, jax.Array]:
        size = len(jax.tree.leaves(rows)[0])
        count = -(-size // batch_size)

        def in_parts(x: jax.Array) -> jax.Array:
            # The last part is filled with the first rows again, whose scores are cut off.
            filled = x[jnp.arange(count * batch_size) % size]
            return filled.reshape(count, batch_size, *x.shape[1:])

        parts = jax.tree.map(in_parts, rows)

        def one_run(trained: PyTree) -> Mapping[str, jax.Array]:
            found = jax.lax.map(lambda part: dict(score(trained, pretrained, part)), parts)
            return jax.tree.map(lambda x: x.reshape(-1)[:size], found)

        return jax.lax.map(one_run, trained)

    return lambda trained, pretrained, rows: jax.tree.map(np.asarray, gather(scored(trained, pretrained, rows)))


def by_prompt(values: np.ndarray, prompts: np.ndarray) -> np.ndarray:
    """Means [S, P] over the rows of each prompt, of values [S, N] and which prompt a row is of, [N]: what is
    independent of one another is prompts, and not their rows."""
    _, places, counts = np.unique(prompts, return_inverse=True, return_counts=True)
    sums = np.zeros((len(values), len(counts)))
    for run, total in zip(values, sums, strict=True):
        np.add.at(total, places, run)
    return sums / counts


def won(margins: np.ndarray) -> np.ndarray:
    """1 where the chosen answer leads, 0 where the rejected one does, and 1/2 where they are even."""
    return 0.5 * (1.0 + np.sign(margins))


def correlations(values: np.ndarray, lengths: np.ndarray) -> np.ndarray:
    """Pearson's correlation [S] of values [S, N] with lengths [N]; 0 where either is constant."""
    values, lengths = (x - x.mean(-1, keepdims=True) for x in (values.astype(np.float64), lengths.astype(np.float64)))
    norms = np.sqrt((values**2).sum(-1) * (lengths**2).sum())
    return np.divide(values @ lengths, norms, out=np.zeros(len(values)), where=norms > 0)
