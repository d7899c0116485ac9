"""Behavioural cloning of histories, and on the best episodes alone (`config.data.top_fraction`) filtered cloning.

The baseline of Hong, Dragan and Levine 2023, arXiv 2310.20663, on the same encoder as the other agents. It learns from
`RewardedSequences`, of whose rewards the model in its latents reads alone: so the bisimulation loss is known of it too.
"""

import jax
import jax.numpy as jnp
import optax
from ml_collections import ConfigDict

from rl_jax.agents.agent import Agent
from rl_jax.agents.representation import Representation, encoder_config, history_of, inputs, mean_of_steps, on_history
from rl_jax.core.program import Key, Metrics, PyTree, TrainState
from rl_jax.data.sequences import RewardedSequences, Sequences
from rl_jax.networks.distributions import Categorical
from rl_jax.networks.trained import Networks, Trained


def history_bc(config: ConfigDict, num_actions: int) -> Agent:
    """Makes cloning of histories; `config` has the fields of `default_config`."""
    actor = on_history(config, {"logits": num_actions})
    representation = Representation.of(config)
    networks = Networks({
        "actor": Trained(actor.init, optax.adam(config.learning_rate)), "model": representation.trained(),
    })

    # Losses

    def actor_loss(
        params: PyTree, model_params: PyTree, batch: RewardedSequences, key: Key
    ) -> tuple[jax.Array, tuple[Metrics, jax.Array]]:
        latents, heads = actor.apply(params, *inputs(batch))
        log_loss = mean_of_steps(optax.softmax_cross_entropy(heads["logits"][:, :-1], batch.actions), batch.mask)
        distance, info = representation.bisimulation(model_params, latents, batch, key)
        return log_loss + config.eta * distance, (info | {"actor/loss": log_loss}, latents)

    # Update

    def init(key: Key, batch: RewardedSequences) -> TrainState:
        latents = jnp.zeros((1, 1, config.latent_dim))
        return networks.init(key, {"actor": inputs(batch), "model": (latents, batch.actions[:1, :1])})

    def update(state: TrainState, batch: RewardedSequences, key: Key) -> tuple[TrainState, Metrics]:
        gradient, (info, latents) = jax.grad(actor_loss, has_aux=True)(
            state.params["actor"], state.params["model"], batch, key
        )
        state, norms = networks.apply_gradient(state, "actor", gradient)
        state, model_info = networks.step(state, "model", representation.model_loss, latents, batch)
        return state, info | norms | model_info

    # Act

    def act(params: PyTree, history: Sequences, key: Key, temperature: jax.Array | float) -> jax.Array:
        _, heads = actor.apply(params["actor"], *history_of(history))
        return Categorical(heads["logits"][:, -1]).sample(key, temperature)

    return Agent(init, update, act)


def default_config() -> ConfigDict:
    """Returns the settings of the stitching gridworld."""
    return ConfigDict({"name": "history_bc", **encoder_config()})
