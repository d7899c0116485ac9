"""What IQL and its kin have in common: how their networks train, and cloning of the data's actions by weights."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import optax
from ml_collections import ConfigDict

from rl_jax.core.program import Metrics, PyTree
from rl_jax.data.transitions import Transitions
from rl_jax.losses.policy_learning import advantage_weighted_loss
from rl_jax.networks.trained import Loss, Networks, Trained


def implicit_networks(config: ConfigDict, actor: nn.Module, critic: nn.Module, value: nn.Module) -> Networks:
    """The networks of IQL, which XQL, f-DVL and ReCOIL took over: critics with a target copy, V, and the policy."""
    adam = optax.adam(config.learning_rate)
    # IQL's authors anneal the policy's learning rate alone.
    annealed = optax.adam(optax.cosine_decay_schedule(config.learning_rate, config.decay_steps))
    return Networks({
        "actor": Trained(actor.init, annealed),
        "critic": Trained(critic.init, adam, config.tau),
        "value": Trained(value.init, adam),
    })


def weighted_cloning(actor: nn.Module) -> Loss:
    """The loss of a policy whose distribution has a `log_prob`: (params, weights [B], batch) -> (loss, metrics)."""

    def actor_loss(params: PyTree, weights: jax.Array, batch: Transitions) -> tuple[jax.Array, Metrics]:
        log_probs = actor.apply(params, batch.observations).log_prob(batch.actions)
        loss = jnp.mean(advantage_weighted_loss(log_probs, weights))
        return loss, {"actor/loss": loss, "actor/weight": jnp.mean(weights)}

    return actor_loss
