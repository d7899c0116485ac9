"""The training of the networks beside the emoji's generator: the autoencoder, the similarity model and the judge."""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from rl_jax.core.mesh import shard_batch
from rl_jax.core.program import Evaluation, Key, Metrics, PyTree, TrainState
from rl_jax.data.captioned_images import augmented
from rl_jax.generative.clip import CLIP, pixels
from rl_jax.generative.contrastive import contrastive_loss
from rl_jax.generative.emoji import AUTOENCODER, SHIFT, Emoji, Judge, clip_config, init_part, prompt_similarity
from rl_jax.generative.pretraining import Pretraining
from rl_jax.generative.vae import autoencoder_loss

KL_WEIGHT = 1e-3  # of the KL divergence of the autoencoder's latents from a standard normal distribution
MAX_NOISE = 0.3  # standard deviation of the strongest noise on the images that judge and similarity model see


class Objective(NamedTuple):
    """Attributes:
    loss: (params, images [B, 32, 32, 3] in [-1, 1], prompts [B], key) -> (loss, info).
    measure: (params, all images as they are) -> outcome [E].
    outcome: its name.
    """

    loss: Callable[[PyTree, jax.Array, jax.Array, Key], tuple[jax.Array, Metrics]]
    measure: Callable[[PyTree], jax.Array]
    outcome: str


def part_pretraining(data: Emoji, part: str, batch_size: int) -> Pretraining:
    """Trains one of `emoji.PARTS` on batches of different prompts, each prompt in a random style.

    Raises:
      ValueError: there are fewer prompts than `batch_size`.
    """
    by_prompt = np.stack([data.pixels[data.prompts == prompt] for prompt in range(len(data.names))])
    num_prompts, num_styles = by_prompt.shape[:2]
    if batch_size > num_prompts:
        raise ValueError(f"config.batch_size={batch_size}: a batch has different prompts, and there are {num_prompts}")
    objective = OBJECTIVES[part](data)
    measure = jax.jit(jax.vmap(objective.measure))

    def loss(params: PyTree, mean: PyTree, step: jax.Array, resident: PyTree, key: Key) -> tuple[jax.Array, Metrics]:
        del mean, step
        prompt_key, style_key, augment_key, loss_key = jax.random.split(key, 4)
        prompts = jax.random.permutation(prompt_key, num_prompts)[:batch_size]
        images = resident[prompts, jax.random.randint(style_key, prompts.shape, 0, num_styles)]
        return objective.loss(params, shard_batch(augmented(images, augment_key, SHIFT)), prompts, loss_key)

    def evaluate(state: TrainState, resident: PyTree, key: Key) -> Evaluation:
        del resident, key
        return Evaluation(outcomes={objective.outcome: np.asarray(measure(state.params["model"]), np.float32)})

    return Pretraining(lambda key, resident: init_part(data, part, key), loss, evaluate, by_prompt)


def _autoencoder(data: Emoji) -> Objective:
    def loss(params: PyTree, images: jax.Array, prompts: jax.Array, key: Key) -> tuple[jax.Array, Metrics]:
        del prompts
        return autoencoder_loss(AUTOENCODER, params, images, key, kl_weight=KL_WEIGHT)

    def measure(params: PyTree) -> jax.Array:
        error = jnp.mean(jnp.square(AUTOENCODER.apply(params, data.pixels) - data.pixels))
        return 10.0 * jnp.log10(4.0 / error)[None]  # in decibels; pixels have a range of 2

    return Objective(loss, measure, "psnr")


def _similarity(data: Emoji) -> Objective:
    module, tokens = CLIP(clip_config(data)), jnp.asarray(data.tokens)

    def loss(params: PyTree, images: jax.Array, prompts: jax.Array, key: Key) -> tuple[jax.Array, Metrics]:
        images = pixels(with_noise(images, key) / 2.0 + 0.5, 32)
        return contrastive_loss(*module.apply(params, tokens[prompts], images))

    def measure(params: PyTree) -> jax.Array:
        return prompt_similarity(params, data, data.pixels).argmax(-1) == data.prompts

    return Objective(loss, measure, "accuracy")


def _judge(data: Emoji) -> Objective:
    module = Judge(len(data.names))

    def loss(params: PyTree, images: jax.Array, prompts: jax.Array, key: Key) -> tuple[jax.Array, Metrics]:
        logits = module.apply(params, with_noise(images, key))
        loss = optax.softmax_cross_entropy_with_integer_labels(logits, prompts).mean()
        return loss, {"model/loss": loss, "model/accuracy": jnp.mean(logits.argmax(-1) == prompts)}

    def measure(params: PyTree) -> jax.Array:
        return module.apply(params, data.pixels).argmax(-1) == data.prompts

    return Objective(loss, measure, "accuracy")


OBJECTIVES: dict[str, Callable[[Emoji], Objective]] = {
    "autoencoder": _autoencoder, "similarity": _similarity, "judge": _judge,
}


def with_noise(images: jax.Array, key: Key) -> jax.Array:
    """Adds noise to images [B, H, W, C], each of its own standard deviation up to MAX_NOISE.

    Generated images are blurred and noisy, and the networks that judge them should know such images.
    """
    level_key, noise_key = jax.random.split(key)
    level = jax.random.uniform(level_key, (len(images), 1, 1, 1), maxval=MAX_NOISE)
    return images + level * jax.random.normal(noise_key, images.shape)
