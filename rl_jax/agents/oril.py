"""ORIL: a reward that tells the expert from unlabelled data, and offline RL on all of them.

Zolna et al. 2020, "Offline Learning from Demonstrations and Unlabeled Experience", arXiv 2011.13885. A batch is
`Demonstrations`; their rewards are not read. The positive-unlabelled loss and the reward R = c in (0, 1) are the
paper's, here of observations and actions. The paper trains the reward before all else, where a step of it is a part of
every update here, and goes on with critic-regularised regression. TD3+BC in its place and the gradient penalty are
those of the baseline in the code of SMODICE's authors, which has a plain cross entropy of observations, the logit for
its reward and no demonstrations in TD3+BC's batch. Observations are expected normalised over the data set
(config.dataset).
"""

import functools

import jax
import jax.numpy as jnp
import optax
from ml_collections import ConfigDict

from rl_jax.agents import td3_bc
from rl_jax.agents.agent import Agent
from rl_jax.core.program import Key, Metrics, PyTree, TrainState
from rl_jax.data.transitions import Demonstrations, Transitions
from rl_jax.losses.discriminators import gradient_penalty, positive_unlabelled_loss
from rl_jax.networks.initializers import torch_default
from rl_jax.networks.trained import Networks, Trained
from rl_jax.networks.values import Value


def oril(config: ConfigDict, action_dim: int) -> Agent:
    """Makes ORIL; `config` has the fields of `default_config`."""
    learner = td3_bc.td3_bc(config, action_dim)
    discriminator = Value(config.hidden_dims, initializer=torch_default)
    networks = Networks({"discriminator": Trained(discriminator.init, optax.adam(config.learning_rate))})

    # Losses

    def discriminator_loss(params: PyTree, batch: Demonstrations, key: Key) -> tuple[jax.Array, Metrics]:
        expert, offline = pairs(batch.expert), pairs(batch.offline)
        expert_logits, offline_logits = discriminator.apply(params, jnp.stack([expert, offline]))
        mix = jax.random.uniform(key, expert_logits.shape)
        logits = functools.partial(discriminator.apply, params)
        penalty, penalty_info = gradient_penalty(logits, expert, offline, mix)
        loss, info = positive_unlabelled_loss(expert_logits, offline_logits, config.positive_share)
        loss = loss + config.gradient_penalty * penalty
        return loss, info | penalty_info | {
            "discriminator/loss": loss,
            "discriminator/mean_expert": jnp.mean(jax.nn.sigmoid(expert_logits)),
            "discriminator/mean_offline": jnp.mean(jax.nn.sigmoid(offline_logits)),
        }

    # Update

    def init(key: Key, batch: Demonstrations) -> TrainState:
        learner_key, discriminator_key = jax.random.split(key)
        own = networks.init(discriminator_key, {"discriminator": (pairs(batch.offline),)})
        state = learner.init(learner_key, batch.offline)
        return state.replace(params=state.params | own.params, opt_state=state.opt_state | own.opt_state)

    def update(state: TrainState, batch: Demonstrations, key: Key) -> tuple[TrainState, Metrics]:
        discriminator_key, learner_key = jax.random.split(key)
        state, discriminator_info = networks.step(state, "discriminator", discriminator_loss, batch, discriminator_key)
        union = jax.tree.map(lambda *parts: jnp.concatenate(parts), batch.expert, batch.offline)
        rewards = jax.nn.sigmoid(discriminator.apply(state.params["discriminator"], pairs(union)))
        state, learner_info = learner.update(state, union.replace(rewards=rewards), learner_key)
        return state, discriminator_info | learner_info

    # Act

    return Agent(init, update, learner.act, learner.policy)


def pairs(part: Transitions) -> jax.Array:
    """What the discriminator sees of transitions: observations and actions, [B, O + A]."""
    return jnp.concatenate([part.observations, part.actions], -1)


def default_config() -> ConfigDict:
    """Returns TD3+BC's settings and the discriminator's."""
    config = td3_bc.default_config()
    config.update(
        {
            "name": "oril",
            "positive_share": 0.5,  # eta: the share of the offline data that is taken to be as good as the expert
            "gradient_penalty": 10.0,  # its weight in the discriminator's loss
        }
    )
    return config
