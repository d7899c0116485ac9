"""What IQL and its kin have in common: how their networks train, where V is fitted, and cloning by weights."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import optax
from ml_collections import ConfigDict

from rl_jax.core.program import Key, Metrics, PyTree
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


def with_random_actions(batch: Transitions, key: Key, count: int) -> Transitions:
    """Observations and actions [(1 + count) B, ...]: the batch's, and `count` uniform actions at each observation.

    XQL's code and that of f-DVL fit V to Q there, so that V follows Q also beside the data.
    """
    uniform = jax.random.uniform(key, (count * batch.actions.shape[0], batch.actions.shape[1]), minval=-1.0, maxval=1.0)
    return batch.replace(
        observations=jnp.tile(batch.observations, (1 + count, 1)), actions=jnp.concatenate([batch.actions, uniform])
    )


def weighted_cloning(actor: nn.Module) -> Loss:
    """The loss of a policy whose distribution has a `log_prob`: (params, weights [B], batch) -> (loss, metrics).

    A key after these is for the policy's dropout.
    """

    def actor_loss(
        params: PyTree, weights: jax.Array, batch: Transitions, key: Key | None = None
    ) -> tuple[jax.Array, Metrics]:
        dropout = {} if key is None else {"deterministic": False, "rngs": {"dropout": key}}
        log_probs = actor.apply(params, batch.observations, **dropout).log_prob(batch.actions)
        loss = jnp.mean(advantage_weighted_loss(log_probs, weights))
        return loss, {"actor/loss": loss, "actor/weight": jnp.mean(weights)}

    return actor_loss
