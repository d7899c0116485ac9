"""The dual of regularised RL, written once: offline RL and imitation methods are instances of it.

Regularised RL maximises E_d[r] - alpha D_f(d || d_O) over the visitations d that a policy can have. Its Lagrangian dual
is unconstrained. Source: Dual RL (Sikchi, Zheng, Zhang and Niekum 2023, arXiv 2302.08560): dual-Q, where the constraint
names the policy, and dual-V, where it is on states alone. Which method is which instance stands in
tests/losses/test_dual_instances.py.

A dual is a sum of expectations over distributions of their own, so every loss takes means over the samples of each and
returns (loss, info), the info being the terms that add up to the loss.
"""

import chex
import jax
import jax.numpy as jnp

from rl_jax.losses.divergence import Function

Info = dict[str, jax.Array]  # scalars by the names of metrics


def dual_loss(
    initial_values: jax.Array, residuals: jax.Array, conjugate: Function, discount: float, alpha: float
) -> tuple[jax.Array, Info]:
    """(1 - discount) E_{d_0}[V] + alpha E_{d_O}[f*(residual / alpha)], to be minimised.

    dual-Q:  initial_values = Q(s_0, pi(s_0)), residuals = r + discount * mask * Q(s', pi(s')) - Q(s, a) and
             `Divergence.conjugate`; the policy maximises the same number.
    dual-V:  initial_values = V(s_0), residuals = r + discount * mask * V(s') - V(s) and
             `Divergence.positive_conjugate`; the optimal ratio is `Divergence.weight(residuals / alpha)`, with which
             the data's actions are cloned.

    Args:
      initial_values: [I].
      residuals: [B], over the data d_O. In imitation the rewards are 0 and d_O is the expert's data.
      conjugate: of the divergence.
      discount: gamma in [0, 1].
      alpha: weight of the divergence, above 0.

    Returns:
      (scalar loss, info): `dual/initial` and `dual/divergence`, the two terms.

    Source: Dual RL, the dual-Q and dual-V objectives of its section on regularised policy learning.
    """
    chex.assert_rank([initial_values, residuals], 1)
    chex.assert_type([initial_values, residuals], float)
    initial = (1.0 - discount) * jnp.mean(initial_values)
    divergence = alpha * jnp.mean(conjugate(residuals / alpha))
    return initial + divergence, {"dual/initial": initial, "dual/divergence": divergence}


def normalized_kl_dual_loss(
    initial_values: jax.Array, residuals: jax.Array, discount: float, alpha: float
) -> tuple[jax.Array, Info]:
    """(1 - discount) E_{d_0}[V] + alpha log E_{d_O}[exp(residual / alpha)], to be minimised: dual-V with reverse KL,
    where the ratios also have mean 1.

    Visitations whose mass is 1 cannot end: what leaves by a terminal would be missing. So this form turns away from
    terminals, where `dual_loss` is free to prefer them as soon as rewards are negative. The optimal ratio is
    softmax(residuals / alpha) times the size of the batch; V is determined up to a constant unless a terminal fixes it.

    Args:
      initial_values: [I].
      residuals: [B], r + discount * mask * V(s') - V(s), over the data d_O.
      discount: gamma in [0, 1].
      alpha: weight of the divergence, above 0.

    Returns:
      (scalar loss, info): `dual/initial` and `dual/divergence`, the two terms.

    Source: SMODICE (Ma et al. 2022, arXiv 2202.02433), its KL form; OptiDICE (Lee et al. 2021, arXiv 2106.10783).
    """
    chex.assert_rank([initial_values, residuals], 1)
    chex.assert_type([initial_values, residuals], float)
    initial = (1.0 - discount) * jnp.mean(initial_values)
    divergence = alpha * (jax.nn.logsumexp(residuals / alpha) - jnp.log(residuals.shape[0]))
    return initial + divergence, {"dual/initial": initial, "dual/divergence": divergence}


def mixture_dual_loss(
    initial_values: jax.Array, expert_residuals: jax.Array, offline_residuals: jax.Array, conjugate: Function,
    discount: float, beta: float,
) -> tuple[jax.Array, Info]:
    """ReCOIL: imitation by matching mixtures, beta d + (1 - beta) d_S with beta d_E + (1 - beta) d_S.

    beta (1 - discount) E_{d_0}[V] + E_mixture[f*(residual)] - (1 - beta) E_{d_S}[residual], to be minimised. Only the
    mixture has to be covered by the offline data S, not the expert E.

    Args:
      initial_values: [I], Q(s_0, pi(s_0)), or V(s_0) in the V form.
      expert_residuals: [E], discount * mask * Q(s', pi(s')) - Q(s, a), or the same with V, without reward.
      offline_residuals: [S].
      conjugate: f* in the Q form, f_p* in the V form.
      discount: gamma in [0, 1].
      beta: share of the expert in the mixture, in (0, 1].

    Returns:
      (scalar loss, info): `dual/initial`, `dual/divergence` and `dual/offline`, the three terms.

    Source: Dual RL, the ReCOIL objective.
    """
    chex.assert_rank([initial_values, expert_residuals, offline_residuals], 1)
    chex.assert_type([initial_values, expert_residuals, offline_residuals], float)
    initial = beta * (1.0 - discount) * jnp.mean(initial_values)
    mixture = beta * jnp.mean(conjugate(expert_residuals)) + (1.0 - beta) * jnp.mean(conjugate(offline_residuals))
    offline = -(1.0 - beta) * jnp.mean(offline_residuals)
    return initial + mixture + offline, {"dual/initial": initial, "dual/divergence": mixture, "dual/offline": offline}
