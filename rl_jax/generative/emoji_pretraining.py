"""The training of the networks beside the emoji's generator: the autoencoder, the similarity model and the judge."""

from collections.abc import Callable

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


def part_pretraining(data: Emoji, part: str, batch_size: int) -> Pretraining:
    """Trains one of `emoji.PARTS` on batches of different prompts, each prompt in a random style.

    Raises:
      ValueError: there are fewer prompts than `batch_size`.
    """
    by_prompt = np.stack([data.pixels[data.prompts == prompt] for prompt in range(len(data.names))])
    num_prompts, num_styles = by_prompt.shape[:2]
    if batch_size > num_prompts:
        raise ValueError(f"batch_size={batch_size}: a batch has different prompts, and there are {num_prompts}")
    batch_loss, measure = LOSSES[part](data), jax.jit(jax.vmap(MEASURES[part](data)))

    def loss(params: PyTree, mean: PyTree, step: jax.Array, resident: PyTree, key: Key) -> tuple[jax.Array, Metrics]:
        del mean, step
        prompt_key, style_key, augment_key, loss_key = jax.random.split(key, 4)
        prompts = jax.random.permutation(prompt_key, num_prompts)[:batch_size]
        images = resident[prompts, jax.random.randint(style_key, prompts.shape, 0, num_styles)]
        return batch_loss(params, shard_batch(augmented(images, augment_key, SHIFT)), prompts, loss_key)

    def evaluate(state: TrainState, resident: PyTree, key: Key) -> Evaluation:
        del resident, key
        name = "psnr" if part == "autoencoder" else "accuracy"
        return Evaluation(outcomes={name: np.asarray(measure(state.params["model"]), np.float32)})

    return Pretraining(lambda key, resident: init_part(data, part, key), loss, evaluate, by_prompt)


# Each function takes the data and returns (params, images [B, 32, 32, 3] in [-1, 1], prompts [B], key) -> (loss, info).
BatchLoss = Callable[[PyTree, jax.Array, jax.Array, Key], tuple[jax.Array, Metrics]]


def _autoencoder_loss(data: Emoji) -> BatchLoss:
    del data
    return lambda params, images, prompts, key: autoencoder_loss(AUTOENCODER, params, images, key, kl_weight=KL_WEIGHT)


def _similarity_loss(data: Emoji) -> BatchLoss:
    module, tokens = CLIP(clip_config(data)), jnp.asarray(data.tokens)

    def loss(params: PyTree, images: jax.Array, prompts: jax.Array, key: Key) -> tuple[jax.Array, Metrics]:
        images = pixels(with_noise(images, key) / 2.0 + 0.5, 32)
        return contrastive_loss(*module.apply(params, tokens[prompts], images))

    return loss


def _judge_loss(data: Emoji) -> BatchLoss:
    module = Judge(len(data.names))

    def loss(params: PyTree, images: jax.Array, prompts: jax.Array, key: Key) -> tuple[jax.Array, Metrics]:
        logits = module.apply(params, with_noise(images, key))
        loss = optax.softmax_cross_entropy_with_integer_labels(logits, prompts).mean()
        return loss, {"model/loss": loss, "model/accuracy": jnp.mean(logits.argmax(-1) == prompts)}

    return loss


LOSSES: dict[str, Callable[[Emoji], BatchLoss]] = {
    "autoencoder": _autoencoder_loss, "similarity": _similarity_loss, "judge": _judge_loss,
}


def _psnr(data: Emoji) -> Callable[[PyTree], jax.Array]:
    def measure(params: PyTree) -> jax.Array:
        errors = jnp.square(AUTOENCODER.apply(params, data.pixels) - data.pixels)
        return 10.0 * jnp.log10(4.0 / jnp.mean(errors))[None]  # pixels have a range of 2

    return measure


# Each function takes the data and returns params -> a number [1] or one for each image [N].
MEASURES: dict[str, Callable[[Emoji], Callable[[PyTree], jax.Array]]] = {
    "autoencoder": _psnr,
    "similarity": lambda data: lambda params: prompt_similarity(params, data, data.pixels).argmax(-1) == data.prompts,
    "judge": lambda data: lambda params: Judge(len(data.names)).apply(params, data.pixels).argmax(-1) == data.prompts,
}


def with_noise(images: jax.Array, key: Key) -> jax.Array:
    """Adds noise to images [B, H, W, C], each of its own standard deviation up to MAX_NOISE.

    Generated images are blurred and noisy, and the networks that judge them should know such images.
    """
    level_key, noise_key = jax.random.split(key)
    level = jax.random.uniform(level_key, (len(images), 1, 1, 1), maxval=MAX_NOISE)
    return images + level * jax.random.normal(noise_key, images.shape)
