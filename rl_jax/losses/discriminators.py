"""Losses of discriminators c between an expert's samples and other data, given by their logits log c / (1 - c).

The two batches may differ in size, so every loss is a sum of means over one of them and returns (loss, info).
"""

import chex
import jax
import jax.numpy as jnp
import optax

from rl_jax.losses.divergence import Function

Info = dict[str, jax.Array]  # scalars by the names of metrics


def binary_cross_entropy(expert_logits: jax.Array, offline_logits: jax.Array) -> tuple[jax.Array, Info]:
    """-E_expert[log c] - E_offline[log(1 - c)], means over both batches.

    The best logit is log p_expert / p_offline, whatever the sizes of the two batches.

    Args:
      expert_logits: [E].
      offline_logits: [S].

    Returns:
      (scalar loss, info): `discriminator/cross_entropy`, the loss itself.

    Source: the GAN's discriminator (Goodfellow et al. 2014, arXiv 1406.2661), equation 1.
    """
    chex.assert_rank([expert_logits, offline_logits], 1)
    chex.assert_type([expert_logits, offline_logits], float)
    loss = jnp.mean(jax.nn.softplus(-expert_logits)) + jnp.mean(jax.nn.softplus(offline_logits))
    return loss, {"discriminator/cross_entropy": loss}


def positive_unlabelled_loss(
    expert_logits: jax.Array, offline_logits: jax.Array, positive_share: float
) -> tuple[jax.Array, Info]:
    """eta (E_expert[-log c] - E_expert[-log(1 - c)]) + E_offline[-log(1 - c)], means over both batches.

    It is the cross entropy between experts, of weight eta, and what the offline data hold beside experts, of weight
    1 - eta: a share eta of the offline data is taken to be as good as the expert. Its term of the expert is linear in
    the logits, so that it has no lower bound where the two batches can be told apart: regularise the discriminator.

    Args:
      expert_logits: [E].
      offline_logits: [S].
      positive_share: eta in [0, 1).

    Returns:
      (scalar loss, info): `discriminator/cross_entropy`, the loss itself.

    Source: ORIL (Zolna et al. 2020, arXiv 2011.13885), its loss of positive-unlabelled learning; the risk estimator is
    du Plessis et al.'s (2015).
    """
    chex.assert_rank([expert_logits, offline_logits], 1)
    chex.assert_type([expert_logits, offline_logits], float)
    positive = jnp.mean(jax.nn.softplus(-expert_logits)) - jnp.mean(jax.nn.softplus(expert_logits))
    loss = positive_share * positive + jnp.mean(jax.nn.softplus(offline_logits))
    return loss, {"discriminator/cross_entropy": loss}


def gradient_penalty(
    logits: Function, expert: jax.Array, offline: jax.Array, mix: jax.Array
) -> tuple[jax.Array, Info]:
    """Mean over rows of (|d logit / dx| - 1)^2 at x = mix * expert + (1 - mix) * offline: a slope of 1 between the two.

    Args:
      logits: the discriminator, inputs [B, I] -> logits [B], row by row.
      expert: [B, I].
      offline: [B, I].
      mix: [B], uniform draws in [0, 1).

    Returns:
      (scalar loss, info): `discriminator/slope`, the mean of |d logit / dx|.

    Source: WGAN-GP (Gulrajani et al. 2017, arXiv 1704.00028), equation 3.
    """
    chex.assert_rank([expert, offline, mix], [2, 2, 1])
    chex.assert_equal_shape([expert, offline])
    chex.assert_equal_shape_prefix([expert, mix], 1)
    chex.assert_type([expert, offline, mix], float)
    between = mix[:, None] * expert + (1.0 - mix[:, None]) * offline
    slopes = jax.grad(lambda inputs: jnp.sum(logits(inputs)))(between)
    # The plain norm has no derivative at 0, where a ReLU network can be flat.
    norms = optax.safe_norm(slopes, 0.0, axis=-1)
    return jnp.mean(jnp.square(norms - 1.0)), {"discriminator/slope": jnp.mean(norms)}
