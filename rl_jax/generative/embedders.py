"""What turns pictures into vectors whose cosines say how alike they are, and the nearest of a table of pictures.

RLZero (Sikchi et al. 2024, arXiv 2412.05718) uses SigLIP, pretrained on images and text of the web. `clip` reads the
image encoder of such a model, CLIP's, from a local folder. The others are stand-ins for it that know nothing but the
agent's own pictures: `random_conv`, random convolutions and PCA; `contrastive`, trained convolutions; and `pixels`.
"""

from collections.abc import Callable, Sequence
from pathlib import Path

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from rl_jax.core.config import unknown
from rl_jax.generative.clip import VisionEncoder, pixels, unit
from rl_jax.generative.pretrained import load_vision_encoder
from rl_jax.networks.convolution import Conv
from rl_jax.networks.initializers import orthogonal
from rl_jax.networks.model_file import load_model

# uint8 pictures [N, H, W, 3] -> vectors [N, K] of length 1
Embedder = Callable[[np.ndarray], np.ndarray]

EMBEDDERS = ("random_conv", "contrastive", "pixels", "clip")
AT_ONCE = 512  # pictures that are embedded at once
COMPONENTS = 64  # of the PCA
OVERSAMPLED, POWER = 16, 6  # further directions, and iterations, that find them
KIND, ENCODER = "picture encoder", "encoder.npz"


class PictureEncoder(nn.Module):
    """Two 3x3 convolutions of stride 2 with ReLUs, and a dense layer: centred pictures [N, H, W, 3] -> [N, width].

    Attributes:
      width: of the dense layer; 0 hands out the features of the convolutions.
    """

    width: int = 64

    @nn.compact
    def __call__(self, pictures: jax.Array) -> jax.Array:
        x = pictures
        for features in (16, 32):
            x = nn.relu(Conv(features, (3, 3), (2, 2), padding=1, **orthogonal()(9 * x.shape[-1]))(x))
        x = x.reshape(len(x), -1)
        return nn.Dense(self.width, **orthogonal()(x.shape[-1]))(x) if self.width else x


def make_embedder(name: str, pictures: np.ndarray, path: str = "") -> Embedder:
    """One of EMBEDDERS.

    Args:
      pictures: uint8 [N, H, W, 3], the agent's own: what `random_conv` fits its PCA to, and the size of all.
      path: `clip`: the folder of a CLIP model or of its image encoder (config.json and safetensors). `contrastive`: the
        folder in which a run of the encoder left ENCODER.

    Raises:
      ValueError: there is no such embedder, or a file is not of this model.
      FileNotFoundError: a file is missing.
    """
    if name not in EMBEDDERS:
        raise ValueError(unknown("embedder in config.embedder.name", name, EMBEDDERS))
    if name in ("clip", "contrastive") and not path:
        raise ValueError(f"config.embedder.path is empty: {name} needs a folder")
    if name == "pixels":
        return lambda pictures: np.asarray(unit(pictures.reshape(len(pictures), -1) / 255.0 - 0.5))
    if name == "clip":
        encoder = load_vision_encoder(path)
        size = encoder.config.image_size
        return in_batches(
            lambda images: VisionEncoder(encoder.config).apply({"params": encoder.params}, pixels(images, size))
        )
    if name == "contrastive":
        file = Path(path).expanduser() / ENCODER
        params = load_model(file, KIND, domain(pictures), lambda key: init_encoder(key, pictures))
        mean = mean_picture(pictures)
        return in_batches(lambda images: PictureEncoder().apply(params, images - mean))
    module = PictureEncoder(0)
    params = module.init(jax.random.key(0), pictures[:1] / 255.0)
    features = in_batches(lambda images: module.apply(params, images - 0.5), normalise=False)
    mean, axes = principal_axes(features(pictures), COMPONENTS)
    return in_batches(lambda images: (module.apply(params, images - 0.5) - mean) @ axes)


def init_encoder(key: jax.Array, pictures: np.ndarray) -> dict:
    """Fresh parameters of the `contrastive` encoder for pictures of this size."""
    return PictureEncoder().init(key, jnp.zeros((1, *pictures.shape[1:])))


def mean_picture(pictures: np.ndarray) -> np.ndarray:
    """[H, W, 3] in [0, 1], of uint8 pictures [N, H, W, 3]: the background, where bodies are small."""
    return (pictures.mean(0) / 255.0).astype(np.float32)


def domain(pictures: np.ndarray) -> str:
    """What a file of parameters says of the pictures that it is for."""
    return "x".join(map(str, pictures.shape[1:]))


def in_batches(encode: Callable[[jax.Array], jax.Array], normalise: bool = True) -> Embedder:
    """`encode`, of pictures in [0, 1], as an embedder of any number of uint8 pictures."""
    compiled = jax.jit(lambda images: unit(encode(images / 255.0)) if normalise else encode(images / 255.0))

    def embed(pictures: np.ndarray) -> np.ndarray:
        count = len(pictures)
        batch = min(AT_ONCE, count)
        padded = np.pad(pictures, ((0, -count % batch), (0, 0), (0, 0), (0, 0)))  # one shape, so one compilation
        parts = [np.asarray(compiled(padded[i : i + batch])) for i in range(0, len(padded), batch)]
        return np.concatenate(parts)[:count]

    return embed


def principal_axes(rows: np.ndarray, components: int) -> tuple[np.ndarray, np.ndarray]:
    """(mean [F], the axes of the largest variances [F, components]) of rows [N, F], where F may be thousands.

    By a random start and power iterations (Halko, Martinsson and Tropp 2011, arXiv 0909.4061, algorithm 4.4).
    """
    mean = rows.mean(0)
    centred, axes = rows - mean, np.random.default_rng(0).normal(size=(rows.shape[1], components + OVERSAMPLED))
    for _ in range(POWER):
        axes, _ = np.linalg.qr(centred.T @ (centred @ axes.astype(rows.dtype)))
    _, _, within = np.linalg.svd(centred @ axes, full_matrices=False)
    return mean, (axes @ within.T)[:, :components]


def stacked(vectors: np.ndarray, starts: Sequence[int], window: int) -> np.ndarray:
    """Each vector beside the `window` - 1 before it, [N, window K], normalised: what tells how things move.

    Args:
      vectors: [N, K], in time.
      starts: where episodes begin; before an episode's first vector that one is repeated.
    """
    first = np.zeros(len(vectors), int)
    first[np.asarray(starts)] = np.asarray(starts)
    first = np.maximum.accumulate(first)
    rows = [np.maximum(np.arange(len(vectors)) - back, first) for back in range(window)]
    return np.asarray(unit(np.concatenate([vectors[row] for row in rows], -1)))


def nearest(queries: np.ndarray, table: np.ndarray) -> np.ndarray:
    """Of each query [L, K] the row of the table [N, K] of the largest cosine, int [L]; both are of length 1."""
    return np.concatenate([(part @ table.T).argmax(1) for part in np.array_split(queries, -(-len(queries) // 256))])
