"""CQL of histories: conservative Q-learning with discrete actions on an encoder of what was seen and done so far.

Kumar et al. 2020, arXiv 2006.04779, on the latents of Hong, Dragan and Levine 2023, arXiv 2310.20663, with their
bisimulation loss where `eta` is above 0. It learns from `RewardedSequences` from an episode's beginning. The encoder
unrolls over each of them twice, for Q and for the target; an episode that a time-out ended bootstraps from the history
that the time-out led to.
"""

import jax
import jax.numpy as jnp
import optax
from ml_collections import ConfigDict

from rl_jax.agents.agent import Agent
from rl_jax.agents.representation import Representation, encoder_config, history_of, inputs, mean_of_steps, on_history
from rl_jax.core.program import Key, Metrics, PyTree, TrainState
from rl_jax.data.sequences import RewardedSequences, Sequences
from rl_jax.losses.conservative import conservative_gap
from rl_jax.losses.value_learning import squared_error, td_target, values_of_actions
from rl_jax.networks.distributions import Categorical
from rl_jax.networks.trained import Networks, Trained


def history_cql(config: ConfigDict, num_actions: int) -> Agent:
    """Makes CQL of histories; `config` has the fields of `default_config`."""
    critic = on_history(config, {"q": num_actions})
    representation = Representation.of(config)
    networks = Networks({
        "critic": Trained(critic.init, optax.adam(config.learning_rate), config.tau),
        "model": representation.trained(),
    })

    # Losses

    def critic_loss(
        params: PyTree, model_params: PyTree, target: jax.Array, batch: RewardedSequences, key: Key
    ) -> tuple[jax.Array, tuple[Metrics, jax.Array]]:
        latents, heads = critic.apply(params, *inputs(batch))
        q = heads["q"][:, :-1].reshape(-1, num_actions)
        taken = jnp.argmax(batch.actions, -1).reshape(-1)
        data_q = values_of_actions(q, taken)
        td = mean_of_steps(squared_error(data_q, target), batch.mask)
        # All actions are listed, each once: nothing is sampled.
        gap = mean_of_steps(conservative_gap(q.T, jnp.zeros_like(q.T), data_q), batch.mask)
        distance, info = representation.bisimulation(model_params, latents, batch, key)
        loss = td + config.conservatism * gap + config.eta * distance
        info |= {
            "critic/loss": td, "critic/gap": gap, "critic/mean": mean_of_steps(data_q, batch.mask),
        }
        return loss, (info, latents)

    # Update

    def init(key: Key, batch: RewardedSequences) -> TrainState:
        latents = jnp.zeros((1, 1, config.latent_dim))
        return networks.init(key, {"critic": inputs(batch), "model": (latents, batch.actions[:1, :1])})

    def update(state: TrainState, batch: RewardedSequences, key: Key) -> tuple[TrainState, Metrics]:
        _, heads = critic.apply(state.target_params["critic"], *inputs(batch))
        next_q = jnp.max(heads["q"][:, 1:], -1)
        target = td_target(*(x.reshape(-1) for x in (batch.rewards, batch.masks, next_q)), config.discount)
        gradient, (info, latents) = jax.grad(critic_loss, has_aux=True)(
            state.params["critic"], state.params["model"], target, batch, key
        )
        state, norms = networks.apply_gradient(state, "critic", gradient)
        state, model_info = networks.step(state, "model", representation.model_loss, latents, batch)
        return networks.follow(state), info | norms | model_info

    # Act

    def act(params: PyTree, history: Sequences, key: Key, temperature: jax.Array | float) -> jax.Array:
        _, heads = critic.apply(params["critic"], *history_of(history))
        return Categorical(heads["q"][:, -1]).sample(key, temperature)

    return Agent(init, update, act)


def default_config() -> ConfigDict:
    """Returns the settings of the stitching gridworld."""
    return ConfigDict(
        {
            "name": "history_cql",
            **encoder_config(),
            "tau": 0.005,  # target encoder and critic
            "conservatism": 1.0,  # alpha
        }
    )
