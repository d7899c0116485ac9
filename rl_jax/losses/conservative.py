"""The regularisers of conservative critics: CQL's and its calibrated form. Both are unreduced."""

import chex
import jax
import jax.numpy as jnp


def conservative_gap(sampled_q: jax.Array, log_densities: jax.Array, data_q: jax.Array) -> jax.Array:
    """log sum_i exp(Q(s, a_i)) / mu(a_i|s) - Q(s, a), [B] or [N, B].

    The sum estimates M times the integral of exp Q over the actions; log M does not depend on Q and stays in, as in the
    authors' code.

    Args:
      sampled_q: [M, B] or [N, M, B], Q at M sampled actions of each observation.
      log_densities: [M, B], log mu(a_i|s), of the distribution that each action was drawn from.
      data_q: [B] or [N, B], Q at the data's actions.

    Source: CQL (Kumar et al. 2020, arXiv 2006.04779), equation 4; the importance sampling is that of its appendix F.
    """
    chex.assert_rank(log_densities, 2)
    chex.assert_equal_shape_suffix([sampled_q, log_densities], 2)
    chex.assert_shape(data_q, (*sampled_q.shape[:-2], sampled_q.shape[-1]))
    chex.assert_type([sampled_q, log_densities, data_q], float)
    return jax.nn.logsumexp(sampled_q - log_densities, axis=-2) - data_q


def calibrated(policy_q: jax.Array, mc_returns: jax.Array) -> jax.Array:
    """max(Q(s, a), return), [..., B]: Q at the policy's actions, no lower than what the data achieved from s on.

    No gradient reaches a Q below the return, so the regulariser cannot push it down any further.

    Args:
      policy_q: [..., B].
      mc_returns: [B], Monte-Carlo returns of the behaviour policy.

    Source: Cal-QL (Nakamoto et al. 2023, arXiv 2303.05479), equation 5.1.
    """
    chex.assert_rank(mc_returns, 1)
    chex.assert_equal_shape_suffix([policy_q, mc_returns], 1)
    chex.assert_type([policy_q, mc_returns], float)
    return jnp.maximum(policy_q, mc_returns)
