"""Handwritten digits of 8x8 pixels, whose prompts are the ten classes."""

import functools
from pathlib import Path
from typing import NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax

from rl_jax.core.arrays import read_arrays
from rl_jax.core.extras import require
from rl_jax.core.program import Evaluation, Key, Metrics, PyTree, TrainState
from rl_jax.generative.consistency import SIGMA_DATA
from rl_jax.generative.domain import Domain
from rl_jax.generative.mlp_denoiser import ClassConditionalMLP
from rl_jax.generative.pretraining import Pretraining
from rl_jax.generative.rewards import to_bytes
from rl_jax.networks.model_file import load_model

ENLARGED = 32  # pixels of a side of the images that rewards see
NUM_CLASSES = 10
# The classifiers beside the generator; each learns from its own half of the data.
PARTS = ("similarity", "judge")


class Digits(NamedTuple):
    """Attributes:
    images: float32 [N, 8, 8], with mean 0 and standard deviation SIGMA_DATA.
    labels: int32 [N].
    mean, scale: pixels in [0, 1] are scale * images + mean.
    """

    images: np.ndarray
    labels: np.ndarray
    mean: float
    scale: float


class Classifier(nn.Module):
    """Logits [B, NUM_CLASSES] of images [B, ...], by a perceptron with two hidden layers."""

    @nn.compact
    def __call__(self, images: jax.Array) -> jax.Array:
        x = images.reshape(len(images), -1)
        for _ in range(2):
            x = nn.relu(nn.Dense(128)(x))
        return nn.Dense(NUM_CLASSES)(x)


def load_digits(path: Path) -> Digits:
    """Reads an npz file of `images` [N, 8, 8], whole numbers from 0 to 16, and `labels` [N]."""
    arrays = read_arrays(path)
    raw, labels = arrays["images"].astype(np.float32) / 16.0, arrays["labels"].astype(np.int32)
    mean, scale = float(raw.mean()), float(raw.std()) / SIGMA_DATA
    return Digits((raw - mean) / scale, labels, mean, scale)


def digits_domain(path: Path, checkpoints: Path) -> Domain:
    """The domain of a file of digits, with the classifiers `digits_<kind>.npz` of a folder."""
    digits = load_digits(path)

    def log_probs(kind: str, frozen: PyTree, images: jax.Array) -> jax.Array:
        return jax.nn.log_softmax(Classifier().apply(frozen[kind], images))

    def init(key: Key) -> PyTree:
        return Classifier().init(key, digits.images[:1])

    return Domain(
        digits.images, digits.labels, tuple(map(str, range(NUM_CLASSES))), np.arange(NUM_CLASSES),
        ClassConditionalMLP(NUM_CLASSES),
        frozen={kind: load_model(checkpoints / f"digits_{kind}.npz", kind, "digits", init) for kind in PARTS},
        decode=lambda frozen, x: digits.scale * x + digits.mean,
        render=lambda pixels: enlarged(to_bytes(pixels, 1.0, 0.0)),
        similarity=functools.partial(log_probs, "similarity"), judge=functools.partial(log_probs, "judge"),
    )


def enlarged(images: np.ndarray) -> np.ndarray:
    """Scales uint8 images [B, h, w] to ENLARGED pixels a side, by bicubic interpolation."""
    pillow = require("PIL.Image", "generative")
    resized = (pillow.fromarray(image).resize((ENLARGED, ENLARGED), pillow.Resampling.BICUBIC) for image in images)
    return np.stack([np.asarray(image) for image in resized])


def halves(digits: Digits) -> tuple[np.ndarray, np.ndarray]:
    """Returns the rows of two random halves of the data."""
    order = np.random.default_rng(0).permutation(len(digits.images))
    return order[: len(order) // 2], order[len(order) // 2 :]


def classifier_pretraining(digits: Digits, kind: str) -> Pretraining:
    """The training of a classifier on its half of the digits: full batches with noise."""
    module, rows = Classifier(), halves(digits)[PARTS.index(kind)]

    def loss(params: PyTree, mean: PyTree, step: jax.Array, resident: PyTree, key: Key) -> tuple[jax.Array, Metrics]:
        del mean, step
        noisy = resident["images"] + 0.2 * jax.random.normal(key, resident["images"].shape)
        logits = module.apply(params, noisy)
        total = optax.softmax_cross_entropy_with_integer_labels(logits, resident["prompts"]).mean()
        return total, {"model/loss": total, "model/accuracy": jnp.mean(logits.argmax(-1) == resident["prompts"])}

    @jax.jit
    def right(params: PyTree) -> jax.Array:
        return jax.vmap(lambda own: module.apply(own, digits.images).argmax(-1) == digits.labels)(params)

    def evaluate(state: TrainState, resident: PyTree, key: Key) -> Evaluation:
        del resident, key
        return Evaluation(outcomes={"accuracy": np.asarray(right(state.params["model"]), np.float32)})

    return Pretraining(
        init=lambda key, resident: module.init(key, resident["images"][:1]), loss=loss, evaluate=evaluate,
        resident={"images": digits.images[rows], "prompts": digits.labels[rows]},
    )
