"""What an encoder may learn from video besides values: to reconstruct frames, or to tell near frames from far ones.

V-PTR's rivals (Bhateja et al. 2023, arXiv 2309.13041) as small models on the same video: reconstruction in the place of
MVP's masked pictures, the time contrast of R3M (Nair et al. 2022, arXiv 2203.12601) without its language.
"""

import math
from collections.abc import Callable

import jax
import jax.numpy as jnp
import optax
from ml_collections import ConfigDict

from rl_jax.agents.icvf import Drawn, VideoLearner
from rl_jax.core.program import Key, Metrics, PyTree, TrainState
from rl_jax.data.transitions import sample_rows
from rl_jax.data.video import Video, sample_later
from rl_jax.losses.icvf import time_contrastive_loss
from rl_jax.networks.encoders import Encoder
from rl_jax.networks.mlp import MLP
from rl_jax.networks.trained import Networks, Trained

Loss = Callable[[PyTree, jax.Array], tuple[jax.Array, Metrics]]


def reconstruction(config: ConfigDict, picture: tuple[int, ...]) -> VideoLearner:
    """Makes an autoencoder of pictures of that shape, floats; `config` has the fields of `default_config`."""
    encoder, decoder = Encoder(config.encoder), MLP((*config.hidden_dims, math.prod(picture)))

    def draw(key: Key, video: Video, batch_size: int) -> Drawn:
        return Drawn(sample_rows(video.frames, key, batch_size, len(video.ends))[:, None])

    def loss(params: PyTree, frames: jax.Array) -> tuple[jax.Array, Metrics]:
        shown = decoder.apply(params["decoder"], encoder.apply(params["encoder"], frames[:, 0]))
        error = jnp.mean(jnp.square(shown - frames[:, 0].reshape(shown.shape)))
        return error, {"reconstruction/loss": error}

    return _learner(config, encoder, {"decoder": decoder.init}, draw, loss)


def time_contrastive(config: ConfigDict) -> VideoLearner:
    """Makes the time contrast of a frame, a later one and a still later one; `config` as `default_config`."""
    encoder = Encoder(config.encoder)

    def draw(key: Key, video: Video, batch_size: int) -> Drawn:
        row_key, *later_keys = jax.random.split(key, 3)
        rows = sample_rows(jnp.arange(len(video.ends)), row_key, batch_size, len(video.ends))
        one, two = (sample_later(own, rows, video.ends) for own in later_keys)
        ordered = rows, jnp.minimum(one, two), jnp.maximum(one, two)
        return Drawn(jnp.stack([video.frames[at] for at in ordered], 1))

    def loss(params: PyTree, frames: jax.Array) -> tuple[jax.Array, Metrics]:
        features = encoder.apply(params["encoder"], frames)
        value = jnp.mean(time_contrastive_loss(*(features[:, place] for place in range(3))))
        return value, {"contrast/loss": value}

    return _learner(config, encoder, {}, draw, loss)


def _learner(
    config: ConfigDict, encoder: Encoder, heads: dict[str, Callable[..., PyTree]],
    draw: Callable[[Key, Video, int], Drawn], loss: Loss,
) -> VideoLearner:
    """An encoder and heads on its features, which descend one loss together."""
    adam = optax.adam(config.learning_rate)
    # Later learners take over an encoder and its slow copy: here the copy is the encoder of now.
    networks = Networks({"encoder": Trained(encoder.init, adam, 1.0)} | {
        name: Trained(init, adam) for name, init in heads.items()
    })

    def init(key: Key, batch: Drawn) -> TrainState:
        features = jax.eval_shape(lambda: encoder.init_with_output(key, batch.frames[:, 0])[0])
        inputs = {name: (jnp.zeros(features.shape),) for name in heads}
        return networks.init(key, {"encoder": (batch.frames[:, 0],)} | inputs)

    def update(state: TrainState, batch: Drawn) -> tuple[TrainState, Metrics]:
        gradients, info = jax.grad(loss, has_aux=True)(state.params, batch.frames)
        for name, gradient in gradients.items():
            state, norms = networks.apply_gradient(state, name, gradient)
            info |= norms
        return networks.follow(state), info

    return VideoLearner(draw, init, update, lambda params, frames: encoder.apply(params["encoder"], frames))


def default_config() -> ConfigDict:
    """Returns settings of ours: those of ICVF here, without what it alone has."""
    return ConfigDict(
        {
            "name": "reconstruction",  # or "time_contrastive"
            "encoder": "impala_cnn",
            "hidden_dims": (256,),  # of the decoder
            "learning_rate": 3e-4,
        }
    )
