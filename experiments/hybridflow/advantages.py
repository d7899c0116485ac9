"""What the controller computes between two calls of roles: advantages of the global batch, wherever it lies."""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from experiments.hybridflow.models import Experience, Prompts
from rl_jax.losses.advantages import (
    greedy_baseline_advantages,
    group_advantages,
    token_generalized_advantages,
    whitened_advantages,
)
from rl_jax.losses.kl import kl_penalty


class Numbers(NamedTuple):
    """Coefficients of the advantages.

    Attributes:
      kl: of the divergence from the reference, k1 in the reward; GRPO's acts in the actor's loss.
      discount, gae_lambda: of PPO's.
    """

    kl: float
    discount: float
    gae_lambda: float


@jax.jit
def generalized(rows: Experience, numbers: Numbers) -> Experience:
    """PPO's: generalised advantages of the answer's tokens, whitened over the batch, and the critic's targets."""
    going_on = jnp.pad(rows.mask[:, 1:], ((0, 0), (0, 1)))
    last = (rows.mask > 0) & (going_on == 0)
    rewards = rows.reward[:, None] * last + _penalty(rows, numbers)
    found = token_generalized_advantages(rewards, rows.values, rows.mask, numbers.discount, numbers.gae_lambda)
    return rows.replace(advantages=whitened_advantages(found, rows.mask), returns=found + rows.values * rows.mask)


@jax.jit
def in_groups(rows: Experience, prompts: Prompts) -> Experience:
    """GRPO's: the reward less the mean of the prompt's answers, over their deviation."""
    found = group_advantages(rows.reward.reshape(len(prompts.ids), -1))
    return rows.replace(advantages=found.reshape(-1, 1) * rows.mask)


@jax.jit
def against_greedy(rows: Experience, greedy: Experience, numbers: Numbers) -> Experience:
    """ReMax's: the reward, with its penalty, less that of the most likely answer to the same prompt."""
    total = rows.reward + jnp.sum(_penalty(rows, numbers), axis=1)
    found = greedy_baseline_advantages(total.reshape(len(greedy), -1), greedy.reward)
    return rows.replace(advantages=found.reshape(-1, 1) * rows.mask)


@jax.jit
def lagrangian(rows: Experience, costs: Experience, multiplier: jax.Array) -> Experience:
    """Safe-RLHF's: (A of the reward - multiplier A of the cost) / (1 + multiplier)."""
    found = (rows.advantages - multiplier * costs.advantages) / (1.0 + multiplier)
    return rows.replace(advantages=found)


def _penalty(rows: Experience, numbers: Numbers) -> jax.Array:
    """What the divergence takes from the reward of each token, [B, T]; nothing where there is no reference."""
    if rows.reference_log_probs is None:
        return jnp.zeros_like(rows.mask)
    penalty = kl_penalty(
        rows.log_probs, rows.reference_log_probs, coefficient=numbers.kl, estimator="k1", place="reward"
    )
    return penalty.rewards * rows.mask
