"""Encoders turn an observation into the vector that a head reads."""

import flax.linen as nn
import jax
import jax.numpy as jnp

from rl_jax.networks.convolution import Conv
from rl_jax.networks.dense import OneHot
from rl_jax.networks.initializers import Initializer, orthogonal

ENCODERS = ("none", "nature_cnn", "minigrid_cnn", "impala_cnn", "drq_cnn", "tiny_cnn", "one_hot_<N>")


class NatureCNN(nn.Module):
    """The convolutions of DQN's Nature paper: screens [..., H, W, C] -> features [..., 512].

    8x8 / 4, 4x4 / 2 and 3x3 / 1 without padding, of 32, 64 and 64 channels, and a dense layer, each with a ReLU. Bytes
    are divided by 255; other screens are taken as they are. Source: Mnih et al. 2015, "Human-level control through
    deep reinforcement learning", Nature 518, methods.

    Attributes:
      initializer: of all layers, see `networks.initializers`.

    Raises:
      ValueError: the screen is below 36x36, which leaves nothing after the third convolution.
    """

    initializer: Initializer = orthogonal()

    @nn.compact
    def __call__(self, screens: jax.Array) -> jax.Array:
        height, width = screens.shape[-3:-1]
        if min(height, width) < 36:
            raise ValueError(f"screens of {height}x{width}: NatureCNN needs 36x36 at least, scale them up")
        x, leading = _flat_screens(screens, 255.0)
        for features, size, stride in ((32, 8, 4), (64, 4, 2), (64, 3, 1)):
            x = nn.relu(_conv(x, features, size, stride, 0, self.initializer))
        return nn.relu(_dense(x.reshape(*leading, -1), 512, self.initializer))


class MiniGridCNN(nn.Module):
    """The convolutions for MiniGrid's small grids: cells [..., W, H, C] -> features [..., 512].

    3x3 convolutions, padded by 1, of 32, 64 and 64 channels with strides 2, 2 and 1, and a dense layer, each with a
    ReLU. Bytes are small codes (object, colour, state) and taken as they are; divided by 255, as
    Stable-Baselines3 hands them to the authors' network, Q is fitted more slowly (experiments/sqirl). Source: Laidlaw
    et al. 2023, arXiv 2312.08369, the authors' code.

    Attributes:
      initializer: see NatureCNN.
    """

    initializer: Initializer = orthogonal()

    @nn.compact
    def __call__(self, cells: jax.Array) -> jax.Array:
        x, leading = _flat_screens(cells, 1.0)
        for features, stride in ((32, 2), (64, 2), (64, 1)):
            x = nn.relu(_conv(x, features, 3, stride, 1, self.initializer))
        return nn.relu(_dense(x.reshape(*leading, -1), 512, self.initializer))


class ImpalaCNN(nn.Module):
    """The residual network of IMPALA, without its memory: screens [..., H, W, C] -> features [..., 256].

    For each of 16, 32 and 32 channels a 3x3 convolution, a maximum over 3x3 with stride 2, and two residual blocks of
    ReLU, 3x3, ReLU, 3x3; a dense layer after a ReLU. Bytes are divided by 255. Source: Espeholt et al. 2018, arXiv
    1802.01561, figure 3.

    Attributes:
      initializer: see NatureCNN.
    """

    initializer: Initializer = orthogonal()

    @nn.compact
    def __call__(self, screens: jax.Array) -> jax.Array:
        x, leading = _flat_screens(screens, 255.0)
        for features in (16, 32, 32):
            x = _conv(x, features, 3, 1, 1, self.initializer)
            x = nn.max_pool(x, (3, 3), (2, 2), ((1, 1), (1, 1)))
            for _ in range(2):
                block = _conv(nn.relu(x), features, 3, 1, 1, self.initializer)
                x = x + _conv(nn.relu(block), features, 3, 1, 1, self.initializer)
        return _dense(nn.relu(x.reshape(*leading, -1)), 256, self.initializer)


class DrQCNN(nn.Module):
    """DrQ-v2's convolutions and the narrow layer behind them: screens [..., H, W, C] -> features [..., 50].

    Four 3x3 convolutions of 32 channels without padding, the first with stride 2, each with a ReLU, on bytes / 255 -
    0.5; a dense layer of 50, LayerNorm and tanh. Source: Yarats et al. 2021, arXiv 2107.09645, appendix; CPL's authors'
    code.

    Attributes:
      initializer: see NatureCNN.

    Raises:
      ValueError: the screen is below 15x15, which leaves nothing after the last convolution.
    """

    initializer: Initializer = orthogonal()

    @nn.compact
    def __call__(self, screens: jax.Array) -> jax.Array:
        if min(screens.shape[-3:-1]) < 15:
            raise ValueError(f"screens of {screens.shape[-3:-1]}: DrQCNN needs 15x15 at least, scale them up")
        x, leading = _flat_screens(screens, 255.0)
        x = x - 0.5
        for stride in (2, 1, 1, 1):
            x = nn.relu(_conv(x, 32, 3, stride, 0, self.initializer))
        return jnp.tanh(nn.LayerNorm(epsilon=1e-5)(_dense(x.reshape(*leading, -1), 50, self.initializer)))


