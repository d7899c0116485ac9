"""Rewards of images that the host computes: registered functions of uint8 images and prompts, made from options.

Source: Black et al. 2023 (DDPO), arXiv 2305.13301, section 5, and Oertell et al. 2024 (RLCM), arXiv 2404.03673, with
their codes; similarity is CLIP's, Radford et al. 2021, arXiv 2103.00020.
"""

import inspect
import io
import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import jax
import numpy as np
import optax

from rl_jax.core.config import unknown
from rl_jax.core.extras import require
from rl_jax.core.program import PyTree
from rl_jax.generative.aesthetic import WIDTH, AestheticHead, load_head
from rl_jax.generative.clip import CLIP, VisionEncoder, pixels
from rl_jax.generative.pretrained import load_clip, load_vision_encoder
from rl_jax.generative.tokenizer import load_tokenizer
from rl_jax.generative.vlm import check_options, remote_scores

QUALITY = 95  # of the JPEG whose size is a reward
QUALITY_SENT = 80  # of the JPEG that another process scores
# (uint8 images [B, H, W] or [B, H, W, 3], B prompts) -> rewards [B] float32
Reward = Callable[[np.ndarray, Sequence[str]], np.ndarray]

_THREADS: list[ThreadPoolExecutor] = []


def reward(name: str, **options: Any) -> Reward:
    """Makes a registered reward.

    Raises:
      ValueError: there is none of that name, it has no such option, or one that it needs is not given.
      FileNotFoundError: files that an option names are missing.
    """
    if name not in REWARDS:
        raise ValueError(unknown("reward", name, REWARDS))
    known = inspect.signature(REWARDS[name]).parameters
    said = f"its options are {', '.join(known)}" if known else "it has no options"
    if strange := [option for option in options if option not in known]:
        raise ValueError(f"reward {name!r} does not know {', '.join(strange)}: {said}")
    if absent := [option for option, x in known.items() if x.default is x.empty and option not in options]:
        raise ValueError(f"reward {name!r} needs {', '.join(absent)}: {said}")
    if options.get("batch_size", 1) < 1:
        raise ValueError(f"reward {name!r}: batch_size is {options['batch_size']}; it is 1 or more")
    return REWARDS[name](**options)


def compressibility() -> Reward:
    """Rewards minus the kilobytes of the JPEG file."""
    return lambda images, prompts: (-jpeg_sizes(images) / 1000.0).astype(np.float32)


def incompressibility() -> Reward:
    """Rewards the kilobytes of the JPEG file."""
    return lambda images, prompts: (jpeg_sizes(images) / 1000.0).astype(np.float32)


def aesthetic(clip: str | Path, head: str | Path, batch_size: int = 32, variant: str = "") -> Reward:
    """Rewards LAION's aesthetic score, see `aesthetic.py`.

    Args:
      clip: the folder of CLIP ViT-L/14, or of its image encoder with the projection.
      head: the file of the head.
      batch_size: images that are scored at once.
      variant: of CLIP's weight files, such as "fp16".

    Raises:
      FileNotFoundError, ValueError: a file is missing, or not of this model.
    """
    encoder, head_params = load_vision_encoder(clip, variant=variant), load_head(head)
    config = encoder.config
    if config.projection_dim != WIDTH:
        found = config.projection_dim
        raise ValueError(f"{clip}: embeddings of {found} numbers; the head reads {WIDTH}: give CLIP ViT-L/14's folder")

    @jax.jit
    def score(params: PyTree, images: jax.Array) -> jax.Array:
        embeddings = VisionEncoder(config).apply({"params": params["clip"]}, pixels(images / 255.0, config.image_size))
        return AestheticHead().apply({"params": params["head"]}, embeddings)

    params = jax.device_put({"clip": encoder.params, "head": head_params})
    return lambda images, prompts: _in_batches(score, params, batch_size, coloured(images))


def similarity(clip: str | Path, batch_size: int = 32, variant: str = "") -> Reward:
    """Rewards the cosine of CLIP's embeddings of the image and of the prompt, in [-1, 1].

    Args:
      clip: the folder of a whole CLIP model with its tokenizer's files.
      batch_size: images that are scored at once.
      variant: of CLIP's weight files, such as "fp16".

    Raises:
      FileNotFoundError, ValueError: a file is missing, or not of such a model.
    """
    model, tokenizer = load_clip(clip, variant=variant), load_tokenizer(clip)
    size = model.config.vision_config.image_size

    @jax.jit
    def score(params: PyTree, images: jax.Array, tokens: jax.Array) -> jax.Array:
        of_images, of_texts, _ = CLIP(model.config).apply({"params": params}, tokens, pixels(images / 255.0, size))
        return optax.cosine_similarity(of_images, of_texts)

    params = jax.device_put(model.params)

    def scores(images: np.ndarray, prompts: Sequence[str]) -> np.ndarray:
        images = coloured(images)
        _check_number(images, prompts)
        return _in_batches(score, params, batch_size, images, tokenizer.encode(prompts))

    return scores


