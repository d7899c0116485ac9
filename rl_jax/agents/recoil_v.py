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

from rl_jax.agents.agent import Agent, gradient_step
from rl_jax.core.program import Key, Metrics, PyTree, TrainState
from rl_jax.data.transitions import Demonstrations, Transitions
from rl_jax.losses.divergence import PEARSON_CHI2
from rl_jax.losses.dual import mixture_dual_loss
from rl_jax.losses.policy_learning import advantage_weighted_loss, gaussian_log_prob
from rl_jax.networks.policies import GaussianPolicy
from rl_jax.networks.values import Value


def recoil_v(config: ConfigDict, action_dim: int) -> Agent:
    """ReCOIL-V; `config` as `default_config`."""
    actor = GaussianPolicy(config.hidden_dims, action_dim)
    value = Value(config.hidden_dims)
    tx = optax.adam(config.learning_rate)
    # Annealed as in ReCOIL.
    actor_tx = optax.adam(optax.cosine_decay_schedule(config.learning_rate, config.decay_steps))

    # Losses

    def residuals(params: PyTree, part: Transitions) -> jax.Array:
        v, next_v = value.apply(params, jnp.stack([part.observations, part.next_observations]))
        return config.discount * part.masks * next_v - v

    def value_loss(params: PyTree, batch: Demonstrations) -> tuple[jax.Array, Metrics]:
        initial = value.apply(params, batch.expert.observations)
        loss = mixture_dual_loss(
            initial, residuals(params, batch.expert), residuals(params, batch.offline),
            PEARSON_CHI2.positive_conjugate, config.discount, config.mixture,
        )
        return loss, {"value/loss": loss, "value/mean": jnp.mean(initial)}

    def actor_loss(params: PyTree, weights: Demonstrations, batch: Demonstrations) -> tuple[jax.Array, Metrics]:
        def cloning(part: Transitions, weights: jax.Array) -> jax.Array:
            log_probs = gaussian_log_prob(part.actions, *actor.apply(params, part.observations))
            return jnp.mean(advantage_weighted_loss(log_probs, weights))

        expert, offline = cloning(batch.expert, weights.expert), cloning(batch.offline, weights.offline)
        loss = config.mixture * expert + (1.0 - config.mixture) * offline
        return loss, {"actor/loss": loss, "actor/weight": jnp.mean(weights.offline)}

    # Update

    def init(key: Key, batch: Demonstrations) -> TrainState:
        actor_key, value_key = jax.random.split(key)
        params = {
            "actor": actor.init(actor_key, batch.offline.observations),
            "value": value.init(value_key, batch.offline.observations),
        }
        opt_state = {
            name: (actor_tx if name == "actor" else tx).init(network) for name, network in params.items()
        }
        return TrainState.create(params, opt_state)

    def update(state: TrainState, batch: Demonstrations, key: Key) -> tuple[TrainState, Metrics]:
        del key
        params, opt_state = dict(state.params), dict(state.opt_state)
        params["value"], opt_state["value"], value_info = gradient_step(
            lambda p: value_loss(p, batch), params["value"], tx, opt_state["value"]
        )
        ratio = Demonstrations(
            *(PEARSON_CHI2.weight(residuals(params["value"], part)) for part in (batch.expert, batch.offline))
        )
        # A pair of the offline data that is not worth more than its own share gets none.
        weights = ratio.replace(offline=jnp.maximum(ratio.offline - 1.0, 0.0))
        params["actor"], opt_state["actor"], actor_info = gradient_step(
            lambda p: actor_loss(p, weights, batch), params["actor"], actor_tx, opt_state["actor"]
        )
        return state.replace(params=params, opt_state=opt_state), value_info | actor_info

    # Act

    def act(params: PyTree, observations: jax.Array, key: Key, temperature: jax.Array | float) -> jax.Array:
        return actor.act(params["actor"], observations, key, temperature)

    return Agent(init, update, act)


def default_config() -> ConfigDict:
    """ReCOIL's settings."""
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
