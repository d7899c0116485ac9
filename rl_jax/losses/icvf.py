"""ICVF: intention-conditioned value functions of video without actions. V(s, s+, z): when, on average, who acts for the
intent z will be in s+, in discounted steps of -1 each. Errors and advantages are unreduced.

Ghosh, Bhateja and Levine 2023, "Reinforcement Learning from Passive Data via Latent Intentions", arXiv 2304.04782,
section 4, as in the authors' code; pre-training in V-PTR (Bhateja et al. 2023, arXiv 2309.13041).

`reached` is 1 where the state s of the step IS the goal, by its number in the data, and 0 elsewhere, even where the two
look the same. The reward is then 0 and nothing follows, and else -1: values lie in [-1 / (1 - gamma), 0].
"""

import chex
import jax
import jax.numpy as jnp


def goal_target(reached: jax.Array, next_values: jax.Array, discount: float) -> jax.Array:
    """r + gamma m V(s', ...), of r = reached - 1 and m = 1 - reached; reached [B], next_values [B] or [N, B]."""
    chex.assert_rank(reached, 1)
    chex.assert_equal_shape_suffix([reached, next_values], 1)
    chex.assert_type([reached, next_values], float)
    return reached - 1.0 + discount * (1.0 - reached) * next_values


def intent_advantage(
    reached_intent: jax.Array, next_values: jax.Array, values: jax.Array, discount: float
) -> jax.Array:
    """A = r_z + gamma m_z min_i V_i(s', z, z) - mean_i V_i(s, z, z), [B]: is s -> s' what who wants z would do?

    Args:
      reached_intent: [B].
      next_values, values: [N, B], V(s', z, z) and V(s, z, z) by the target networks: the goal IS the intent here.
    """
    chex.assert_equal_shape([next_values, values])
    return goal_target(reached_intent, next_values.min(0), discount) - values.mean(0)


def icvf_loss(
    values: jax.Array, next_values: jax.Array, reached: jax.Array, advantages: jax.Array, discount: float,
    expectile: float,
) -> jax.Array:
    """|expectile - 1(A < 0)| (r + gamma m V'_i(s', s+, z) - V_i(s, s+, z))^2, [N, B].

    The weight is of the step's advantage for its intent and not of the error's own sign: the error is about another
    goal s+, and steps that nobody with that intent would take say little about it.

    Args:
      values: [N, B], V_i(s, s+, z) of the networks that learn.
      next_values: [N, B], V'_i(s', s+, z), each network's own target copy.
      reached: [B], whether s is s+.
      advantages: [B], see `intent_advantage`.
    """
    chex.assert_equal_shape([values, next_values])
    chex.assert_equal_shape([reached, advantages])
    target = jax.lax.stop_gradient(goal_target(reached, next_values, discount))
    weights = jax.lax.stop_gradient(jnp.where(advantages >= 0, expectile, 1.0 - expectile))
    return weights * jnp.square(target - values)


def time_contrastive_loss(anchor: jax.Array, near: jax.Array, far: jax.Array) -> jax.Array:
    """-log of the share of exp(-|a - near|) among near, far and the near frame of another clip, [B].

    The time contrast of R3M (Nair et al. 2022, arXiv 2203.12601, equation 1); the other clip is the next row's.

    Args:
      anchor, near, far: [B, K], features of a clip's frames at times i < j < k.
    """
    chex.assert_equal_shape([anchor, near, far])

    def closeness(other: jax.Array) -> jax.Array:
        return -jnp.sqrt(jnp.sum(jnp.square(anchor - other), -1) + 1e-6)

    logits = jnp.stack([closeness(near), closeness(far), closeness(jnp.roll(near, 1, 0))])
    return jax.nn.logsumexp(logits, 0) - logits[0]