def vlm(url: str, batch_size: int = 16, timeout: float = 120.0, retries: int = 5) -> Reward:
    """Rewards the score of a vision-language model behind a URL; options and the server's protocol: see `vlm.py`.

    Raises:
      ValueError: the URL is none, or a number is out of its range.
    """
    check_options(url, batch_size, timeout, retries)

    def scores(images: np.ndarray, prompts: Sequence[str]) -> np.ndarray:
        _check_number(images, prompts)
        files = jpegs(images, QUALITY_SENT)
        return remote_scores(url, files, prompts, batch_size=batch_size, timeout=timeout, retries=retries)

    return scores


REWARDS: dict[str, Callable[..., Reward]] = {
    "compressibility": compressibility,
    "incompressibility": incompressibility,
    "aesthetic": aesthetic,
    "similarity": similarity,
    "vlm": vlm,
}


def jpegs(images: np.ndarray, quality: int) -> list[bytes]:
    """Encodes each image as a JPEG file of a quality, by Pillow, in threads, since Pillow releases Python's lock.

    Args:
      images: uint8 [B, H, W], grey, or [B, H, W, 3].

    Raises:
      ValueError: the images have another type or shape.
    """
    images = checked(images)
    pillow = require("PIL.Image", "generative")

    def encode(part: np.ndarray) -> list[bytes]:
        files = []
        for image in part:
            buffer = io.BytesIO()
            pillow.fromarray(image).save(buffer, "JPEG", quality=quality)
            files.append(buffer.getvalue())
        return files

    threads = os.cpu_count()
    if not _THREADS:
        _THREADS.append(ThreadPoolExecutor(threads, thread_name_prefix="jpeg"))
    # One part a thread: an image of 32 pixels takes 40 us, and submitting it another 10.
    parts = np.array_split(images, min(threads, max(len(images), 1)))
    return [file for files in _THREADS[0].map(encode, parts) for file in files]


def jpeg_sizes(images: np.ndarray) -> np.ndarray:
    """Returns the bytes of each image as a JPEG file of quality 95, int64 [B]; images and errors: see `jpegs`."""
    return np.fromiter(map(len, jpegs(images, QUALITY)), np.int64)


def checked(images: np.ndarray) -> np.ndarray:
    """Returns the images; raises ValueError if they are not uint8 [B, H, W] or [B, H, W, 3]."""
    images = np.asarray(images)
    if images.dtype != np.uint8 or not (images.ndim == 3 or images.ndim == 4 and images.shape[-1] == 3):
        raise ValueError(f"images are {images.dtype} {images.shape}: give uint8 [B, H, W] or [B, H, W, 3]")
    return images


def coloured(images: np.ndarray) -> np.ndarray:
    """Returns images that may be grey as uint8 [B, H, W, 3]; errors: see `checked`."""
    images = checked(images)
    return images if images.ndim == 4 else np.repeat(images[..., None], 3, -1)


def to_bytes(images: np.ndarray, scale: float, offset: float) -> np.ndarray:
    """Converts float images x to uint8: 255 (scale x + offset), clipped to the range of bytes and rounded.

    Raises:
      ValueError: a number is not finite.
    """
    images = np.asarray(images, np.float32)
    bad = ~np.isfinite(images)
    if bad.any():
        where = np.argwhere(bad)[0].tolist()
        raise ValueError(f"images{where} is {images[tuple(where)]} ({bad.sum()} such numbers): the model has diverged")
    return np.rint(np.clip(255.0 * (scale * images + offset), 0.0, 255.0)).astype(np.uint8)


def _check_number(images: np.ndarray, prompts: Sequence[str]) -> None:
    if isinstance(prompts, str) or len(prompts) != len(images):
        given = repr(prompts) if isinstance(prompts, str) else f"{len(prompts)} prompts"
        raise ValueError(f"{len(images)} images and {given}: give a list with one prompt for each image")


def _in_batches(score: Callable[..., jax.Array], params: PyTree, batch_size: int, *rows: np.ndarray) -> np.ndarray:
    """Returns score(params, *rows), float32 [B], by batches of one size, to compile once; the last is padded."""
    number = len(rows[0])
    scores = np.empty(number, np.float32)
    for start in range(0, number, batch_size):
        here = np.arange(start, start + batch_size)
        batch = score(params, *(x[np.minimum(here, number - 1)] for x in rows))
        scores[start : start + batch_size] = np.asarray(batch)[: number - start]
    return scores
