"""ILQL: implicit Q-learning over histories, with discrete actions such as letters.

Snell et al. 2022, "Offline RL for Natural Language Generation with Implicit Language Q Learning", arXiv 2206.11871: IQL
(Kostrikov et al. 2021, arXiv 2110.06169) with two Q heads, V and a conservative term on one encoder, and a policy that
is the data's, shifted: log pi_beta + beta (Q - V). With `extraction` "weighted" and no conservative term it is IQL of
histories, whose policy clones by exp(beta A). `eta` above 0 adds the bisimulation loss of Hong, Dragan and Levine 2023,
arXiv 2310.20663. It learns from `RewardedSequences` from an episode's beginning.
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
from rl_jax.losses.policy_learning import advantage_weighted_loss, advantage_weights
from rl_jax.losses.value_learning import expectile_loss, squared_error, td_target, values_of_actions
from rl_jax.networks.distributions import Categorical
from rl_jax.networks.trained import Networks, Trained

EXTRACTIONS = ("shifted", "weighted")


def ilql(config: ConfigDict, num_actions: int) -> Agent:
    """Makes ILQL; `config` has the fields of `default_config`.

    Raises:
      ValueError: `extraction` is none of EXTRACTIONS.
    """
    if config.extraction not in EXTRACTIONS:
        raise ValueError(f"config.agent.extraction is {config.extraction!r}: choose {' or '.join(EXTRACTIONS)}")
    shifted = config.extraction == "shifted"
    critic = on_history(config, {"q1": num_actions, "q2": num_actions, "v": 1})
    actor = on_history(config, {"logits": num_actions})
    representation = Representation.of(config)
    networks = Networks({
        "critic": Trained(critic.init, optax.adam(config.learning_rate), config.tau),
        "actor": Trained(actor.init, optax.adam(config.learning_rate)),
        "model": representation.trained(),
    })

    def least_q(heads: dict[str, jax.Array]) -> jax.Array:
        """[B, T, A]."""
        return jnp.minimum(heads["q1"], heads["q2"])

    # Losses

    def critic_loss(
        params: PyTree, model_params: PyTree, target_q: jax.Array, batch: RewardedSequences, key: Key
    ) -> tuple[jax.Array, tuple[Metrics, jax.Array, jax.Array]]:
        """`target_q` [N] at the data's actions."""
        latents, heads = critic.apply(params, *inputs(batch))
        v, next_v = heads["v"][:, :-1, 0].reshape(-1), heads["v"][:, 1:, 0].reshape(-1)
        value_loss = mean_of_steps(expectile_loss(target_q - v, config.expectile), batch.mask)
        target = td_target(
            batch.rewards.reshape(-1), batch.masks.reshape(-1), jax.lax.stop_gradient(next_v), config.discount
        )
        taken, td, gap = jnp.argmax(batch.actions, -1).reshape(-1), 0.0, 0.0
        for name in ("q1", "q2"):
            q = heads[name][:, :-1].reshape(-1, num_actions)
            data_q = values_of_actions(q, taken)
            td += mean_of_steps(squared_error(data_q, target), batch.mask)
            gap += mean_of_steps(conservative_gap(q.T, jnp.zeros_like(q.T), data_q), batch.mask)
        distance, info = representation.bisimulation(model_params, latents, batch, key)
        info |= {"critic/loss": td, "critic/gap": gap, "value/loss": value_loss}
        info["value/mean"] = mean_of_steps(v, batch.mask)
        loss = td + value_loss + config.conservatism * gap + config.eta * distance
        return loss, (info, latents, jax.lax.stop_gradient(v))

    def actor_loss(params: PyTree, weights: jax.Array, batch: RewardedSequences) -> tuple[jax.Array, Metrics]:
        _, heads = actor.apply(params, *inputs(batch))
        log_probs = Categorical(heads["logits"][:, :-1]).log_prob(jnp.argmax(batch.actions, -1)).reshape(-1)
        loss = mean_of_steps(advantage_weighted_loss(log_probs, weights), batch.mask)
        return loss, {"actor/loss": loss, "actor/weight": mean_of_steps(weights, batch.mask)}

    # Update

    def init(key: Key, batch: RewardedSequences) -> TrainState:
        read, latents = inputs(batch), jnp.zeros((1, 1, config.latent_dim))
        return networks.init(key, {"critic": read, "actor": read, "model": (latents, batch.actions[:1, :1])})

    def update(state: TrainState, batch: RewardedSequences, key: Key) -> tuple[TrainState, Metrics]:
        _, heads = critic.apply(state.target_params["critic"], *inputs(batch))
        target_q = values_of_actions(least_q(heads)[:, :-1], jnp.argmax(batch.actions, -1)).reshape(-1)
        gradient, (info, latents, v) = jax.grad(critic_loss, has_aux=True)(
            state.params["critic"], state.params["model"], target_q, batch, key
        )
        state, norms = networks.apply_gradient(state, "critic", gradient)
        weights = advantage_weights(target_q - v, 0.0 if shifted else config.beta, config.max_weight)
        state, actor_info = networks.step(state, "actor", actor_loss, weights, batch)
        state, model_info = networks.step(state, "model", representation.model_loss, latents, batch)
        return networks.follow(state), info | norms | actor_info | model_info

    # Act

    def act(params: PyTree, history: Sequences, key: Key, temperature: jax.Array | float) -> jax.Array:
        read = history_of(history)
        logits = jax.nn.log_softmax(actor.apply(params["actor"], *read)[1]["logits"][:, -1])
        if shifted:
            _, heads = critic.apply(params["critic"], *read)
            logits += config.beta * (least_q(heads) - heads["v"])[:, -1]
        return Categorical(logits).sample(key, temperature)

    return Agent(init, update, act)


def default_config() -> ConfigDict:
    """Returns the authors' settings of Wordle, where the card's reading of them says any."""
    return ConfigDict(
        {
            "name": "ilql",
            **encoder_config(),
            "tau": 0.005,  # target encoder and critic
            "expectile": 0.7,
            "conservatism": 0.01,
            "extraction": "shifted",  # or "weighted": cloning by exp(beta A)
            "beta": 4.0,
            "max_weight": 100.0,
        }
    )


def iql_config() -> ConfigDict:
    """Returns IQL of histories."""
    config = default_config()
    config.update({"conservatism": 0.0, "extraction": "weighted", "beta": 3.0})
    return config
