"""How layers start: functions of a layer's fan-in that give the initialisers of its kernel and its bias.

A network takes one as an argument: `MLP((256, 256), initializer=torch_default)`. A layer is made by
`nn.Dense(width, **initializer(fan_in))`, where the fan-in is how many numbers feed one unit of it.
"""

import functools
from collections.abc import Callable, Sequence

import flax.linen as nn
import jax
import jax.numpy as jnp

Draw = Callable[..., jax.Array]  # (key, shape, dtype) -> array of the shape
Initializer = Callable[[int], dict[str, Draw]]  # fan-in -> {"kernel_init": ..., "bias_init": ...}


def orthogonal(gain: float = 2.0**0.5) -> Initializer:
    """Orthogonal kernels times `gain`, biases of zero: the jaxrl family's (IQL's authors' code), stable-baselines3's.

    Under `vmap` the members are drawn one after another: jaxlib's batched QR factorisation waits, on the CPU's thread
    pool, for work that it has queued in the same pool, and as many of them at once as there are cores hang for ever.
    """

    def kernel(key: jax.Array, shape: Sequence[int], dtype: jnp.dtype = jnp.float32) -> jax.Array:
        return _orthogonal(tuple(shape), dtype, gain)(key)

    return lambda fan_in: {"kernel_init": kernel, "bias_init": nn.initializers.zeros}


@functools.cache
def _orthogonal(shape: tuple[int, ...], dtype: jnp.dtype, gain: float) -> Callable[[jax.Array], jax.Array]:
    """Made once for a shape: a new function would be compiled anew for each network that is initialised op by op."""
    draw = nn.initializers.orthogonal(gain)
    return jax.jit(jax.custom_batching.sequential_vmap(lambda key: draw(key, shape, dtype)))


def torch_default(fan_in: int) -> dict[str, Draw]:
    """Kernels and biases uniform in +-1/sqrt(fan_in): PyTorch's default for linear layers and convolutions."""
    return uniform(fan_in**-0.5)(fan_in)


def fan_in_uniform(bias: float) -> Initializer:
    """Kernels uniform in +-1/sqrt(fan_in), biases of one constant: ReBRAC's and EDAC's hidden layers, with 0.1."""
    return lambda fan_in: torch_default(fan_in) | {"bias_init": nn.initializers.constant(bias)}


def xavier(fan_in: int) -> dict[str, Draw]:
    """Kernels uniform in +-sqrt(6 / (fan-in + fan-out)), biases of zero (Glorot and Bengio 2010): RLPD's layers."""
    del fan_in  # a kernel's shape tells it
    return {"kernel_init": nn.initializers.xavier_uniform(), "bias_init": nn.initializers.zeros}


def uniform(bound: float) -> Initializer:
    """Kernels and biases uniform in +-bound, whatever the fan-in: DDPG's last layers (arXiv 1509.02971), with 3e-3."""

    def draw(key: jax.Array, shape: Sequence[int], dtype: jnp.dtype = jnp.float32) -> jax.Array:
        return jax.random.uniform(key, shape, dtype, -bound, bound)

    return lambda fan_in: {"kernel_init": draw, "bias_init": draw}
