"""Sparse regression on a dictionary of monomials, and ensembles of it: SINDy and its bootstraps.

Brunton, Proctor and Kutz 2016 (SINDy), arXiv 1509.03711; Kaiser, Kutz and Brunton 2018 (with control), arXiv
1711.05501; Fasel, Kutz, Brunton and Brunton 2022 (ensembles), arXiv 2111.10992; Zolman, Fasel, Kutz and Brunton 2024
(SINDy-RL), arXiv 2403.09110.

    targets [N, M] = features(states [N, O], actions [N, A]) [N, P] coefficients [P, M]

Coefficients are found in float64 and by orthogonal factors, never by normal equations: cubic terms of (cos, sin) are
collinear, and squaring their condition number leaves no digits.
"""

from collections.abc import Sequence
from itertools import combinations_with_replacement
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.custom_batching import sequential_vmap

from rl_jax.core.program import Key

# A monomial by the numbers of its variables, states first and then actions: (0, 0, 5) is x0 x0 x5, () is 1.
Term = tuple[int, ...]


class Ensemble(NamedTuple):
    """K fits of one regression.

    Attributes:
      coefficients: [P, M] float32, the element-wise median (or mean) of the members'.
      members: [K, P, M] float32.
    """

    coefficients: jax.Array
    members: jax.Array


def monomials(num_variables: int, degree: int, *, mixed: bool = True, constant: bool = False) -> tuple[Term, ...]:
    """All monomials of degree 1 to `degree`, with 1 before them where there is a constant.

    Args:
      mixed: whether products of different variables are among them, or powers of one alone.
    """
    found = [] if not constant else [()]
    for power in range(1, degree + 1):
        found += combinations_with_replacement(range(num_variables), power)
    return tuple(term for term in found if mixed or len(set(term)) <= 1)


def control_affine(num_states: int, num_actions: int, degree: int, *, mixed: bool = True) -> tuple[Term, ...]:
    """p_degree(x), u and x u: what SINDy-RL fits dynamics with; no constant."""
    actions = range(num_states, num_states + num_actions)
    products = tuple((state, action) for action in actions for state in range(num_states))
    return monomials(num_states, degree, mixed=mixed) + tuple((action,) for action in actions) + products


def features(terms: Sequence[Term], *variables: jax.Array) -> jax.Array:
    """The terms [..., P] of variables that stand side by side, each [..., its number]."""
    columns = jnp.moveaxis(jnp.concatenate(variables, -1), -1, 0)
    products: dict[Term, jax.Array] = {(): jnp.ones(columns.shape[1:])}

    def product(term: Term) -> jax.Array:
        if term not in products:
            products[term] = product(term[:-1]) * columns[term[-1]] if len(term) > 1 else columns[term[0]]
        return products[term]

    return jnp.stack([product(term) for term in terms], -1)


def stlsq(
    features: jax.Array,
    targets: jax.Array,
    *,
    threshold: jax.Array | float,
    ridge: jax.Array | float,
    weights: jax.Array | None = None,
    allowed: jax.Array | None = None,
    unbias: bool = True,
    iterations: int = 20,
) -> jax.Array:
    """Sequentially thresholded least squares: ridge regression, without the terms below the threshold, over and over.

    Args:
      features: [N, P].
      targets: [N, M]; each column has a support of its own.
      threshold: least absolute value of a coefficient that stays.
      ridge: alpha, the weight of the sum of squared coefficients beside the sum over rows; above 0 where terms are
        collinear.
      weights: [N], how often each row counts: a bootstrap's multiplicities, 0 for a row that is left out.
      allowed: [P] bool, the terms to choose from; all by default.
      unbias: whether the support that is found is fitted once more without ridge, as PySINDy does.
      iterations: at most; it stops when no support changes.

    Returns:
      Coefficients [P, M] float32 (float64 where the caller works in float64); a target that loses all terms has zeros.
    """
    out = jnp.result_type(features, targets)
    num_terms, num_targets = features.shape[1], targets.shape[1]
    with jax.enable_x64(True):
        rows = jnp.concatenate([features, targets], 1).astype(jnp.float64)
        if weights is not None:
            rows = rows * jnp.sqrt(weights.astype(jnp.float64))[:, None]
        rows = jnp.pad(rows, ((0, max(num_terms + num_targets - len(rows), 0)), (0, 0)))
        # The factor R of all rows stands for them: |features c - y| and |R c - z| differ by a constant.
        factor = _triangle(rows)[:num_terms]
        factor, projected = factor[:, :num_terms], factor[:, num_terms:].T  # [P, P], [M, P]
        ridge = jnp.asarray(ridge, jnp.float64)
        solved = jax.vmap(_ridge, in_axes=(None, None, 0, 0))

        def thresholded(carry: tuple) -> tuple:
            kept, _, _, count = carry
            found = jnp.where(kept, solved(factor, ridge, kept, projected), 0.0)
            still = kept & (jnp.abs(found) >= threshold)
            return still, jnp.where(still, found, 0.0), jnp.any(still != kept), count + 1

        kept = jnp.ones(num_terms, bool) if allowed is None else allowed
        kept = jnp.broadcast_to(kept, (num_targets, num_terms))
        start = kept, jnp.zeros(kept.shape, jnp.float64), jnp.ones((), bool), jnp.zeros((), jnp.int32)
        kept, found, _, _ = jax.lax.while_loop(lambda carry: carry[2] & (carry[3] < iterations), thresholded, start)
        if unbias:
            # The shortest solution, since nothing else tells collinear terms apart.
            found = jax.vmap(lambda kept, z: _shortest(jnp.where(kept, factor, 0.0), z))(kept, projected)
            found = jnp.where(kept, found, 0.0)
        return found.T.astype(out)


