"""Multi-layer perceptrons and ensembles of them."""

import math
from collections.abc import Callable, Sequence

import flax.linen as nn
import jax
import jax.numpy as jnp


def orthogonal(key: jax.Array, shape: Sequence[int], dtype: jnp.dtype = jnp.float32) -> jax.Array:
    """Orthogonal with gain sqrt(2): the initialiser of the jaxrl family (IQL's authors' code).

    Under `vmap` the members are made one after another: jaxlib's batched QR factorisation waits, on the CPU's thread
    pool, for work that it has queued in the same pool, and as many of them at once as there are cores hang for ever.
    """
    draw = nn.initializers.orthogonal(math.sqrt(2.0))
    return jax.custom_batching.sequential_vmap(lambda key: draw(key, shape, dtype))(key)


def fan_in_uniform(fan_in: int) -> Callable[..., jax.Array]:
    """Uniform in +-1/sqrt(fan_in), for kernels and biases alike: PyTorch's default for a linear layer."""

    def init(key: jax.Array, shape: Sequence[int], dtype: jnp.dtype = jnp.float32) -> jax.Array:
        bound = fan_in**-0.5
        return jax.random.uniform(key, shape, dtype, -bound, bound)

    return init


class MLP(nn.Module):
    """Dense layers with ReLU between them, [..., I] -> [..., features[-1]].

    Attributes:
      features: widths of all layers.
      activate_final: whether the last layer has the normalisation and the ReLU too.
      layer_norm: LayerNorm before each ReLU.
      initializer: "orthogonal" (gain sqrt(2), zero bias) or "torch" (PyTorch's default).
    """

    features: Sequence[int]
    activate_final: bool = False
    layer_norm: bool = False
    initializer: str = "orthogonal"

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        if self.initializer not in ("orthogonal", "torch"):
            raise ValueError(f"initializer is {self.initializer!r}: choose 'orthogonal' or 'torch'")
        for i, width in enumerate(self.features):
            if self.initializer == "torch":
                uniform = fan_in_uniform(x.shape[-1])
                x = nn.Dense(width, kernel_init=uniform, bias_init=uniform)(x)
            else:
                x = nn.Dense(width, kernel_init=orthogonal)(x)
            if i + 1 < len(self.features) or self.activate_final:
                if self.layer_norm:
                    x = nn.LayerNorm()(x)
                x = nn.relu(x)
        return x


def ensemble(module: type[nn.Module], size: int) -> type[nn.Module]:
    """`size` independently initialised copies of a module on one input: outputs [size, ...], parameters stacked."""
    return nn.vmap(
        module, variable_axes={"params": 0}, split_rngs={"params": True}, in_axes=None, out_axes=0, axis_size=size
    )
