"""The KL divergence from a reference policy: three estimators, two places where it acts, and its coefficient.

KL(pi || pi_ref) is estimated from samples y of pi, by d = log pi(y) - log pi_ref(y) (Schulman 2020, "Approximating KL
divergence"):

    estimator   value                      its gradient in the loss, expected over samples of pi
    k1          d                          zero: the mean score is zero, whatever the reference
    k2          d^2 / 2                    that of KL(pi || pi_ref), token by token
    k3          exp(-d) - 1 + d            that of KL(pi_ref || pi), the other direction

k1 and k3 have the divergence as their mean, k2 has not. In the reward k1 gives the gradient of KL(pi || pi_ref) (Tang
and Munos 2025, arXiv 2506.09477), so the usual pairs are k1 in the reward and k2 in the loss; k3 in the loss is GRPO's.
"""

from typing import NamedTuple

import chex
import jax
import jax.numpy as jnp

ESTIMATORS = ("k1", "k2", "k3")
PLACES = ("reward", "loss")
LARGEST = 20.0  # of |d| in k3, as in verl: beyond it only the exponential overflows


def kl_estimate(log_probs: jax.Array, reference_log_probs: jax.Array, estimator: str) -> jax.Array:
    """The estimator at each token (or whole answer), any shape; its gradient flows through `log_probs` alone.

    Raises:
      ValueError: the estimator is unknown.
    """
    chex.assert_equal_shape([log_probs, reference_log_probs])
    d = log_probs - jax.lax.stop_gradient(reference_log_probs)
    if estimator == "k1":
        return d
    if estimator == "k2":
        return 0.5 * jnp.square(d)
    if estimator == "k3":
        d = jnp.clip(d, -LARGEST, LARGEST)
        return jnp.expm1(-d) + d
    raise ValueError(f"the estimator of the KL divergence is {estimator!r}: choose {', '.join(ESTIMATORS)}")


class Penalty(NamedTuple):
    """What a divergence adds; one of the two is zero.

    Attributes:
      rewards: [...], to be added to the rewards of tokens, without a gradient.
      losses: [...], to be added to the terms of the loss before they are reduced.
    """

    rewards: jax.Array
    losses: jax.Array


def kl_penalty(
    log_probs: jax.Array, reference_log_probs: jax.Array, *, coefficient: jax.Array | float, estimator: str, place: str
) -> Penalty:
    """The penalty on the divergence from the reference.

    Args:
      log_probs: [...], of sampled tokens under the policy that learns.
      reference_log_probs: [...].
      coefficient: beta.
      estimator: k1, k2 or k3.
      place: "reward", or "loss".

    Raises:
      ValueError: the estimator or the place is unknown.
    """
    found = coefficient * kl_estimate(log_probs, reference_log_probs, estimator)
    if place == "reward":
        return Penalty(-jax.lax.stop_gradient(found), jnp.zeros_like(found))
    if place == "loss":
        return Penalty(jnp.zeros_like(found), found)
    raise ValueError(f"the KL divergence acts in {place!r}: choose {' or '.join(PLACES)}")


def next_coefficient(
    coefficient: jax.Array | float, divergence: jax.Array, *, target: float | None, horizon: int, samples: int
) -> jax.Array:
    """The coefficient after an update: beta (1 + clip(KL / target - 1, -0.2, 0.2) samples / horizon).

    Args:
      divergence: scalar, of a whole answer, mean over the batch.
      target: the divergence that is held; None keeps the coefficient (a fixed controller).
      horizon: samples in which an error of 0.2 changes the coefficient by 20%.
      samples: answers of this update.

    Source: Ziegler et al. 2019, arXiv 1909.08593, section 2.2; the form with a horizon is their code's.
    """
    if target is None:
        return jnp.asarray(coefficient)
    error = jnp.clip(jax.lax.stop_gradient(divergence) / target - 1.0, -0.2, 0.2)
    return coefficient * (1.0 + error * samples / horizon)
