"""Multi-layer perceptrons and ensembles of them."""

from collections.abc import Sequence

import flax.linen as nn
import jax

from rl_jax.networks.dense import Dense, OneHot
from rl_jax.networks.dropout import Dropout
from rl_jax.networks.initializers import Initializer, orthogonal


class MLP(nn.Module):
    """Dense layers with ReLU between them, [..., I], or the same as `OneHot`, -> [..., features[-1]].

    Attributes:
      features: widths of all layers.
      activate_final: whether the last layer has the normalisation and the ReLU too.
      layer_norm: LayerNorm before each ReLU; "after" puts it after each, as ReBRAC's authors do.
      initializer: of all layers, see `networks.initializers`.
      output_initializer: of the last layer unless it is activated; None takes `initializer`.
      dropout: the share of each hidden layer that is dropped before its ReLU, where the call is not `deterministic`.
    """

    features: Sequence[int]
    activate_final: bool = False
    layer_norm: bool | str = False
    initializer: Initializer = orthogonal()
    output_initializer: Initializer | None = None
    dropout: float = 0.0

    @nn.compact
    def __call__(self, x: jax.Array | OneHot, deterministic: bool = True) -> jax.Array:
        if self.layer_norm not in (False, True, "after"):
            raise ValueError(f"layer_norm is {self.layer_norm!r}: choose False, True or 'after'")
        for i, width in enumerate(self.features):
            activate = i + 1 < len(self.features) or self.activate_final
            initializer = self.initializer if activate else self.output_initializer or self.initializer
            x = Dense(width, **initializer(x.shape[-1]))(x)
            if activate:
                if not deterministic:
                    x = Dropout(self.dropout)(x, deterministic)
                if self.layer_norm is True:
                    x = nn.LayerNorm()(x)
                x = nn.relu(x)
                if self.layer_norm == "after":
                    x = nn.LayerNorm()(x)
        return x


def ensemble(module: type[nn.Module], size: int) -> type[nn.Module]:
    """`size` independently initialised copies of a module on one input: outputs [size, ...], parameters stacked."""
    return nn.vmap(
        module, variable_axes={"params": 0}, split_rngs={"params": True}, in_axes=None, out_axes=0, axis_size=size
    )