class TinyCNN(nn.Module):
    """Two convolutions for screens of a few pixels: [..., H, W, C] -> features [..., 64].

    3x3, padded by 1, of 8 and 16 channels with stride 2, each with a ReLU; a dense layer of 64 and LayerNorm, which
    knows no batch. Bytes are divided by 255; other screens are taken as they are, best centred.

    Attributes:
      initializer: see NatureCNN.
    """

    initializer: Initializer = orthogonal()

    @nn.compact
    def __call__(self, screens: jax.Array) -> jax.Array:
        x, leading = _flat_screens(screens, 255.0)
        for features in (8, 16):
            x = nn.relu(_conv(x, features, 3, 2, 1, self.initializer))
        return nn.LayerNorm()(_dense(x.reshape(*leading, -1), 64, self.initializer))


def _flat_screens(screens: jax.Array, byte_scale: float) -> tuple[jax.Array, tuple[int, ...]]:
    """(float32 [B, H, W, C], the leading axes), bytes divided by `byte_scale`."""
    *leading, height, width, channels = screens.shape
    scale = byte_scale if screens.dtype == jnp.uint8 else 1.0
    return screens.reshape(-1, height, width, channels).astype(jnp.float32) / scale, tuple(leading)


def _conv(x: jax.Array, features: int, size: int, stride: int, padding: int, initializer: Initializer) -> jax.Array:
    """A square convolution, inside a module: [B, H, W, C] -> [B, H', W', features]."""
    fan_in = size * size * x.shape[-1]
    return Conv(features, (size, size), stride, padding=padding, **initializer(fan_in))(x)


def _dense(x: jax.Array, features: int, initializer: Initializer) -> jax.Array:
    """A dense layer, inside a module: [..., I] -> [..., features]."""
    return nn.Dense(features, **initializer(x.shape[-1]))(x)


CNNS = {
    "nature_cnn": NatureCNN, "minigrid_cnn": MiniGridCNN, "impala_cnn": ImpalaCNN, "drq_cnn": DrQCNN,
    "tiny_cnn": TinyCNN,
}


def num_states(encoder: str) -> int:
    """N of an encoder "one_hot_<N>"; ValueError for another."""
    number = encoder.removeprefix("one_hot_")
    if number == encoder or not number.isdecimal() or int(number) < 1:
        raise ValueError(f"encoder is {encoder!r}: for state numbers it is one_hot_<how many states there are>")
    return int(number)


def encode(observations: jax.Array, encoder: str, initializer: Initializer) -> jax.Array | OneHot:
    """Features [..., F] of observations, by an encoder's name; to be called inside a module.

    Args:
      observations: [..., O], [..., H, W, C] or [...].
      encoder: "none" hands vectors [..., O] through, as float32; one of CNNS reads screens [..., H, W, C];
        "one_hot_<N>" reads state numbers [...] below N, so that a buffer holds a number a state and a dense layer
        takes a row of its kernel.
      initializer: of all layers, see `networks.initializers`.

    Raises:
      ValueError: there is no such encoder, or it reads state numbers and these are none.
    """
    if encoder == "none":
        return observations.astype(jnp.float32)
    if encoder in CNNS:
        return CNNS[encoder](initializer)(observations)
    if encoder.startswith("one_hot_"):
        size = num_states(encoder)
        if not jnp.issubdtype(observations.dtype, jnp.integer):
            given = f"{observations.dtype} {list(observations.shape)}"
            raise ValueError(f"encoder is {encoder!r}: it reads whole numbers of states, not observations of {given}")
        return OneHot(observations, size)
    raise ValueError(f"encoder is {encoder!r}: choose one of {', '.join(ENCODERS)}")


class Encoder(nn.Module):
    """`encode` as a network of its own, on which several others stand. Attributes: its arguments."""

    encoder: str
    initializer: Initializer = orthogonal()

    @nn.compact
    def __call__(self, observations: jax.Array) -> jax.Array:
        features = encode(observations, self.encoder, self.initializer)
        return features.vectors() if isinstance(features, OneHot) else features
