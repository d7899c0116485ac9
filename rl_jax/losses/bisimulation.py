"""Bisimulation of latent states: how far two should be apart, and what it costs that they are not.

Under a policy, here the one that collected the data, two states are as far apart as their rewards and the distributions
of their successors are (Castro 2020, arXiv 1911.09291). The distances are learnt as in Zhang et al. 2020, "Learning
Invariant Representations for Reinforcement Learning without Reconstruction" (DBC), arXiv 2006.10742, and used for
histories by Hong, Dragan and Levine 2023, arXiv 2310.20663. All functions are unreduced; M pairs of D-dimensional
latents, in the unit of rewards.
"""

import math
from typing import NamedTuple

import chex
import jax
import jax.numpy as jnp

SMOOTHING = 1e-8  # under the root of a norm, whose gradient at 0 would be NaN


class Outlook(NamedTuple):
    """What a step is expected to bring.

    Attributes:
      reward: [...].
      mean, std: [..., D], of the next latent, a diagonal Gaussian.
    """

    reward: jax.Array
    mean: jax.Array
    std: jax.Array


def smooth_norm(x: jax.Array) -> jax.Array:
    """sqrt(|x|^2 + 1e-8), [...], of x [..., D]: a norm whose gradient at 0 is 0."""
    chex.assert_type(x, float)
    return jnp.sqrt(jnp.sum(jnp.square(x), -1) + SMOOTHING)


def gaussian_distance(one: Outlook, other: Outlook) -> jax.Array:
    """The 2-Wasserstein distance of the next latents, [...]: sqrt(|m - m'|^2 + |s - s'|^2), of diagonal Gaussians.

    Source: Zhang et al. 2020, arXiv 2006.10742, section 4.
    """
    chex.assert_equal_shape([one.mean, one.std, other.mean, other.std])
    return smooth_norm(jnp.concatenate([one.mean - other.mean, one.std - other.std], -1))


def gaussian_log_loss(outlook: Outlook, successors: jax.Array) -> jax.Array:
    """-log N(z'; mean, std^2), [...], of successors z' [..., D]."""
    chex.assert_equal_shape([outlook.mean, outlook.std, successors])
    chex.assert_type(successors, float)
    standardised = (successors - outlook.mean) / outlook.std
    return jnp.sum(0.5 * jnp.square(standardised) + jnp.log(outlook.std) + 0.5 * math.log(2.0 * math.pi), -1)


def expected_outlook(outlooks: Outlook, probabilities: jax.Array) -> Outlook:
    """The outlook of a mixture of actions, whose next latent is the Gaussian of the mixture's mean and deviation.

    Args:
      outlooks: [A, ...], of every action.
      probabilities: [A, ...], of the actions.
    """
    chex.assert_equal_shape([outlooks.reward, probabilities])
    weights = probabilities[..., None]
    mean = jnp.sum(weights * outlooks.mean, 0)
    second = jnp.sum(weights * (jnp.square(outlooks.std) + jnp.square(outlooks.mean)), 0)
    std = jnp.sqrt(jnp.maximum(second - jnp.square(mean), SMOOTHING))
    return Outlook(jnp.sum(probabilities * outlooks.reward, 0), mean, std)


def pairs_of_steps(key: jax.Array, mask: jax.Array) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Pairs every step with another one: a permutation of the steps that are there.

    Args:
      mask: [N], 1 for a step and 0 for padding, which is in no pair.

    Returns:
      (one [N] int32, other [N] int32, valid [N] float32): the numbers of the steps of each pair. `valid` is 0 for a
      step that the permutation leaves in its place, and for what fills the rows.
    """
    chex.assert_rank(mask, 1)
    chex.assert_type(mask, float)
    there = mask > 0
    one = jnp.argsort(~there, stable=True)  # steps first, in order
    other = jnp.argsort(jnp.where(there, jax.random.uniform(key, mask.shape), 2.0))  # the same ones, shuffled
    valid = (jnp.arange(len(mask)) < jnp.sum(there)) & (one != other)
    return one, other, valid.astype(jnp.float32)


def bisimulation_target(one: Outlook, other: Outlook, discount: float) -> jax.Array:
    """How far apart two latents should be, [M], a constant for the gradient: |r - r'| + discount W2(P, P').

    Source: arXiv 2006.10742, equation 4, with the outlooks under the data's actions.
    """
    chex.assert_equal_shape([one.reward, other.reward])
    chex.assert_type([one.reward, other.reward], float)
    distance = jnp.abs(one.reward - other.reward) + discount * gaussian_distance(one, other)
    return jax.lax.stop_gradient(distance)


def bisimulation_loss(one: jax.Array, other: jax.Array, target: jax.Array) -> jax.Array:
    """(|z - z'| - target)^2, [M], of latents [M, D] and the distances that they should have, [M].

    A constant encoder makes it 0, as its outlooks agree too: it is no loss to train an encoder with alone.
    """
    chex.assert_rank([one, other, target], [2, 2, 1])
    chex.assert_equal_shape([one, other])
    chex.assert_equal_shape_prefix([one, target], 1)
    chex.assert_type([one, other, target], float)
    return jnp.square(smooth_norm(one - other) - target)
