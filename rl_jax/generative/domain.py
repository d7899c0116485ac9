"""A domain: images with prompts, the network that generates them, and frozen networks that decode and judge them."""

from collections.abc import Callable
from typing import NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from ml_collections import ConfigDict

from rl_jax.core.config import unknown
from rl_jax.core.program import Key, PyTree
from rl_jax.generative.consistency import SIGMA_DATA, SIGMA_MIN
from rl_jax.generative.denoising import Denoise, geometric_levels, scaled
from rl_jax.generative.policy import Sampler, ancestral_sampler, consistency_sampler

KINDS = ("consistency", "diffusion")
ALIGNMENT = "alignment"  # the reward that the device computes: Domain.similarity of an image and its own prompt


class Domain(NamedTuple):
    """Attributes:
    images: float32 [N, ...], images or their latents, with mean 0 and standard deviation SIGMA_DATA.
    prompts: int32 [N], the index of each image's prompt.
    names: the P prompts.
    conditions: [P, ...], the network's input for each prompt.
    module: the network, called with (images [B, ...], noise labels [B], conditions [B, ...]).
    frozen: the parameters of the networks that never train here; the functions below take them as an argument.
    decode: (frozen, generated images [B, ...]) -> pixels [B, H, W] or [B, H, W, 3], nominally in [0, 1].
    render: pixels -> uint8 images, as rewards and files see them.
    similarity: (frozen, generated images [B, ...]) -> how well each image matches each prompt [B, P]; may be a reward.
    judge: (frozen, generated images [B, ...]) -> log-probabilities of the prompts [B, P] by an independent classifier,
      which saw neither the generator nor the rewards.
    """

    images: np.ndarray
    prompts: np.ndarray
    names: tuple[str, ...]
    conditions: np.ndarray
    module: nn.Module
    frozen: PyTree
    decode: Callable[[PyTree, jax.Array], jax.Array]
    render: Callable[[np.ndarray], np.ndarray]
    similarity: Callable[[PyTree, jax.Array], jax.Array]
    judge: Callable[[PyTree, jax.Array], jax.Array]

    def init(self, key: Key) -> PyTree:
        """Returns fresh parameters of the network."""
        return self.module.init(key, jnp.asarray(self.images[:1]), jnp.zeros(1), jnp.asarray(self.conditions[:1]))

    def denoise(self, kind: str) -> Denoise:
        """Returns the model of a kind: a consistency function, the identity at SIGMA_MIN, or a diffusion denoiser.

        Its condition is the index of the prompt, int32 [B].
        """
        if kind not in KINDS:
            raise ValueError(unknown("model.kind", kind, KINDS))

        def network(params: PyTree, x: jax.Array, labels: jax.Array, prompts: jax.Array) -> jax.Array:
            return self.module.apply(params, x, labels, jnp.asarray(self.conditions)[prompts])

        return scaled(network, SIGMA_DATA, SIGMA_MIN if kind == "consistency" else 0.0)

    def sampler(self, model: ConfigDict) -> Sampler:
        """Returns the sampler of `config.model`: RLCM's for a consistency model, DDPO's for a diffusion model."""
        levels, denoise = geometric_levels(model.num_calls, model.sigma_min, model.sigma_max), self.denoise(model.kind)
        if model.kind == "consistency":
            return consistency_sampler(
                denoise, levels, SIGMA_MIN, last_step=model.last_step, reduction=model.reduction
            )
        return ancestral_sampler(denoise, levels, reduction=model.reduction)
