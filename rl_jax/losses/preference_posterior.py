"""What comparisons say of a linear reward: the maximum of the likelihood, Gaussian draws about it, and when to ask.

Wu and Sun 2023, arXiv 2310.14554. A trajectory tau has features phi(tau) [d] and the return theta . phi(tau). Of a pair
with x = phi(tau_0) - phi(tau_1), tau_0 is preferred with the probability sigmoid(theta . x). Only differences are seen:
what adds the same to both returns of every pair is not, and the ridge keeps it at 0.
"""

from typing import NamedTuple

import chex
import jax
import jax.numpy as jnp
from jax.scipy.linalg import cho_solve, solve_triangular

from rl_jax.core.program import Key

BLOCK = 256  # answers that are summed at once, so that a fit costs as much as there are


class Comparisons(NamedTuple):
    """Answered pairs.

    Attributes:
      features: x, [C, d]; rows from `count` on are 0.
      answers: [C], 1 where the first trajectory was preferred, else 0.
      count: int32, how many there are.
    """

    features: jax.Array
    answers: jax.Array
    count: jax.Array


def no_comparisons(capacity: int, dimension: int) -> Comparisons:
    """Room for `capacity` answers at least."""
    rows = -(-capacity // BLOCK) * BLOCK
    return Comparisons(jnp.zeros((rows, dimension)), jnp.zeros(rows), jnp.zeros((), jnp.int32))


def with_answer(comparisons: Comparisons, features: jax.Array, answer: jax.Array, asked: jax.Array) -> Comparisons:
    """The comparisons with one more, x [d] and its answer, where it was asked for."""
    chex.assert_shape(features, comparisons.features.shape[1:])
    place, asked = comparisons.count, asked.astype(jnp.float32)
    return Comparisons(
        comparisons.features.at[place].add(asked * features), comparisons.answers.at[place].add(asked * answer),
        place + asked.astype(jnp.int32),
    )


def derivatives(theta: jax.Array, comparisons: Comparisons, ridge: jax.Array) -> tuple[jax.Array, jax.Array]:
    """(gradient [d], Hessian [d, d]) of -sum_i log P(answer_i | theta) + ridge |theta|^2 / 2."""

    def add(block: jax.Array, sums: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, jax.Array]:
        x = jax.lax.dynamic_slice_in_dim(comparisons.features, block * BLOCK, BLOCK)
        answers = jax.lax.dynamic_slice_in_dim(comparisons.answers, block * BLOCK, BLOCK)
        chance = jax.nn.sigmoid(x @ theta)  # of rows without an answer x is 0, and so is all that they add
        return sums[0] + x.T @ (chance - answers), sums[1] + (x.T * (chance * (1.0 - chance))) @ x

    blocks = (comparisons.count + BLOCK - 1) // BLOCK
    start = ridge * theta, ridge * jnp.eye(len(theta))
    return jax.lax.fori_loop(0, blocks, add, start)


def newton(
    theta: jax.Array, hessian: jax.Array, comparisons: Comparisons, ridge: jax.Array, steps: jax.Array
) -> tuple[jax.Array, jax.Array]:
    """`steps` damped Newton steps from theta [d] towards the most likely one; (theta, the Hessian of the last step).

    Along a step s the curvature changes by exp(r) at most, r = max_i |x_i . s|, so that log(1 + r) / r of the step
    never raises the loss (Bach 2010, self-concordance of the logistic loss). Whole steps diverge where early answers
    can be separated.
    """

    def one(_: int, at: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, jax.Array]:
        theta, _ = at
        gradient, hessian = derivatives(theta, comparisons, ridge)
        step = cho_solve((jnp.linalg.cholesky(hessian), True), gradient)
        reach = jnp.maximum(jnp.max(jnp.abs(comparisons.features @ step)), 1e-6)
        return theta - jnp.log1p(reach) / reach * step, hessian

    return jax.lax.fori_loop(0, steps, one, (theta, hessian))


def gaussian_draw(key: Key, mean: jax.Array, precision: jax.Array, scale: jax.Array) -> jax.Array:
    """A draw [..., d] of N(mean, scale^2 precision^-1), of means [..., d] and precisions [..., d, d].

    With precision = L L^T it is mean + scale L^-T z: L^-1 z would have the covariance (L^T L)^-1.
    """
    lower = jnp.linalg.cholesky(precision)
    z = jax.random.normal(key, mean.shape)
    return mean + scale * solve_triangular(lower, z[..., None], trans=1, lower=True)[..., 0]


def norm(x: jax.Array, precision: jax.Array) -> jax.Array:
    """sqrt(x^T precision^-1 x) of x [d]: how little is known of the direction."""
    return jnp.linalg.norm(solve_triangular(jnp.linalg.cholesky(precision), x, lower=True))


def disagreement(x: jax.Array, precision: jax.Array, scale: jax.Array) -> jax.Array:
    """E |x . (theta - theta')| of two independent draws of N(., scale^2 precision^-1): the rule asks where it is large.

    x . (theta - theta') is N(0, 2 scale^2 |x|^2), and E |N(0, v)| = sqrt(2 v / pi).
    """
    return 2.0 * scale / jnp.sqrt(jnp.pi) * norm(x, precision)
