"""The temperature that holds a policy's entropy (soft actor-critic and its kin); unreduced.

Haarnoja et al. 2018, "Soft Actor-Critic Algorithms and Applications", arXiv 1812.05905.
"""

import chex
import jax


def temperature_loss(log_alpha: jax.Array, log_probs: jax.Array, target_entropy: float) -> jax.Array:
    """-log_alpha (log pi + target entropy), [B]: its descent raises alpha while the entropy is below its target.

    Args:
      log_alpha: scalar; the gradient goes through it alone.
      log_probs: [B], log pi(a|s) of the policy's actions.
      target_entropy: in nats.

    Source: arXiv 1812.05905, equation 18, with log alpha for alpha as in the authors' code.
    """
    chex.assert_rank([log_alpha, log_probs], [0, 1])
    chex.assert_type([log_alpha, log_probs], float)
    return -log_alpha * jax.lax.stop_gradient(log_probs + target_entropy)
