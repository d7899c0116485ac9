"""The multilinear network of ICVF."""

from collections.abc import Sequence

import flax.linen as nn
import jax
import jax.numpy as jnp

from rl_jax.networks.initializers import orthogonal
from rl_jax.networks.mlp import MLP


class MultilinearValue(nn.Module):
    """V(s, s+, z) = phi(s)' T(z) psi(s+), of features [B, K] each: [B].

    T is diag(t) A' B diag(t) with t = T(psi(z)): A (t * phi) . B (t * psi). The intent passes through psi first. A
    starts small, so that values start near 0, their upper end. Source: arXiv 2304.04782, the authors' code; their GELU
    before each LayerNorm is a ReLU here.
    """

    hidden_dims: Sequence[int]

    @nn.compact
    def __call__(self, states: jax.Array, outcomes: jax.Array, intents: jax.Array) -> jax.Array:
        phi, psi, t = (
            MLP(self.hidden_dims, activate_final=True, layer_norm="after", name=name) for name in ("phi", "psi", "t")
        )
        width = self.hidden_dims[-1]
        a = nn.Dense(width, **orthogonal(0.01)(width), name="a")
        b = nn.Dense(width, **orthogonal(1.0)(width), name="b")
        intent = t(psi(intents))
        return jnp.sum(a(intent * phi(states)) * b(intent * psi(outcomes)), -1)
