"""ICVF: pre-training of an encoder by intention-conditioned values of video, without actions or rewards.

Ghosh, Bhateja and Levine 2023, arXiv 2304.04782, as in the authors' code; the first phase of V-PTR (Bhateja et al.
2023, arXiv 2309.13041). phi, psi and T stand on one encoder of frames, which later learners take over; of what stands
on it there are two, and a slow copy of all.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from ml_collections import ConfigDict

from rl_jax.core.program import Key, Metrics, PyTree, TrainState
from rl_jax.data.transitions import sample_rows
from rl_jax.data.video import GoalShares, Video, sample_outcomes_and_intents
from rl_jax.losses.icvf import icvf_loss, intent_advantage
from rl_jax.networks.encoders import Encoder
from rl_jax.networks.icvf import MultilinearValue
from rl_jax.networks.mlp import ensemble
from rl_jax.networks.trained import Networks, Trained


class Drawn(NamedTuple):
    """What a learner of video has drawn for one update.

    Attributes:
      frames: [B, K, ...], K frames a row: which ones the learner's `draw` says.
      reached: float [B, 2], whether the frame is the outcome and whether it is the intent; None where nobody asks.
    """

    frames: jax.Array
    reached: jax.Array | None = None


class VideoLearner(NamedTuple):
    """An algorithm that learns an encoder of frames from video.

    Attributes:
      draw: (key, video, batch size) -> Drawn, of whatever the video holds: pictures, or what they can be drawn from.
      init: (key, Drawn pictures) -> TrainState, whose params have "encoder"; only shapes matter.
      update: (state, Drawn pictures) -> (state, metrics).
      encode: (params, pictures [..., H, W, C]) -> features [..., F].
      value: (params, pictures [B, 3, ...] of states, outcomes, intents) -> V [B]; None where none is learnt.
    """

    draw: Callable[[Key, Video, int], Drawn]
    init: Callable[[Key, Drawn], TrainState]
    update: Callable[[TrainState, Drawn], tuple[TrainState, Metrics]]
    encode: Callable[[PyTree, jax.Array], jax.Array]
    value: Callable[[PyTree, jax.Array], jax.Array] | None = None


def icvf(config: ConfigDict) -> VideoLearner:
    """Makes ICVF; `config` has the fields of `default_config`."""
    encoder, value = Encoder(config.encoder), ensemble(MultilinearValue, 2)(config.hidden_dims)
    adam = optax.adam(config.learning_rate, eps=config.adam_eps)
    networks = Networks({
        "encoder": Trained(encoder.init, adam, config.tau), "value": Trained(value.init, adam, config.tau),
    })
    shares = GoalShares(config.random_goals, 1.0 - config.random_goals - config.current_goals, config.current_goals,
                        config.same_goals)

    def draw(key: Key, video: Video, batch_size: int) -> Drawn:
        """Frames s, s', s+ and z."""
        row_key, goal_key = jax.random.split(key)
        rows = sample_rows(jnp.arange(len(video.ends)), row_key, batch_size, len(video.ends))
        goals = sample_outcomes_and_intents(goal_key, rows, video.ends, shares)
        shown = [video.frames[rows], video.next_frames[rows], *(video.frames[goal] for goal in goals)]
        return Drawn(jnp.stack(shown, 1), jnp.stack([goal == rows for goal in goals], 1).astype(jnp.float32))

    # Losses

    def values(params: PyTree, features: jax.Array, *places: int) -> jax.Array:
        """V_i of the features [B, K, F] at three places of K, [2, B]."""
        return value.apply(params["value"], *(features[:, place] for place in places))

    def loss(params: PyTree, target_params: PyTree, batch: Drawn) -> tuple[jax.Array, Metrics]:
        s, following, outcome, intent = range(4)
        slow = encode(target_params, batch.frames)
        advantages = intent_advantage(
            batch.reached[:, 1], values(target_params, slow, following, intent, intent),
            values(target_params, slow, s, intent, intent), config.discount,
        )
        next_v = values(target_params, slow, following, outcome, intent)
        features = encode(params, batch.frames[:, (s, outcome, intent), ...])
        v = values(params, features, 0, 1, 2)
        total = jnp.sum(jnp.mean(
            icvf_loss(v, next_v, batch.reached[:, 0], advantages, config.discount, config.expectile), -1
        ))
        return total, {
            "icvf/loss": total, "icvf/value": jnp.mean(v), "icvf/lowest": jnp.min(v),
            "icvf/accepted": jnp.mean(advantages >= 0),
        }

    # Update

    def init(key: Key, batch: Drawn) -> TrainState:
        features = jax.eval_shape(lambda: encoder.init_with_output(key, batch.frames[:, 0])[0])
        example = jnp.zeros(features.shape)
        return networks.init(key, {"encoder": (batch.frames[:, 0],), "value": (example,) * 3})

    def update(state: TrainState, batch: Drawn) -> tuple[TrainState, Metrics]:
        gradients, info = jax.grad(loss, has_aux=True)(state.params, state.target_params, batch)
        state = networks.follow(state)  # towards the weights before this update, as in the authors' code
        for name, gradient in gradients.items():
            state, norms = networks.apply_gradient(state, name, gradient)
            info |= norms
        return state, info

    # Act

    def encode(params: PyTree, frames: jax.Array) -> jax.Array:
        return encoder.apply(params["encoder"], frames)

    def value_of(params: PyTree, frames: Any) -> jax.Array:
        return values(params, encode(params, frames), 0, 1, 2).mean(0)

    return VideoLearner(draw, init, update, encode, value_of)


def default_config() -> ConfigDict:
    """Returns the authors' settings for pictures."""
    return ConfigDict(
        {
            "name": "icvf",
            "encoder": "impala_cnn",  # the authors': ResNet-v2-50 with group norm at 224 pixels
            "hidden_dims": (256, 256),  # of phi, psi and T
            "learning_rate": 5e-5,  # 3e-4 where frames are vectors
            "adam_eps": 3.125e-4,
            "discount": 0.99,
            "tau": 0.005,  # target copy
            "expectile": 0.9,
            "random_goals": 0.3,  # share of goals from anywhere; of the current frame; the others: later in the clip
            "current_goals": 0.2,
            "same_goals": 0.5,  # how often the outcome is the intent
        }
    )
