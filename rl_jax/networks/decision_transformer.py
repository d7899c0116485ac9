"""The decision transformer: actions from a sequence of returns-to-go, observations and actions.

Chen et al. 2021, "Decision Transformer: Reinforcement Learning via Sequence Modeling", arXiv 2106.01345.
"""

import functools

import flax.linen as nn
import jax
import jax.numpy as jnp

from rl_jax.networks.dropout import Dropout
from rl_jax.networks.transformer import EPSILON, INITIALIZER, Transformer, causal_mask


class DecisionTransformer(nn.Module):
    """Actions in [-1, 1] of K steps, each from the steps before it and its own return-to-go and observation.

    observations [B, K, O], actions [B, K, A], returns_to_go [B, K], timesteps [B, K] int32, mask [B, K] (0: padding,
    which no step sees) -> [B, K, action_dim]. A step is three tokens, (return-to-go, observation, action), and its
    action is read at the observation's; an embedding of the step within the episode is added to all three (section 3).

    A call that is not `deterministic` needs the key stream "dropout".

    Attributes:
      embedding_dim, num_layers, num_heads: of the transformer.
      max_timesteps: time steps that have an embedding of their own; later ones share the last.
      dropout: rate on the embedded tokens and inside the transformer.
    """

    action_dim: int
    embedding_dim: int
    num_layers: int
    num_heads: int
    max_timesteps: int
    dropout: float = 0.0

    @nn.compact
    def __call__(
        self,
        observations: jax.Array,
        actions: jax.Array,
        returns_to_go: jax.Array,
        timesteps: jax.Array,
        mask: jax.Array,
        deterministic: bool = True,
    ) -> jax.Array:
        batch, length = timesteps.shape
        time = nn.Embed(self.max_timesteps, self.embedding_dim, embedding_init=INITIALIZER, name="timestep")(
            jnp.minimum(timesteps, self.max_timesteps - 1)
        )
        step = {"return_to_go": returns_to_go[:, :, None], "observation": observations, "action": actions}
        embed = functools.partial(nn.Dense, self.embedding_dim, kernel_init=INITIALIZER)
        tokens = [embed(name=name)(x) + time for name, x in step.items()]
        # Three tokens a step, in the order of time.
        tokens = jnp.stack(tokens, axis=2).reshape(batch, 3 * length, self.embedding_dim)
        tokens = Dropout(self.dropout)(nn.LayerNorm(EPSILON)(tokens), deterministic)
        seen = causal_mask(jnp.repeat(mask, 3, axis=1))
        x = Transformer(self.num_layers, self.num_heads, self.dropout)(tokens, seen, deterministic)
        return jnp.tanh(nn.Dense(self.action_dim, kernel_init=INITIALIZER, name="head")(x[:, 1::3]))
