"""The multi-domain decision transformer: numbers of an action are bins, predicted one after another.

Schmied et al. 2023, "Learning to Modulate pre-trained Models in RL", arXiv 2306.14884, and the authors' code
(ml-jku/L2M). All domains share one vector of states and one of actions; what a task does not have is padding.
"""

import functools

import flax.linen as nn
import jax
import jax.numpy as jnp

from rl_jax.networks.transformer import EPSILON, INITIALIZER, Transformer, causal_mask

UNUSED = 2.0  # of an action's number that the task does not have; all others lie in [-1, 1]


def to_bins(actions: jax.Array, num_bins: int) -> jax.Array:
    """The bin [...] int32 of each number of actions [...]: [-1, 1] in equal bins, and `num_bins` itself for UNUSED."""
    bins = jnp.floor((actions + 1.0) / 2.0 * num_bins).astype(jnp.int32)
    return jnp.where(actions >= UNUSED, num_bins, jnp.clip(bins, 0, num_bins - 1))


def from_bins(bins: jax.Array, num_bins: int) -> jax.Array:
    """The centre of each bin, [...]; the authors' code takes the left edge, which is off by half a bin on average."""
    return (bins + 0.5) / num_bins * 2.0 - 1.0


def masked_mean(x: jax.Array, mask: jax.Array) -> jax.Array:
    """The mean [B, D] of x [B, K, D] over the steps that `mask` [B, K] has."""
    return jnp.sum(x * mask[..., None], 1) / jnp.maximum(jnp.sum(mask, 1, keepdims=True), 1.0)


class MultiDomainTransformer(nn.Module):
    """Logits over the bins of each number of each action, from everything before it.

    A step is the tokens (state, return-to-go, action number 1 ... A, reward); number j is read at the token before it,
    so the first one at the return-to-go. To all of them an embedding of the step within the episode is added, and to
    the action's that of its place, which the authors' code has as an option. A call that is not `deterministic` needs
    the key stream "dropout".

    Attributes:
      action_dim: A, the most numbers that an action of any domain has.
      num_bins: of each.
      max_timesteps: time steps that have an embedding of their own; later ones share the last.
    """

    action_dim: int
    num_bins: int
    embedding_dim: int
    num_layers: int
    num_heads: int
    max_timesteps: int
    dropout: float = 0.0

    def setup(self) -> None:
        dense = functools.partial(nn.Dense, self.embedding_dim, kernel_init=INITIALIZER)
        self.observation, self.return_to_go, self.reward = dense(), dense(), dense()
        embed = functools.partial(nn.Embed, features=self.embedding_dim, embedding_init=INITIALIZER)
        self.action, self.place = embed(self.num_bins + 1), embed(self.action_dim)
        self.timestep = embed(self.max_timesteps)
        self.norm = nn.LayerNorm(EPSILON)
        self.transformer = Transformer(self.num_layers, self.num_heads, self.dropout)
        self.head = nn.Dense(self.num_bins, kernel_init=INITIALIZER)

    def query(self, observations: jax.Array, mask: jax.Array) -> jax.Array:
        """What modulators are selected by, [B, D]: the mean of the states' embeddings, before any layer."""
        return masked_mean(self.observation(observations), mask)

    def __call__(
        self,
        observations: jax.Array,
        actions: jax.Array,
        returns_to_go: jax.Array,
        timesteps: jax.Array,
        mask: jax.Array,
        prompt: tuple[jax.Array, jax.Array] | None = None,
        deterministic: bool = True,
    ) -> jax.Array:
        """Gives logits [B, K, A, num_bins].

        Args:
          observations, actions, returns_to_go, timesteps, mask: as in `rl_jax.data.sequences.Sequences`. A reward is
            what the return-to-go falls by; that of the last step, which nothing follows, is 0.
          prompt: learned tokens [B, P, D] before the first one, and whether they are seen, [B, P].
        """
        batch, length = timesteps.shape
        rewards = jnp.diff(returns_to_go, axis=1, append=returns_to_go[:, -1:]) * -mask
        bins = to_bins(actions, self.num_bins)
        steps = [
            self.observation(observations)[:, :, None],
            self.return_to_go(returns_to_go[..., None])[:, :, None],
            self.action(bins) + self.place(jnp.arange(self.action_dim)),
            self.reward(rewards[..., None])[:, :, None],
        ]
        time = self.timestep(jnp.minimum(timesteps, self.max_timesteps - 1))
        tokens = jnp.concatenate(steps, 2) + time[:, :, None]
        size = tokens.shape[2]
        tokens = self.norm(tokens.reshape(batch, length * size, -1))
        present = jnp.repeat(mask, size, axis=1)
        if prompt is not None:
            tokens = jnp.concatenate([prompt[0], tokens], 1)
            present = jnp.concatenate([prompt[1], present], 1)
        x = self.transformer(tokens, causal_mask(present), deterministic)[:, -length * size:]
        return self.head(x.reshape(batch, length, size, -1)[:, :, 1:1 + self.action_dim])
