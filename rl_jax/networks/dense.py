"""Dense layers that read one-hot vectors without making them."""

import flax.linen as nn
import flax.struct
import jax
import jax.numpy as jnp


@flax.struct.dataclass
class OneHot:
    """One-hot vectors [..., size], kept as the places of their ones; a place outside stands for a vector of zeros.

    Attributes:
      places: int32 [...].
      size: length of a vector.
    """

    places: jax.Array
    size: int = flax.struct.field(pytree_node=False)

    @property
    def shape(self) -> tuple[int, ...]:
        return (*self.places.shape, self.size)

    def vectors(self) -> jax.Array:
        """The vectors themselves, float32 [..., size]."""
        return jax.nn.one_hot(self.places, self.size)

    def times(self, kernel: jax.Array) -> jax.Array:
        """The product with a kernel [size, F], which is a row of it each: [..., F]."""
        inside = (self.places >= 0) & (self.places < self.size)
        return jnp.where(inside[..., None], kernel[jnp.clip(self.places, 0, self.size - 1)], 0.0)


class Dense(nn.Dense):
    """flax's layer, which also reads `OneHot`: its cost is that of a row, whatever the size."""

    @nn.compact
    def __call__(self, x: jax.Array | OneHot) -> jax.Array:
        if not isinstance(x, OneHot):
            return super().__call__(x)
        kernel = self.param("kernel", self.kernel_init, (x.size, self.features), self.param_dtype)
        return x.times(kernel) + self.param("bias", self.bias_init, (self.features,), self.param_dtype)
