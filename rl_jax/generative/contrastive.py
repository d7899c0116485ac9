"""The contrastive loss that trains CLIP: it pulls an image to its caption and away from the others of a batch.

Radford et al. 2021 (CLIP), arXiv 2103.00020, section 2.3 and figure 3; the loss of one direction is InfoNCE of van den
Oord et al. 2018, arXiv 1807.03748, equation 4.
"""

import math

import chex
import jax
import jax.numpy as jnp
import optax

from rl_jax.generative.clip import unit

Info = dict[str, jax.Array]
MAX_LOGIT_SCALE = math.log(100.0)


def contrastive_loss(
    image_embeddings: jax.Array, text_embeddings: jax.Array, logit_scale: jax.Array
) -> tuple[jax.Array, Info]:
    """Computes the mean cross entropy of finding each image's text and each text's image within the batch.

    Args:
      image_embeddings, text_embeddings: [B, D], of any length; row i of one belongs to row i of the other, and all
        other rows are negatives, so a batch should hold no text twice.
      logit_scale: [], the logarithm of the scale of the cosines. Above log 100 it acts as log 100, but keeps its
        gradient, so that it can fall again.

    Returns:
      (loss, info) with `contrastive/accuracy`, how often the closest text is the image's own, and `contrastive/scale`.
    """
    chex.assert_rank([image_embeddings, text_embeddings, logit_scale], [2, 2, 0])
    chex.assert_equal_shape([image_embeddings, text_embeddings])
    logit_scale = logit_scale - jax.lax.stop_gradient(jnp.maximum(logit_scale - MAX_LOGIT_SCALE, 0.0))
    scale = jnp.exp(logit_scale)
    logits = scale * unit(image_embeddings) @ unit(text_embeddings).T
    own = jnp.arange(len(logits))
    of_images, of_texts = (
        optax.softmax_cross_entropy_with_integer_labels(rows, own).mean() for rows in (logits, logits.T)
    )
    loss = (of_images + of_texts) / 2
    accuracy = jnp.mean(jnp.argmax(logits, -1) == own)
    return loss, {"contrastive/loss": loss, "contrastive/accuracy": accuracy, "contrastive/scale": scale}
