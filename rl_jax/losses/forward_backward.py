"""Forward-backward representations: successor measures of all policies pi_z as F(s, a, z)' B(s'), and what z is best.

    M^{pi_z}(s, a, ds') = F(s, a, z)' B(s') rho(ds'),   pi_z(s) = argmax_a F(s, a, z)' z

M counts the states that follow (s, a), the next one first. Source: Touati and Ollivier 2021, "Learning One
Representation to Optimize All Rewards", arXiv 2103.07945, with the regularisers of the authors' code (Touati, Rapin and
Ollivier 2023, arXiv 2209.14935). Imitation in closed form: Sikchi et al. 2024 (RLZero), arXiv 2412.05718; Pirotta et
al. 2024, "Fast Imitation via Behavior Foundation Models".

Losses take F [K, N, D] of K networks, row i of (s_i, a_i, z_i), and B [N, D] of what followed each, s'_i. They return
(loss, info).
"""

import chex
import jax
import jax.numpy as jnp

from rl_jax.core.program import Key

Info = dict[str, jax.Array]  # scalars by the names of metrics


def pessimistic(values: jax.Array, pessimism: float) -> jax.Array:
    """Of K estimates [K, ...] the mean less `pessimism` times the mean distance of two: [...].

    Of two estimates 0 is the mean and 0.5 the smaller.
    """
    count = len(values)
    gaps = jnp.abs(values[:, None] - values[None]).sum((0, 1)) / max(count * (count - 1), 1)
    return jnp.mean(values, 0) - pessimism * gaps


def successor_target(
    next_forward: jax.Array, backward: jax.Array, discounts: jax.Array, pessimism: float = 0.0
) -> jax.Array:
    """gamma M(s'_i, pi_z(s'_i), s'_j) by the target networks, [N, N], of which no gradient is taken.

    Args:
      next_forward: [K, N, D], F(s'_i, pi_z(s'_i), z_i).
      backward: [N, D], B(s'_j).
      discounts: [N], gamma times the mask, 0 where s'_i is a terminal: nothing follows it.
    """
    chex.assert_rank([next_forward, backward, discounts], [3, 2, 1])
    chex.assert_equal_shape_prefix([next_forward[0], backward, discounts], 1)
    measures = pessimistic(next_forward @ backward.T, pessimism)
    return jax.lax.stop_gradient(discounts[:, None] * measures)


def successor_loss(forward: jax.Array, backward: jax.Array, target: jax.Array) -> tuple[jax.Array, Info]:
    """1/2 mean_{i != j} (M_ij - target_ij)^2 - mean_i M_ii, summed over the K networks; M = F B'.

    s'_i alone is known to follow (s_i, a_i), so the diagonal is the linear term's, and only there; any other s'_j is a
    sample of rho, so the quadratic term is of the N (N - 1) other pairs. The linear term has no factor of 1/2: it is
    half of the 2 that the square of a Bellman error has.

    Args:
      target: [N, N], see `successor_target`.

    Source: arXiv 2103.07945, equation 12 and its sampled form, algorithm 1.
    """
    chex.assert_rank([forward, backward, target], [3, 2, 2])
    measures = forward @ backward.T
    count = backward.shape[0]
    others = 1.0 - jnp.eye(count)
    quadratic = 0.5 * jnp.sum(jnp.square((measures - target) * others)) / (count * (count - 1))
    linear = -jnp.sum(jnp.mean(jnp.diagonal(measures, axis1=1, axis2=2), -1))
    return quadratic + linear, {"fb/quadratic": quadratic, "fb/diagonal": linear}


def orthonormality_loss(backward: jax.Array) -> tuple[jax.Array, Info]:
    """mean_{i != j} (B_i' B_j)^2 - 2 mean_i B_i' B_i, least where E[B B'] is the identity.

    It is the sampled square of the Frobenius distance of E[B B'] from I, but for a constant.
    """
    chex.assert_rank(backward, 2)
    count = backward.shape[0]
    products = backward @ backward.T
    between = jnp.sum(jnp.square(products * (1.0 - jnp.eye(count)))) / (count * (count - 1))
    loss = between - 2.0 * jnp.mean(jnp.diagonal(products))
    return loss, {"fb/orthonormality": loss}


def value_target(
    next_forward: jax.Array, backward: jax.Array, latents: jax.Array, discounts: jax.Array, pessimism: float = 0.0
) -> jax.Array:
    """B(s')' Cov_B^-1 z + gamma F(s', pi_z(s'), z)' z, [N], without a gradient: the Bellman target of F' z, whose
    reward is the projection of z on B. Arguments as `successor_target`; latents [N, D]."""
    covariance = backward.T @ backward / backward.shape[0]
    rewards = jnp.sum(backward * jnp.linalg.solve(covariance, latents.T).T, -1)
    following = pessimistic(jnp.sum(next_forward * latents, -1), pessimism)
    return jax.lax.stop_gradient(rewards + discounts * following)


def value_loss(forward: jax.Array, latents: jax.Array, target: jax.Array) -> tuple[jax.Array, Info]:
    """1/2 mean_i (F_i' z_i - target_i)^2, summed over the networks: it helps where z alone matters, to the policy."""
    chex.assert_equal_shape([forward[0], latents])
    loss = 0.5 * jnp.sum(jnp.mean(jnp.square(jnp.sum(forward * latents, -1) - target), -1))
    return loss, {"fb/value": loss}


# Latents


def on_sphere(latents: jax.Array) -> jax.Array:
    """Vectors [..., D] at length sqrt(D), which is the scale of B and z in all that is learned."""
    norm = jnp.linalg.norm(latents, axis=-1, keepdims=True)
    return latents * (latents.shape[-1] ** 0.5 / jnp.maximum(norm, 1e-12))


def mixed_latents(key: Key, backward: jax.Array, goal_share: float) -> jax.Array:
    """Latents [N, D] to train with: each with probability `goal_share` a row of B [N, D], shuffled and on the sphere,
    which is the latent of a goal, and else uniform on the sphere."""
    which_key, order_key, draw_key = jax.random.split(key, 3)
    goals = jax.lax.stop_gradient(jax.random.permutation(order_key, backward))
    uniform = jax.random.normal(draw_key, backward.shape)
    chosen = jax.random.uniform(which_key, (backward.shape[0], 1)) < goal_share
    return on_sphere(jnp.where(chosen, goals, uniform))


def reward_latent(rewards: jax.Array, backward: jax.Array) -> jax.Array:
    """z_r = E_rho[r B], [D]: rewards [N] of states whose B is [N, D], drawn from the data."""
    chex.assert_rank([rewards, backward], [1, 2])
    return rewards @ backward / backward.shape[0]


def imitation_latent(backward: jax.Array, weights: jax.Array | None = None) -> jax.Array:
    """z_imit = E_expert[B], [D]: B [L, D] of an expert's states.

    It is `reward_latent` of the reward rho^E / rho, whose optimum visits the expert's states: E_rho[rho^E / rho B] is
    E_rhoE[B]. No gradient is taken and no action is needed.

    Args:
      weights: [L], such as gamma^k; equal where left out.
    """
    chex.assert_rank(backward, 2)
    return jnp.average(backward, axis=0, weights=weights)
