"""The network of convolutions and an LSTM, in numpy's loops."""

import jax
import jax.numpy as jnp
import numpy as np

from rl_jax.networks.conv_lstm import ConvLSTM


def sigmoid(x):
    return 1.0 / (1.0 + np.exp(-x))


def test_the_network_is_that_of_loops():
    network = ConvLSTM(3, widths=(4,), kernels=(3,), pool=2, memory=5)
    x = np.random.default_rng(0).normal(size=(2, 7, 2))
    params = jax.jit(network.init)(jax.random.key(0), jnp.asarray(x, jnp.float32))
    found = jax.jit(network.apply)(params, jnp.asarray(x, jnp.float32))
    own = jax.tree.map(lambda leaf: np.asarray(leaf, np.float64), params["params"])
    kernel, bias = own["Conv_0"]["kernel"][0], own["Conv_0"]["bias"]  # [3, 2, 4]
    cell = own["OptimizedLSTMCell_0"]
    for row, want in zip(x, found, strict=True):
        padded = np.pad(row, ((1, 1), (0, 0)))
        seen = [np.maximum(sum(padded[t + k] @ kernel[k] for k in range(3)) + bias, 0.0) for t in range(7)]
        pooled = [np.maximum(seen[2 * t], seen[2 * t + 1]) for t in range(3)]  # the seventh step is left over
        c = h = np.zeros(5)
        for value in pooled:
            i, f, g, o = (value @ cell[f"i{n}"]["kernel"] + h @ cell[f"h{n}"]["kernel"] + cell[f"h{n}"]["bias"]
                          for n in "ifgo")
            c = sigmoid(f) * c + sigmoid(i) * np.tanh(g)
            h = sigmoid(o) * np.tanh(c)
        for name in ("Dense_0", "Dense_1"):
            h = h @ own[name]["kernel"] + own[name]["bias"]
            h = np.maximum(h, 0.0) if name == "Dense_0" else h
        np.testing.assert_allclose(h, want, atol=1e-5)
