"""Multi-layer perceptrons and ensembles of them."""

import functools
import math
from collections.abc import Callable, Sequence

import flax.linen as nn
import jax
import jax.numpy as jnp


def orthogonal(
    key: jax.Array, shape: Sequence[int], dtype: jnp.dtype = jnp.float32, gain: float = math.sqrt(2.0)
) -> jax.Array:
    """Orthogonal with gain sqrt(2): the initialiser of the jaxrl family (IQL's authors' code).

    Under `vmap` the members are made one after another: jaxlib's batched QR factorisation waits, on the CPU's thread
    pool, for work that it has queued in the same pool, and as many of them at once as there are cores hang for ever.
    """
    return _orthogonal(tuple(shape), dtype, gain)(key)


@functools.cache
def _orthogonal(shape: tuple[int, ...], dtype: jnp.dtype, gain: float) -> Callable[[jax.Array], jax.Array]:
    """Made once for a shape: a new function would be compiled anew for each network that is initialised op by op."""
    draw = nn.initializers.orthogonal(gain)
    return jax.jit(jax.custom_batching.sequential_vmap(lambda key: draw(key, shape, dtype)))


def uniform_within(bound: float) -> Callable[..., jax.Array]:
    """Uniform in +-bound."""

    def init(key: jax.Array, shape: Sequence[int], dtype: jnp.dtype = jnp.float32) -> jax.Array:
        return jax.random.uniform(key, shape, dtype, -bound, bound)

    return init


def fan_in_uniform(fan_in: int) -> Callable[..., jax.Array]:
    """Uniform in +-1/sqrt(fan_in), for kernels and biases alike: PyTorch's default for a linear layer."""
    return uniform_within(fan_in**-0.5)


class MLP(nn.Module):
    """Dense layers with ReLU between them, [..., I] -> [..., features[-1]].

    Attributes:
      features: widths of all layers.
      activate_final: whether the last layer has the normalisation and the ReLU too.
      layer_norm: LayerNorm before each ReLU; "after" puts it after each, as ReBRAC's authors do.
      initializer: "orthogonal" (gain sqrt(2), zero bias), "torch" (PyTorch's default) or "small_output": PyTorch's
        kernels and biases of 0.1, and the last layer, unless it is activated, uniform in +-output_bound (EDAC's and
        ReBRAC's authors; the small output is DDPG's, arXiv 1509.02971). "orthogonal_flat" and "torch_flat" are the
        first two but for the last layer, unless it is activated: orthogonal with gain 0.01, zero bias (CORL's CQL).
      output_bound: of initializer "small_output".
    """

    features: Sequence[int]
    activate_final: bool = False
    layer_norm: bool | str = False
    initializer: str = "orthogonal"
    output_bound: float = 3e-3

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        if self.layer_norm not in (False, True, "after"):
            raise ValueError(f"layer_norm is {self.layer_norm!r}: choose False, True or 'after'")
        for i, width in enumerate(self.features):
            activate = i + 1 < len(self.features) or self.activate_final
            x = nn.Dense(width, **self._initializers(x.shape[-1], activate))(x)
            if activate:
                if self.layer_norm is True:
                    x = nn.LayerNorm()(x)
                x = nn.relu(x)
                if self.layer_norm == "after":
                    x = nn.LayerNorm()(x)
        return x

    def _initializers(self, fan_in: int, activate: bool) -> dict[str, Callable[..., jax.Array]]:
        """Of one layer's kernel and bias."""
        uniform = fan_in_uniform(fan_in)
        if self.initializer in ("orthogonal_flat", "torch_flat") and not activate:
            flat = functools.partial(orthogonal, gain=0.01)
            return {"kernel_init": flat, "bias_init": nn.initializers.zeros}
        if self.initializer in ("orthogonal", "orthogonal_flat"):
            return {"kernel_init": orthogonal, "bias_init": nn.initializers.zeros}
        if self.initializer in ("torch", "torch_flat"):
            return {"kernel_init": uniform, "bias_init": uniform}
        if self.initializer == "small_output" and activate:
            return {"kernel_init": uniform, "bias_init": nn.initializers.constant(0.1)}
        if self.initializer == "small_output":
            small = uniform_within(self.output_bound)
            return {"kernel_init": small, "bias_init": small}
        known = ("orthogonal", "orthogonal_flat", "torch", "torch_flat", "small_output")
        raise ValueError(f"initializer is {self.initializer!r}: choose one of {', '.join(known)}")


def ensemble(module: type[nn.Module], size: int) -> type[nn.Module]:
    """`size` independently initialised copies of a module on one input: outputs [size, ...], parameters stacked."""
    return nn.vmap(
        module, variable_axes={"params": 0}, split_rngs={"params": True}, in_axes=None, out_axes=0, axis_size=size
    )
