"""What is generated: images with prompts, the network that generates them, and the judge that did not train with it."""

import functools
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax

from experiments.rlcm import emoji
from experiments.rlcm.models import CHECKPOINTS, load_model
from rl_jax.core.config import unknown
from rl_jax.core.extras import require
from rl_jax.core.program import Key, PyTree
from rl_jax.generative.consistency import SIGMA_DATA
from rl_jax.generative.denoising import Network
from rl_jax.generative.mlp_denoiser import ClassConditionalMLP
from rl_jax.generative.rewards import to_bytes

DATA = Path(__file__).parent / "data"
JUDGE_STEPS = 400
ENLARGED = 32  # pixels of a side of what the reward sees


class Judges(NamedTuple):
    """What tells whether an image is of its prompt: one that may reward, and an independent one that judges.

    Attributes:
      scores: (params, generated images [B, ...]) -> of each prompt, how much it looks like it, [B, P].
      log_probs: (params, generated images [B, ...]) -> log-probabilities of the prompts, [B, P], by the judge.
      reward: params of the one that may reward.
      judge: params of the one that judges.
    """

    scores: Callable[[PyTree, jax.Array], jax.Array]
    log_probs: Callable[[PyTree, jax.Array], jax.Array]
    reward: PyTree
    judge: PyTree


class Domain(NamedTuple):
    """Attributes:
    images: float32 [N, ...], what is generated, images or their latents, scaled to a standard deviation of SIGMA_DATA
      and a mean of 0.
    prompts: int32 [N], the number of each image's prompt.
    names: of the prompts.
    conditions: [P, ...], what the network is told of each prompt.
    module: the network, called with (images, noise labels, conditions).
    decode: generated images [B, ...] -> pixels [B, H, W] or [B, H, W, 3], in [0, 1] but for what must be clipped.
    render: pixels -> uint8 images, as rewards and files see them.
    judges: makes them.
    """

    images: np.ndarray
    prompts: np.ndarray
    names: tuple[str, ...]
    conditions: np.ndarray
    module: nn.Module
    decode: Callable[[jax.Array], jax.Array]
    render: Callable[[np.ndarray], np.ndarray]
    judges: Callable[[], Judges]

    @property
    def network(self) -> Network:
        """(params, images, noise labels, prompt numbers) -> what the module says."""

        def network(params: PyTree, x: jax.Array, labels: jax.Array, prompts: jax.Array) -> jax.Array:
            return self.module.apply(params, x, labels, jnp.asarray(self.conditions)[prompts])

        return network

    def init(self, key: Key) -> PyTree:
        """Parameters of the module."""
        return self.module.init(key, jnp.asarray(self.images[:1]), jnp.zeros(1), jnp.asarray(self.conditions[:1]))


def load_domain(name: str) -> Domain:
    """A registered domain; ValueError names the near ones where there is none."""
    if name not in DOMAINS:
        raise ValueError(unknown("domain", name, DOMAINS))
    return DOMAINS[name]()


@functools.cache
def _digits() -> Domain:
    with np.load(DATA / "digits.npz") as file:
        raw, labels = file["images"].astype(np.float32) / 16.0, file["labels"].astype(np.int32)
    mean, scale = float(raw.mean()), float(raw.std()) / SIGMA_DATA
    images = (raw - mean) / scale
    return Domain(
        images, labels, tuple(map(str, range(10))), np.arange(10), ClassConditionalMLP(10),
        decode=lambda x: scale * x + mean, render=lambda pixels: enlarged(to_bytes(pixels, 1.0, 0.0)),
        judges=functools.cache(functools.partial(train_judges, images, labels, 10)),
    )


@functools.cache
def _emoji() -> Domain:
    data = emoji.load_emoji()
    parts = {kind: load_part(kind) for kind in emoji.PARTS}
    latents, prompts = emoji.encoded(parts["autoencoder"])
    mean, scale = float(latents.mean()), float(latents.std()) / SIGMA_DATA

    def images(x: jax.Array) -> jax.Array:
        return emoji.decode(parts["autoencoder"], scale * x + mean)

    judges = Judges(
        lambda params, x: emoji.prompt_similarity(params, images(x)),
        lambda params, x: emoji.judge_log_probs(params, images(x)),
        parts["similarity"], parts["judge"],
    )
    return Domain(
        (latents - mean) / scale, prompts, data.names, data.tokens, emoji.generator(data.tokenizer),
        decode=lambda x: images(x) / 2.0 + 0.5, render=lambda pixels: to_bytes(pixels, 1.0, 0.0),
        judges=lambda: judges,
    )


def load_part(kind: str) -> PyTree:
    """The committed parameters of a network beside the emoji's generator."""
    init = emoji.PARTS[kind](emoji.load_emoji()).init
    return load_model(CHECKPOINTS / f"emoji_{kind}.npz", kind, "emoji", init)


DOMAINS: dict[str, Callable[[], Domain]] = {"digits": _digits, "emoji": _emoji}


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


def train_judges(images: np.ndarray, labels: np.ndarray, num_classes: int) -> Judges:
    """Two classifiers, of which each sees its own half of the data; trained always alike: full batches with noise,
    `JUDGE_STEPS` steps of Adam."""
    model, tx = Classifier(num_classes), optax.adam(1e-2)
    order = np.random.default_rng(0).permutation(len(images))
    halves = order[: len(order) // 2], order[len(order) // 2 :]

    def train(images: jax.Array, labels: jax.Array, key: jax.Array) -> PyTree:
        init_key, noise_key = jax.random.split(key)
        params = model.init(init_key, images)

        def one(carry: tuple, key: jax.Array) -> tuple[tuple, None]:
            def loss(params: PyTree) -> jax.Array:
                noisy = images + 0.2 * jax.random.normal(key, images.shape)
                return optax.softmax_cross_entropy_with_integer_labels(model.apply(params, noisy), labels).mean()

            updates, opt_state = tx.update(jax.grad(loss)(carry[0]), carry[1])
            return (optax.apply_updates(carry[0], updates), opt_state), None

        keys = jax.random.split(noise_key, JUDGE_STEPS)
        return jax.lax.scan(one, (params, tx.init(params)), keys)[0][0]

    reward, judge = (jax.jit(train)(images[rows], labels[rows], jax.random.key(n)) for n, rows in enumerate(halves))

    def log_probs(params: PyTree, x: jax.Array) -> jax.Array:
        return jax.nn.log_softmax(model.apply(params, x))

    return Judges(log_probs, log_probs, reward, judge)