# LAPACK is called for one matrix at a time. For a batch jaxlib shares the work among the threads that run the devices
# and waits for them: eight virtual devices of one process, each waiting so, have no thread left and never end.


@sequential_vmap
def _triangle(rows: jax.Array) -> jax.Array:
    """R of the QR factors of rows [N, P], [P, P]."""
    return jnp.linalg.qr(rows, mode="r")


@sequential_vmap
def _ridge(factor: jax.Array, ridge: jax.Array, kept: jax.Array, target: jax.Array) -> jax.Array:
    """Ridge regression of a target [P] on the columns of factor [P, P] that are kept, [P] bool; others' are 0."""
    penalty = jnp.diag(jnp.where(kept, jnp.sqrt(ridge), 1.0))
    q, r = jnp.linalg.qr(jnp.concatenate([jnp.where(kept, factor, 0.0), penalty]))
    return jax.scipy.linalg.solve_triangular(r, q[: len(factor)].T @ target)


@sequential_vmap
def _shortest(matrix: jax.Array, target: jax.Array) -> jax.Array:
    """The shortest solution of least squares."""
    return jnp.linalg.lstsq(matrix, target)[0]


def bootstraps(key: Key, valid: jax.Array, num_terms: int, members: int, dropped: int) -> tuple[jax.Array, jax.Array]:
    """Rows and terms of each member.

    Args:
      valid: [N] bool, the rows that there are.
      dropped: terms that a member may not use, drawn anew for each.

    Returns:
      weights [K, N] float32, multiplicities of as many rows as are valid, drawn with replacement; allowed [K, P] bool.
    """
    row_key, term_key = jax.random.split(key)
    count = jnp.sum(valid)
    order = jnp.argsort(~valid, stable=True)
    place = jnp.floor(jax.random.uniform(row_key, (members, len(valid))) * count).astype(jnp.int32)
    drawn = order[jnp.minimum(place, count - 1)]
    ones = (jnp.arange(len(valid)) < count).astype(jnp.float32)  # as many draws as rows
    weights = jax.vmap(lambda rows: jnp.zeros(len(valid)).at[rows].add(ones))(drawn)
    ranks = jax.vmap(lambda key: jax.random.permutation(key, num_terms))(jax.random.split(term_key, members))
    return weights, ranks >= dropped


def ensemble_stlsq(
    key: Key,
    features: jax.Array,
    targets: jax.Array,
    valid: jax.Array,
    *,
    members: int,
    dropped: int,
    combine: str = "median",
    **settings: jax.Array | float | bool,
) -> Ensemble:
    """`stlsq` on bootstraps of the rows [N] that are valid and of the terms; `settings` are its own.

    Args:
      combine: "median" or "mean", of each coefficient over members. A median is zero where fewer than half of the
        members have the term: see `inclusion`.
    """
    weights, allowed = bootstraps(key, valid, features.shape[1], members, dropped)
    # A row that is not valid may hold anything, also no number.
    features, targets = (jnp.where(valid[:, None], x, 0.0) for x in (features, targets))
    found = jax.vmap(lambda w, a: stlsq(features, targets, weights=w, allowed=a, **settings))(weights, allowed)
    return Ensemble({"median": jnp.median, "mean": jnp.mean}[combine](found, 0), found)


def inclusion(members: jax.Array) -> jax.Array:
    """The share of members [K, P, M] whose coefficient is not zero, [P, M]."""
    return jnp.mean((members != 0.0).astype(jnp.float32), 0)


def spread(members: jax.Array, features: jax.Array) -> jax.Array:
    """The variance over members [K, P, M] of what they predict, [..., M], at features [..., P]: how far the data leave
    the model open there."""
    return jnp.var(jnp.einsum("...p,kpm->k...m", features, members), 0)


def equations(coefficients: jax.Array, terms: Sequence[Term], variables: Sequence[str], lefts: Sequence[str],
              digits: int = 3) -> list[str]:
    """One line a target: `left = 1.2 x v - 3 u`, the largest terms first.

    Args:
      coefficients: [P, M].
      variables: names of states and actions.
      lefts: names of the targets.
    """
    lines = []
    for left, column in zip(lefts, jnp.asarray(coefficients).T, strict=True):
        order = [int(i) for i in jnp.argsort(-jnp.abs(column)) if float(column[i]) != 0.0]
        text = ""
        for i in order:
            value, name = float(column[i]), " ".join(variables[v] for v in terms[i]) or "1"
            sign = "-" if value < 0 else "+"
            text += f" {sign} " if text else "-" * (value < 0)
            text += f"{abs(value):.{digits}g} {name}"
        lines.append(f"{left} = {text or '0'}")
    return lines
