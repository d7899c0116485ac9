"""The policy's loss of IQL and its kin: cloning of the data's actions, each with a weight of its own."""

import flax.linen as nn
import jax
import jax.numpy as jnp

from rl_jax.core.program import Metrics, PyTree
from rl_jax.data.transitions import Transitions
from rl_jax.losses.policy_learning import advantage_weighted_loss
from rl_jax.networks.trained import Loss


def weighted_cloning(actor: nn.Module) -> Loss:
    """The loss of a policy whose distribution has a `log_prob`: (params, weights [B], batch) -> (loss, metrics)."""

    def actor_loss(params: PyTree, weights: jax.Array, batch: Transitions) -> tuple[jax.Array, Metrics]:
        log_probs = actor.apply(params, batch.observations).log_prob(batch.actions)
        loss = jnp.mean(advantage_weighted_loss(log_probs, weights))
        return loss, {"actor/loss": loss, "actor/weight": jnp.mean(weights)}

    return actor_loss
