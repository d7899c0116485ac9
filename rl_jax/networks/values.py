"""State-value and action-value functions."""

from collections.abc import Sequence

import flax.linen as nn
import jax
import jax.numpy as jnp

from rl_jax.core.program import PyTree
from rl_jax.networks.encoders import encode
from rl_jax.networks.initializers import Initializer, orthogonal, torch_default
from rl_jax.networks.mlp import MLP, ensemble


class Value(nn.Module):
    """V(s): observations [..., O] -> values [...]. Attributes: see MLP."""

    hidden_dims: Sequence[int]
    layer_norm: bool | str = False
    initializer: Initializer = orthogonal()
    output_initializer: Initializer | None = None

    @nn.compact
    def __call__(self, observations: jax.Array) -> jax.Array:
        mlp = MLP(
            (*self.hidden_dims, 1), layer_norm=self.layer_norm, initializer=self.initializer,
            output_initializer=self.output_initializer,
        )
        return jnp.squeeze(mlp(observations), -1)


class Critic(nn.Module):
    """An ensemble of Q(s, a): observations [..., O], actions [..., A] -> values [ensemble_size, ...].

    Attributes: `ensemble_size`, how many there are; for the others see MLP.
    """

    hidden_dims: Sequence[int]
    ensemble_size: int = 2
    layer_norm: bool | str = False
    initializer: Initializer = orthogonal()
    output_initializer: Initializer | None = None

    @nn.compact
    def __call__(self, observations: jax.Array, actions: jax.Array) -> jax.Array:
        q = ensemble(Value, self.ensemble_size)(
            self.hidden_dims, self.layer_norm, self.initializer, self.output_initializer, name="members"
        )
        return q(jnp.concatenate([observations, actions], -1))

    @nn.nowrap
    def apply_member(self, params: PyTree, observations: jax.Array, actions: jax.Array, member: int = 0) -> jax.Array:
        """One member's Q(s, a), [...], at the cost of one; `params` are the whole ensemble's.

        Args:
          observations: [..., O].
          actions: [..., A].
        """
        own = jax.tree.map(lambda x: x[member], params["params"]["members"])
        value = Value(self.hidden_dims, self.layer_norm)
        return value.apply({"params": own}, jnp.concatenate([observations, actions], -1))

    @nn.nowrap
    def apply_members(self, params: PyTree, observations: jax.Array, actions: jax.Array) -> jax.Array:
        """Each member's Q at actions of its own, [N, ...]: observations [..., O] for all, actions [N, ..., A]."""
        value = Value(self.hidden_dims, self.layer_norm)

        def one(own: PyTree, actions: jax.Array) -> jax.Array:
            return value.apply({"params": own}, jnp.concatenate([observations, actions], -1))

        return jax.vmap(one)(params["params"]["members"], actions)


class DiscreteCritic(nn.Module):
    """Q(s, a) of every action: observations -> values [..., num_actions].

    Attributes:
      hidden_dims: widths of the layers between encoder and values.
      encoder: of `networks.encoders.encode`, which says what observations are; "none" reads vectors [..., O].
      initializer: of all layers, the encoder's too; see `networks.initializers`.
    """

    hidden_dims: Sequence[int]
    num_actions: int
    encoder: str = "none"
    initializer: Initializer = torch_default

    @nn.compact
    def __call__(self, observations: jax.Array) -> jax.Array:
        features = encode(observations, self.encoder, self.initializer)
        return MLP((*self.hidden_dims, self.num_actions), initializer=self.initializer)(features)


class MultiStepCritic(nn.Module):
    """Q_1..Q_k(s, a) of every action, k heads on one network: observations -> values [..., k, num_actions].

    Attributes:
      hidden_dims: widths of the layers between encoder and values.
      k: heads; SQIRL's Q_j is the random policy's Q after j - 1 backups.
      encoder: of `networks.encoders.encode`, which says what observations are; "none" reads vectors [..., O].
    """

    hidden_dims: Sequence[int]
    num_actions: int
    k: int
    encoder: str = "none"

    @nn.compact
    def __call__(self, observations: jax.Array) -> jax.Array:
        q = DiscreteCritic(self.hidden_dims, self.k * self.num_actions, self.encoder)(observations)
        return q.reshape(*q.shape[:-1], self.k, self.num_actions)
