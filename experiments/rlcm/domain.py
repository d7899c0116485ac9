"""What is generated: images with prompts, the network that generates them, and the judge that did not train with it."""

from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import flax.linen as nn
import jax
import numpy as np
import optax

from rl_jax.core.config import unknown
from rl_jax.core.extras import require
from rl_jax.core.program import PyTree
from rl_jax.generative.consistency import SIGMA_DATA
from rl_jax.generative.denoising import Network
from rl_jax.generative.mlp_denoiser import ClassConditionalMLP
from rl_jax.generative.rewards import to_bytes

DATA = Path(__file__).parent / "data"
JUDGE_STEPS = 400
ENLARGED = 32  # pixels of a side of what the reward sees


class Domain(NamedTuple):
    """Attributes:
    images: float32 [N, ...], scaled to a standard deviation of SIGMA_DATA and a mean of 0.
    prompts: int32 [N], the number of each image's prompt.
    names: of the prompts.
    module: the network, called with (images, noise labels, prompts).
    render: float32 images -> uint8 ones, as rewards and files see them.
    """

    images: np.ndarray
    prompts: np.ndarray
    names: tuple[str, ...]
    module: nn.Module
    render: Callable[[np.ndarray], np.ndarray]

    @property
    def network(self) -> Network:
        return lambda params, x, labels, prompts: self.module.apply(params, x, labels, prompts)


def load_domain(name: str) -> Domain:
    """A registered domain; ValueError names the near ones where there is none."""
    if name not in DOMAINS:
        raise ValueError(unknown("domain", name, DOMAINS))
    return DOMAINS[name]()


def _digits() -> Domain:
    with np.load(DATA / "digits.npz") as file:
        raw, labels = file["images"].astype(np.float32) / 16.0, file["labels"].astype(np.int32)
    mean, scale = float(raw.mean()), float(raw.std()) / SIGMA_DATA

    def render(images: np.ndarray) -> np.ndarray:
        return enlarged(to_bytes(images, scale, mean))

    return Domain((raw - mean) / scale, labels, tuple(map(str, range(10))), ClassConditionalMLP(10), render)


DOMAINS: dict[str, Callable[[], Domain]] = {"digits": _digits}


def enlarged(images: np.ndarray) -> np.ndarray:
    """uint8 images [B, h, w] with 32 pixels a side, bicubic."""
    pillow = require("PIL.Image", "generative")
    resized = (pillow.fromarray(image).resize((ENLARGED, ENLARGED), pillow.Resampling.BICUBIC) for image in images)
    return np.stack([np.asarray(image) for image in resized])


class Classifier(nn.Module):
    """Logits [B, classes] of the prompts of images [B, ...]: a network of two layers."""

    num_classes: int

    @nn.compact
    def __call__(self, images: jax.Array) -> jax.Array:
        x = images.reshape(len(images), -1)
        for _ in range(2):
            x = nn.relu(nn.Dense(128)(x))
        return nn.Dense(self.num_classes)(x)


class Judges(NamedTuple):
    """Two classifiers of images, of which each saw its own half of the data.

    Attributes:
      log_probs: (params, images [B, ...]) -> log-probabilities of the prompts [B, P].
      reward: params of the one that may reward.
      judge: params of the one that judges.
      accuracy: of the judge, on the half that it did not see.
    """

    log_probs: Callable[[PyTree, jax.Array], jax.Array]
    reward: PyTree
    judge: PyTree
    accuracy: float


def train_judges(domain: Domain) -> Judges:
    """Trains both, always alike: full batches of half of the data with noise, `JUDGE_STEPS` steps of Adam."""
    model, tx = Classifier(len(domain.names)), optax.adam(1e-2)
    order = np.random.default_rng(0).permutation(len(domain.images))
    halves = order[: len(order) // 2], order[len(order) // 2 :]

    def train(images: jax.Array, prompts: jax.Array, key: jax.Array) -> PyTree:
        init_key, noise_key = jax.random.split(key)
        params = model.init(init_key, images)

        def one(carry: tuple, key: jax.Array) -> tuple[tuple, None]:
            def loss(params: PyTree) -> jax.Array:
                noisy = images + 0.2 * jax.random.normal(key, images.shape)
                return optax.softmax_cross_entropy_with_integer_labels(model.apply(params, noisy), prompts).mean()

            updates, opt_state = tx.update(jax.grad(loss)(carry[0]), carry[1])
            return (optax.apply_updates(carry[0], updates), opt_state), None

        keys = jax.random.split(noise_key, JUDGE_STEPS)
        return jax.lax.scan(one, (params, tx.init(params)), keys)[0][0]

    reward, judge = (
        jax.jit(train)(domain.images[rows], domain.prompts[rows], jax.random.key(number))
        for number, rows in enumerate(halves)
    )
    unseen = halves[0]
    right = model.apply(judge, domain.images[unseen]).argmax(-1) == domain.prompts[unseen]
    return Judges(
        lambda params, images: jax.nn.log_softmax(model.apply(params, images)), reward, judge, float(right.mean())
    )
