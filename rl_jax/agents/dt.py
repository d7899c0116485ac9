"""DT: the decision transformer. A sequence model clones the data's actions given the return that followed them.

Chen et al. 2021, "Decision Transformer: Reinforcement Learning via Sequence Modeling", arXiv 2106.01345. Asked for a
high return it acts as the data did where their return was high. It learns from `Sequences`, and its `act` takes them
too: the last K steps of every episode, whose returns-to-go begin at `target_return` and fall by the rewards.

Network, loss and settings follow CORL's reimplementation, which differs from the authors' code in the network (GELU for
ReLU, embeddings and head drawn with a deviation of 0.02) and in the loss (the authors average over the steps that are
there, CORL over padding too, as errors of zero). The weights of the attention are drawn as in the authors' code, with
0.02; CORL leaves PyTorch's default there. Observations are expected normalised over the data set (config.dataset).
"""

import jax
import jax.numpy as jnp
import optax
from ml_collections import ConfigDict

from rl_jax.agents.agent import Agent
from rl_jax.core.program import Key, Metrics, PyTree, TrainState
from rl_jax.data.sequences import Sequences
from rl_jax.losses.policy_learning import behavioural_cloning_loss
from rl_jax.networks.decision_transformer import DecisionTransformer
from rl_jax.networks.trained import Networks, Trained


def dt(config: ConfigDict, action_dim: int) -> Agent:
    """Makes the decision transformer; `config` has the fields of `default_config`."""
    actor = DecisionTransformer(
        action_dim, config.embedding_dim, config.num_layers, config.num_heads, config.max_timesteps, config.dropout
    )

    def warm_up(count: jax.Array) -> jax.Array:
        """Linear from the first update on; full at the `warmup_steps`-th."""
        return config.learning_rate * jnp.minimum((count + 1) / config.warmup_steps, 1.0)

    adamw = optax.adamw(warm_up, weight_decay=config.weight_decay)
    tx = optax.chain(optax.clip_by_global_norm(config.clip_norm), adamw)
    networks = Networks({"actor": Trained(actor.init, tx)})

    def inputs(sequences: Sequences) -> tuple[jax.Array, ...]:
        returns_to_go = sequences.returns_to_go / config.return_scale
        return sequences.observations, sequences.actions, returns_to_go, sequences.timesteps, sequences.mask

    # Losses

    def actor_loss(params: PyTree, batch: Sequences, key: Key) -> tuple[jax.Array, Metrics]:
        predicted = actor.apply(params, *inputs(batch), deterministic=False, rngs={"dropout": key})
        loss = jnp.mean(batch.mask * behavioural_cloning_loss(predicted, batch.actions))  # section 3, "Training"
        return loss, {"actor/loss": loss}

    # Update

    def init(key: Key, batch: Sequences) -> TrainState:
        return networks.init(key, {"actor": inputs(batch)})

    def update(state: TrainState, batch: Sequences, key: Key) -> tuple[TrainState, Metrics]:
        return networks.step(state, "actor", actor_loss, batch, key)

    # Act

    def act(params: PyTree, context: Sequences, key: Key, temperature: jax.Array | float) -> jax.Array:
        del key, temperature
        return actor.apply(params["actor"], *inputs(context))[:, -1]

    return Agent(init, update, act)


def default_config() -> ConfigDict:
    """Returns the authors' settings for the MuJoCo locomotion tasks, which are the defaults of CORL's file."""
    return ConfigDict(
        {
            "name": "dt",
            "embedding_dim": 128,
            "num_layers": 3,
            "num_heads": 1,
            "max_timesteps": 1000,  # that have an embedding of their own: the tasks' time limit
            "dropout": 0.1,  # of embeddings, attention weights and residual branches
            "learning_rate": 1e-4,
            "warmup_steps": 10_000,
            "weight_decay": 1e-4,  # of all parameters
            "clip_norm": 0.25,  # of the gradient
            "return_scale": 1000.0,  # the network is shown returns-to-go divided by it
            "target_return": 3600.0,  # what the agent is asked for when it is evaluated; Hopper's
        }
    )
