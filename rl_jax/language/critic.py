"""A critic of a policy that writes: a decoder of its own with a value head, and how it learns.

V_t is the value of what stands before token t. The loss is that of verl: half the clipped squared error, a mean over
the tokens of an update. The critic starts as the pretrained decoder with a head of zeros, so that all values are 0.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from rl_jax.core.program import Key, Metrics, PyTree
from rl_jax.language.rows import Rows
from rl_jax.language.scoring import token_values
from rl_jax.language.training import Trainable
from rl_jax.losses.policy_gradient import clipped_value_loss


class Critic(NamedTuple):
    """Values of tokens; what is trained is {"decoder": as of `Trainable`, "head": [D]}.

    Attributes:
      own: the decoder, of which all is trained or adapters alone.
      clip: how far a value may move in the updates of one batch, in the unit of rewards.
      bounded: whether values are probabilities: of a reward in [0, 1] at the end, without a discount and without a
        divergence in the reward, the value is one. They start at 1/2.
    """

    own: Trainable
    clip: float
    bounded: bool = False

    def init(self, key: Key, pretrained: PyTree) -> PyTree:
        return {"decoder": self.own.init(key, pretrained), "head": jnp.zeros(self.own.config.width)}

    def values(self, trained: PyTree, pretrained: PyTree, rows: Rows) -> jax.Array:
        """[B, T]."""
        hidden = self.own.hidden(self.own.params(trained["decoder"], pretrained), rows)
        values = token_values(hidden, trained["head"])
        return jax.nn.sigmoid(values) if self.bounded else values

    def loss(
        self, trained: PyTree, pretrained: PyTree, rows: Rows, returns: jax.Array, number: jax.Array
    ) -> tuple[jax.Array, Metrics]:
        """Sums over a part of an update; `rows.values` are those before it, `number` the tokens of all its parts."""
        values = self.values(trained, pretrained, rows)
        total, _ = clipped_value_loss(values, rows.values, returns, rows.mask, clip=self.clip, aggregation=1.0)
        loss = 0.5 * total / number
        moved = (rows.mask > 0) & (jnp.abs(values - rows.values) > self.clip)
        return loss, {"critic/loss": loss, "critic/clip_fraction": jnp.sum(moved) / number}


def explained_variance(values: jax.Array, returns: jax.Array, mask: jax.Array) -> jax.Array:
    """1 - Var(returns - values) / Var(returns) over the tokens that count; 0 where returns do not vary."""
    number = jnp.maximum(jnp.sum(mask), 1.0)

    def variance(x: jax.Array) -> jax.Array:
        return jnp.sum(mask * jnp.square(x - jnp.sum(mask * x) / number)) / number

    total = variance(returns)
    return jnp.where(total > 0, 1.0 - variance(returns - values) / jnp.maximum(total, 1e-12), 0.0)
