"""ReCOIL-V: ReCOIL with constraints on states alone, so that V is the only value and no policy stands in the loop.

Sikchi, Zheng, Zhang and Niekum 2023, "Dual RL: Unification and New Methods for Reinforcement and Imitation Learning",
arXiv 2302.08560. A batch is `Demonstrations`; rewards are not read. The authors' code lacks this form. Here V minimises
its objective with full gradients and chi2, initial states are the expert's (d_0 = d_E), and the policy clones beta d*:
what stays of the mixture w (beta d_E + (1 - beta) d_S) when the offline share (1 - beta) d_S is taken out of it.
"""

import jax
import jax.numpy as jnp
import optax
from ml_collections import ConfigDict

from rl_jax.agents.agent import Agent, Distribution, acting, inputs
from rl_jax.agents.weighted_cloning import weighted_cloning
from rl_jax.core.program import Key, Metrics, PyTree, TrainState
from rl_jax.data.transitions import Demonstrations, Transitions
from rl_jax.losses.divergence import PEARSON_CHI2
from rl_jax.losses.dual import mixture_dual_loss
from rl_jax.networks.policies import GaussianPolicy
from rl_jax.networks.trained import Networks, Trained
from rl_jax.networks.values import Value


def recoil_v(config: ConfigDict, action_dim: int) -> Agent:
    """Makes ReCOIL-V; `config` has the fields of `default_config`."""
    actor = GaussianPolicy(config.hidden_dims, action_dim)
    value = Value(config.hidden_dims)
    adam = optax.adam(config.learning_rate)
    # Annealed as in ReCOIL.
    annealed = optax.adam(optax.cosine_decay_schedule(config.learning_rate, config.decay_steps))
    networks = Networks({"actor": Trained(actor.init, annealed), "value": Trained(value.init, adam)})
    cloning = weighted_cloning(actor)

    # Losses

    def residuals(params: PyTree, part: Transitions) -> jax.Array:
        v, next_v = value.apply(params, jnp.stack([part.observations, part.next_observations]))
        return config.discount * part.masks * next_v - v

    def value_loss(params: PyTree, batch: Demonstrations) -> tuple[jax.Array, Metrics]:
        initial = value.apply(params, batch.expert.observations)
        loss, info = mixture_dual_loss(
            initial, residuals(params, batch.expert), residuals(params, batch.offline),
            PEARSON_CHI2.positive_conjugate, config.discount, config.mixture,
        )
        return loss, info | {"value/loss": loss, "value/mean": jnp.mean(initial)}

    def actor_loss(params: PyTree, weights: Demonstrations, batch: Demonstrations) -> tuple[jax.Array, Metrics]:
        expert, _ = cloning(params, weights.expert, batch.expert)
        offline, info = cloning(params, weights.offline, batch.offline)
        loss = config.mixture * expert + (1.0 - config.mixture) * offline
        return loss, info | {"actor/loss": loss}

    # Update

    def init(key: Key, batch: Demonstrations) -> TrainState:
        return networks.init(key, inputs(batch.offline))

    def update(state: TrainState, batch: Demonstrations, key: Key) -> tuple[TrainState, Metrics]:
        del key
        state, value_info = networks.step(state, "value", value_loss, batch)
        ratio = Demonstrations(
            *(PEARSON_CHI2.weight(residuals(state.params["value"], part)) for part in (batch.expert, batch.offline))
        )
        # A pair of the offline data that is not worth more than its own share gets none.
        weights = ratio.replace(offline=jnp.maximum(ratio.offline - 1.0, 0.0))
        state, actor_info = networks.step(state, "actor", actor_loss, weights, batch)
        return state, value_info | actor_info

    # Act

    def policy(params: PyTree, observations: jax.Array) -> Distribution:
        return actor.apply(params["actor"], observations)

    return Agent(init, update, acting(policy), policy)


def default_config() -> ConfigDict:
    """Returns ReCOIL's settings."""
    return ConfigDict(
        {
            "name": "recoil_v",
            "hidden_dims": (256, 256),
            "learning_rate": 3e-4,
            "decay_steps": 1_000_000,  # of the policy's cosine schedule
            "discount": 0.99,
            "mixture": 0.5,  # beta: the expert's share
        }
    )
