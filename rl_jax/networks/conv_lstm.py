"""Convolutions over time and a long short-term memory behind them: numbers for a window of several signals."""

from collections.abc import Sequence

import flax.linen as nn
import jax

from rl_jax.networks.convolution import Conv
from rl_jax.networks.dropout import Dropout


class ConvLSTM(nn.Module):
    """Windows [B, T, signals] -> [B, outputs].

    For each width a convolution over time, ReLU and the maximum over `pool` steps; then an LSTM, whose last state a
    dense layer with a ReLU reads; dropout stands before and behind that layer. Nothing is normalised over the batch.
    Source: Nallani and Ramachandran 2024, arXiv 2402.09465, whose sizes are not known.

    Attributes:
      widths, kernels: channels and steps of each convolution.
      pool: steps of which the maximum is kept.
      memory: size of the LSTM and of the dense layer.
      dropout: from the key stream "dropout".
    """

    outputs: int
    widths: Sequence[int] = (32, 64)
    kernels: Sequence[int] = (7, 5)
    pool: int = 2
    memory: int = 64
    dropout: float = 0.5

    @nn.compact
    def __call__(self, x: jax.Array, deterministic: bool = True) -> jax.Array:
        for width, kernel in zip(self.widths, self.kernels, strict=True):
            x = nn.relu(Conv(width, (1, kernel))(x[:, None])[:, 0])
            x = nn.max_pool(x, (self.pool,), (self.pool,))
        x = nn.RNN(nn.OptimizedLSTMCell(self.memory))(x)[:, -1]
        x = Dropout(self.dropout)(x, deterministic)
        x = nn.relu(nn.Dense(self.memory)(x))
        return nn.Dense(self.outputs)(Dropout(self.dropout)(x, deterministic))
