"""What agents that learn from histories have in common: the encoder, a model in its latents, the bisimulation loss.

Hong, Dragan and Levine 2023, "Offline RL with Observation Histories: Analyzing and Improving Sample Complexity", arXiv
2310.20663. The model is fitted to latents that it does not change, and the loss moves latents towards distances that it
does not change. An agent whose `eta` is 0 learns the model all the same, so that the loss can be read of every agent.
"""

from typing import NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import optax
from ml_collections import ConfigDict

from rl_jax.core.program import Key, Metrics, PyTree
from rl_jax.data.sequences import RewardedSequences, Sequences, with_successors
from rl_jax.losses.aggregation import aggregate
from rl_jax.losses.bisimulation import (
    Outlook,
    bisimulation_loss,
    bisimulation_target,
    expected_outlook,
    gaussian_log_loss,
    pairs_of_steps,
)
from rl_jax.networks.histories import HistoryEncoder, LatentModel, OnHistory
from rl_jax.networks.mlp import MLP
from rl_jax.networks.trained import Trained

COMPARED = ("logged", "behaviour", "uniform")


def on_history(config: ConfigDict, heads: dict[str, int]) -> OnHistory:
    """The encoder that `config` names with heads on it, widths by name."""
    encoder = HistoryEncoder(
        config.encoder, config.latent_dim, config.hidden_dim, config.num_layers, config.num_heads, config.max_timesteps,
        config.picture,
    )
    return OnHistory(encoder, config.hidden_dims, heads)


def history_of(sequences: Sequences) -> tuple[jax.Array, ...]:
    """What an encoder reads of sequences."""
    return sequences.observations, sequences.actions, sequences.timesteps, sequences.mask


def inputs(batch: RewardedSequences) -> tuple[jax.Array, ...]:
    """What an encoder reads of a batch: its steps and the one after the last."""
    return history_of(with_successors(batch))


def mean_of_steps(terms: jax.Array, mask: jax.Array) -> jax.Array:
    """The mean of terms over the steps that are there; terms [B * K] or [B, K], mask [B, K]."""
    return aggregate(terms.reshape(mask.shape), mask, "token_mean")


class BehaviouralModel(nn.Module):
    """A model of a step, and the data's policy: latents [..., Z], actions [..., A] -> (Outlook, logits [..., A])."""

    hidden_dims: tuple[int, ...]

    @nn.compact
    def __call__(self, latents: jax.Array, actions: jax.Array) -> tuple[Outlook, jax.Array]:
        outlook = Outlook(*LatentModel(self.hidden_dims)(latents, actions))
        return outlook, MLP((*self.hidden_dims, actions.shape[-1]))(latents)


class Representation(NamedTuple):
    """The model in the latents, and the losses that it takes part in.

    Attributes:
      model: of a step.
      learning_rate: of the model.
      discount: of distances.
      compared: under which actions two histories are compared: "logged", the data's own; "behaviour", all actions
        weighted by the data's policy, which has less variance where that is stochastic; or, which is ours, "uniform",
        all actions alike: histories after which different people acted may then still be the same.
    """

    model: BehaviouralModel
    learning_rate: float
    discount: float
    compared: str

    @classmethod
    def of(cls, config: ConfigDict) -> "Representation":
        """The one that an agent's configuration says.

        Raises:
          ValueError: `compared` is none of COMPARED.
        """
        if config.compared not in COMPARED:
            raise ValueError(f"config.agent.compared is {config.compared!r}: choose {', '.join(COMPARED)}")
        return cls(BehaviouralModel((config.hidden_dim,)), config.learning_rate, config.discount, config.compared)

    def trained(self) -> Trained:
        """How the model trains; its init reads latents and actions."""
        return Trained(self.model.init, optax.adam(self.learning_rate))

    def model_loss(self, params: PyTree, latents: jax.Array, batch: RewardedSequences) -> tuple[jax.Array, Metrics]:
        """Squared error of rewards, log loss of the next latents and of the data's actions; means over steps.

        What follows a terminal is the latent 0, whatever the encoder makes of the last observation: nothing trains that
        latent, and all that is over is alike. A time-out is no terminal.

        Args:
          latents: [B, K + 1, Z], of the steps and their successors; constants.
        """
        latents = jax.lax.stop_gradient(latents)
        successors = latents[:, 1:] * batch.masks[:, :, None]
        outlook, logits = self.model.apply(params, latents[:, :-1], batch.actions)
        reward = mean_of_steps(jnp.square(outlook.reward - batch.rewards), batch.mask)
        successor = mean_of_steps(gaussian_log_loss(outlook, successors), batch.mask)
        policy = mean_of_steps(optax.softmax_cross_entropy(logits, batch.actions), batch.mask)
        info = {"model/reward_loss": reward, "model/latent_loss": successor, "model/policy_loss": policy}
        return reward + successor + policy, info

    def bisimulation(
        self, params: PyTree, latents: jax.Array, batch: RewardedSequences, key: Key
    ) -> tuple[jax.Array, Metrics]:
        """L_bis of the batch's steps, paired by a permutation; the gradient goes to the latents alone.

        Args:
          params: the model's.
          latents: [B, K + 1, Z].
        """
        mask = batch.mask.reshape(-1)
        flat = latents[:, :-1].reshape(len(mask), -1)
        actions = batch.actions.reshape(len(mask), -1)
        outlook = jax.lax.stop_gradient(self.outlook(params, flat, actions))
        one, other, valid = pairs_of_steps(key, mask)
        first, second = (jax.tree.map(lambda x, rows=rows: x[rows], outlook) for rows in (one, other))
        target = bisimulation_target(first, second, self.discount)
        loss = aggregate(bisimulation_loss(flat[one], flat[other], target), valid, "token_mean")
        centre = jnp.sum(flat * mask[:, None], 0) / jnp.maximum(jnp.sum(mask), 1.0)
        variance = mean_of_steps(jnp.sum(jnp.square(flat - centre), -1), batch.mask)
        return loss, {
            "bisimulation/loss": loss, "bisimulation/distance": aggregate(target, valid, "token_mean"),
            "bisimulation/latent_variance": variance,
        }

    def outlook(self, params: PyTree, latents: jax.Array, actions: jax.Array) -> Outlook:
        """What each step is expected to bring under the actions that are compared; latents [N, Z], actions [N, A]."""
        if self.compared == "logged":
            return self.model.apply(params, latents, actions)[0]
        every = jnp.broadcast_to(jnp.eye(actions.shape[-1])[:, None], (actions.shape[-1], *actions.shape))
        outlooks, logits = jax.vmap(lambda action: self.model.apply(params, latents, action))(every)
        chances = jax.nn.softmax(logits[0]) if self.compared == "behaviour" else jnp.full(actions.shape, 1 / len(every))
        return expected_outlook(outlooks, chances.T)


def encoder_config() -> dict[str, object]:
    """The fields of an agent's configuration that `on_history` and `Representation.of` read."""
    return {
        "encoder": "gru",  # "transformer", or "none": the observation of now alone, for one that is the state
        "latent_dim": 32,
        "hidden_dim": 64,  # of the memory, and of the model's layer
        "hidden_dims": (64,),  # of the heads
        "num_layers": 2,  # of the transformer, and so the next two
        "num_heads": 2,
        "max_timesteps": 128,
        "picture": (),  # height and width of grey pictures, where those are observed
        "eta": 0.0,  # weight of the bisimulation loss
        "compared": "logged",  # "behaviour" or "uniform"
        "learning_rate": 3e-4,
        "discount": 0.99,  # of values and of distances
    }
