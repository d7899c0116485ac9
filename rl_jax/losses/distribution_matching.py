"""Policies that are fitted to a target distribution known up to a constant, p(x) = P(x) / Z, over whole sequences x.

Reinforcement learning with a KL penalty is one case: maximising E_pi[r] - beta KL(pi || pi0) is minimising KL(pi || p)
for P(x) = pi0(x) exp(r(x) / beta) (Korbak, Perez and Buckley 2022, arXiv 2205.11275). The others are
distributional policy gradients: Khalifa, Elsahar and Dymetman 2021 (GDC, arXiv 2012.11635), Korbak et al. 2022 (arXiv
2206.00761) and Go et al. 2023 (f-DPG, arXiv 2302.08215). All are of the form E_x[A(x) grad log pi(x)] and differ in A.
"""

import chex
import jax
import jax.numpy as jnp

from rl_jax.losses.divergence import Divergence

MAX_LOG_RATIO = 40.0  # of log pi / p: where p is 0 a pseudo-reward stays finite, and so does exp in float32


def pseudo_rewards(divergence: Divergence, log_pi: jax.Array, log_p: jax.Array) -> jax.Array:
    """-f'(pi / p), [B]: a policy gradient with these as rewards descends D_f(pi || p) = E_p[f(pi / p)].

    Up to constants: of KL(pi || p), log(p / pi), the reward of KL-regularised reinforcement learning over beta; of
    KL(p || pi), p / pi; of total variation, +-1/2; of Jensen-Shannon, log(1 + p / pi).

    Args:
      log_pi: [B], of sequences that pi has sampled.
      log_p: [B], normalised; -inf where p is 0.

    Source: f-DPG, whose theorem is that this gradient is the divergence's.
    """
    chex.assert_equal_shape([log_pi, log_p])
    ratio = jnp.exp(jnp.clip(log_pi - log_p, -MAX_LOG_RATIO, MAX_LOG_RATIO))
    return jax.lax.stop_gradient(-divergence.derivative(ratio))


def off_policy_weights(log_p: jax.Array, log_pi: jax.Array, log_q: jax.Array, baseline: bool = True) -> jax.Array:
    """What weighs grad log pi(x) at sequences of a proposal q, [B]: p / q, or p / q - pi / q with the baseline.

    Either descends KL(p || pi); the baseline has mean 0 under q and lowers the variance.

    Source: GDC; with the baseline Korbak et al. 2022 (arXiv 2206.00761).
    """
    chex.assert_equal_shape([log_p, log_pi, log_q])
    weights = jnp.exp(jnp.clip(log_p - log_q, max=MAX_LOG_RATIO))
    if baseline:
        weights -= jnp.exp(jnp.clip(log_pi - log_q, max=MAX_LOG_RATIO))
    return jax.lax.stop_gradient(weights)


def log_partition(log_potential: jax.Array, log_q: jax.Array) -> jax.Array:
    """log of the mean of P / q over sequences of q, [B] each: an estimate of log Z, unbiased before the logarithm."""
    return jax.nn.logsumexp(log_potential - log_q) - jnp.log(log_q.shape[0])


def kl_by_importance(log_p: jax.Array, log_pi: jax.Array, log_q: jax.Array) -> jax.Array:
    """KL(p || pi) from sequences of q: the mean of (p / q)(log p - log pi), a scalar; sequences with p = 0 add nothing.

    Source: GDC, which replaces its proposal by it.
    """
    weights = jnp.exp(log_p - log_q)
    return jnp.mean(jnp.where(weights > 0, weights * (jnp.maximum(log_p, -1e30) - log_pi), 0.0))


def tilt(features: jax.Array, moments: jax.Array, tolerance: float = 0.01, max_steps: int = 1000) -> jax.Array:
    """The lambda [F] of p(x) ~ pi0(x) exp(lambda . phi(x)) whose moments E_p[phi] are the given ones.

    Args:
      features: [N, F], phi of sequences of pi0.
      moments: [F], within the range of the features.
      tolerance: of the norm of the moments' error.
      max_steps: after which the last lambda is returned, whatever its error.

    Source: GDC's code: self-normalised importance sampling, step size 0.5.
    """
    chex.assert_rank([features, moments], [2, 1])

    def error(coefficients: jax.Array) -> jax.Array:
        return moments - jax.nn.softmax(features @ coefficients) @ features

    def step(carry: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, jax.Array]:
        coefficients, count = carry
        return coefficients + 0.5 * error(coefficients), count + 1

    start = jnp.zeros_like(moments), jnp.zeros((), jnp.int32)
    return jax.lax.while_loop(
        lambda carry: (jnp.linalg.norm(error(carry[0])) >= tolerance) & (carry[1] < max_steps), step, start
    )[0]
