"""The convolution whose gradients are written out: the same numbers as XLA's own, in a form that is fast in loops."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from rl_jax.networks.convolution import NUMBERS, Conv, convolve


@pytest.mark.parametrize(
    ("size", "kernel", "strides", "padding"),
    [
        ((8, 6), (3, 3), (1, 1), "SAME"), ((9, 8), (3, 3), (2, 2), "SAME"), ((8, 8), (3, 3), (2, 2), ((0, 1), (0, 1))),
        ((20, 23), (8, 8), (4, 4), "VALID"), ((5, 5), (1, 1), (1, 1), "SAME"), ((8, 8), (2, 2), (2, 2), "VALID"),
        ((7, 9), (3, 5), (2, 1), ((1, 1), (2, 2))),
    ],
)
def test_gradients_are_those_of_xla(size, kernel, strides, padding):
    x, k = (jax.random.normal(jax.random.key(n), s) for n, s in enumerate(((3, *size, 4), (*kernel, 4, 5))))

    def plain(x, k):
        return lax.conv_general_dilated(x, k, strides, padding, dimension_numbers=NUMBERS)

    weights = jax.random.normal(jax.random.key(2), plain(x, k).shape)
    np.testing.assert_array_equal(convolve(x, k, strides, padding), plain(x, k))
    ours, theirs = (
        jax.jit(jax.grad(lambda *inputs, f=f: jnp.sum(weights * jnp.tanh(f(*inputs))), argnums=(0, 1)))(x, k)
        for f in (lambda x, k: convolve(x, k, strides, padding), plain)
    )
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-4), ours, theirs)


@pytest.mark.skipif(jax.default_backend() != "cpu", reason="other compilers bring it into their form everywhere")
def test_in_a_loop_every_convolution_has_the_form_of_the_fast_kernels():
    module = Conv(6, (3, 3), 2, padding=1)
    x = jnp.ones((2, 8, 8, 4))
    params = module.init(jax.random.key(0), x)

    def trained(params, x):
        def one(params, _):
            gradient, of_x = jax.grad(lambda *inputs: jnp.sum(module.apply(*inputs) ** 2), argnums=(0, 1))(params, x)
            return jax.tree.map(lambda p, g: p - 0.1 * g - jnp.mean(of_x), params, gradient), None

        return lax.scan(one, params, None, length=3)[0]

    text = jax.jit(trained).lower(params, x).compile().as_text()
    labels = re.findall(r"convolution\(.*dim_labels=([\w>-]+)", text)
    assert len(labels) >= 3 and set(labels) == {"b01f_01io->b01f"}


def test_many_kernels_at_once_under_vmap():
    x, k = jnp.ones((2, 3, 6, 6, 4)), jax.random.normal(jax.random.key(0), (2, 3, 3, 4, 5))
    each = jax.jit(jax.grad(lambda k, x: jnp.sum(convolve(x, k, (1, 1), "SAME") ** 2)))
    together = jax.jit(jax.vmap(each))(k, x)
    np.testing.assert_allclose(together, jnp.stack([each(*one) for one in zip(k, x, strict=True)]), rtol=1e-4)
