"""SMODICE: imitation by matching the expert's states. A discriminator's reward, dual-V, and weighted cloning.

Ma, Shen, Jayaraman and Bastani 2022, "Versatile Offline Imitation from Observations and Examples via State-Occupancy
Matching", arXiv 2202.02433. A batch is `Demonstrations`; rewards are not read, nor the expert's actions where the
discriminator sees states only. Equations are numbered as in the comments of the authors' code. That code

- trains the discriminator before all else; here it takes a step in every update, ahead of the others;
- has tanh in the discriminator, a squashed policy and a bound on its entropy; here they are IQL's networks;
- knows where episodes start; here the initial states are the offline batch's own observations (d_0 = d_O);
- marks what follows a terminal as an absorbing state, which no value is bootstrapped from: here masks say so;
- has KL for the MuJoCo locomotion tasks and chi2 elsewhere: `divergence` chooses;
- leaves KL's ratios without their normaliser, a batch's mean, though V and so they are free up to a factor;
- takes chi2's conjugate over all t, where the ratio t cannot be negative: f_p* is used here.

As there, V and the policy both move from the V before the update.
"""

import functools

import jax
import jax.numpy as jnp
import optax
from ml_collections import ConfigDict

from rl_jax.agents.agent import Agent, Distribution, acting, inputs
from rl_jax.agents.weighted_cloning import weighted_cloning
from rl_jax.core.config import unknown
from rl_jax.core.program import Key, Metrics, PyTree, TrainState
from rl_jax.data.transitions import Demonstrations, Transitions
from rl_jax.losses.discriminators import binary_cross_entropy, gradient_penalty
from rl_jax.losses.divergence import PEARSON_CHI2
from rl_jax.losses.dual import dual_loss, normalized_kl_dual_loss
from rl_jax.networks.policies import GaussianPolicy
from rl_jax.networks.trained import Networks, Trained
from rl_jax.networks.values import Value

DIVERGENCES = ("reverse_kl", "pearson_chi2")


def smodice(config: ConfigDict, action_dim: int) -> Agent:
    """Makes SMODICE; `config` has the fields of `default_config`.

    Raises:
      ValueError: `config.divergence` is not one of DIVERGENCES.
    """
    if config.divergence not in DIVERGENCES:
        raise ValueError(unknown("divergence in config.agent.divergence", config.divergence, DIVERGENCES))
    is_kl = config.divergence == "reverse_kl"
    actor = GaussianPolicy(config.hidden_dims, action_dim)
    discriminator = Value(config.hidden_dims)
    value = Value(config.hidden_dims)
    adam = optax.adam(config.learning_rate)
    networks = Networks({
        "actor": Trained(actor.init, adam),
        "discriminator": Trained(discriminator.init, adam),
        # The authors decay V's weights, as a part of the gradient that Adam sees.
        "value": Trained(value.init, optax.chain(optax.add_decayed_weights(config.weight_decay), adam)),
    })

    def shown(part: Transitions) -> jax.Array:
        """What the discriminator sees of a transition."""
        return part.observations if config.state_only else jnp.concatenate([part.observations, part.actions], -1)

    # Losses

    def discriminator_loss(params: PyTree, batch: Demonstrations, key: Key) -> tuple[jax.Array, Metrics]:
        expert, offline = shown(batch.expert), shown(batch.offline)
        expert_logits, offline_logits = discriminator.apply(params, jnp.stack([expert, offline]))
        mix = jax.random.uniform(key, expert_logits.shape)
        logits = functools.partial(discriminator.apply, params)
        penalty, penalty_info = gradient_penalty(logits, expert, offline, mix)
        loss, info = binary_cross_entropy(expert_logits, offline_logits)
        loss = loss + config.gradient_penalty * penalty
        return loss, info | penalty_info | {
            "discriminator/loss": loss,
            "discriminator/mean_expert": jnp.mean(expert_logits),
            "discriminator/mean_offline": jnp.mean(offline_logits),
        }

    def residuals(params: PyTree, rewards: jax.Array, batch: Transitions) -> jax.Array:
        v, next_v = value.apply(params, jnp.stack([batch.observations, batch.next_observations]))
        return rewards + config.discount * batch.masks * next_v - v

    def value_loss(params: PyTree, rewards: jax.Array, batch: Transitions) -> tuple[jax.Array, Metrics]:
        initial = value.apply(params, batch.observations)
        errors = residuals(params, rewards, batch)
        if is_kl:  # equation 20
            loss, info = normalized_kl_dual_loss(initial, errors, config.discount, config.alpha)
        else:
            loss, info = dual_loss(initial, errors, PEARSON_CHI2.positive_conjugate, config.discount, config.alpha)
        return loss, info | {"value/loss": loss, "value/mean": jnp.mean(initial)}

    def optimal_ratios(errors: jax.Array) -> jax.Array:
        if is_kl:
            return jax.nn.softmax(errors / config.alpha) * errors.shape[0]
        return PEARSON_CHI2.weight(errors / config.alpha)

    actor_loss = weighted_cloning(actor)  # equation 22

    # Update

    def init(key: Key, batch: Demonstrations) -> TrainState:
        return networks.init(key, inputs(batch.offline) | {"discriminator": (shown(batch.offline),)})

    def update(state: TrainState, batch: Demonstrations, key: Key) -> tuple[TrainState, Metrics]:
        offline = batch.offline
        state, discriminator_info = networks.step(state, "discriminator", discriminator_loss, batch, key)
        # log c / (1 - c), which nobody clips
        rewards = discriminator.apply(state.params["discriminator"], shown(offline))
        weights = optimal_ratios(residuals(state.params["value"], rewards, offline))  # equation 21
        state, value_info = networks.step(state, "value", value_loss, rewards, offline)
        state, actor_info = networks.step(state, "actor", actor_loss, weights, offline)
        return state, discriminator_info | value_info | actor_info

    # Act

    def policy(params: PyTree, observations: jax.Array) -> Distribution:
        return actor.apply(params["actor"], observations)

    return Agent(init, update, acting(policy), policy)


def default_config() -> ConfigDict:
    """Returns the authors' settings for the MuJoCo locomotion tasks."""
    return ConfigDict(
        {
            "name": "smodice",
            "hidden_dims": (256, 256),
            "learning_rate": 3e-4,  # of all three; the authors' second one, for the policy, is not used by their code
            "discount": 0.99,
            "divergence": "reverse_kl",  # or "pearson_chi2"
            "alpha": 1.0,  # weight of the divergence; the authors' chi2 is half of Pearson's, that is 0.5
            "weight_decay": 1e-4,  # of V
            "state_only": True,  # whether the discriminator sees observations alone, or actions too
            "gradient_penalty": 10.0,  # its weight in the discriminator's loss
        }
    )
