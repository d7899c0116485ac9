"""Losses of discriminators c between an expert's samples and other data, given by their logits log c / (1 - c)."""

import chex
import jax
import jax.numpy as jnp
import optax

from rl_jax.losses.divergence import Function


def binary_cross_entropy(expert_logits: jax.Array, offline_logits: jax.Array) -> jax.Array:
    """-E_expert[log c] - E_offline[log(1 - c)]: logits [E] and [S] -> scalar.

    The best logit is log p_expert / p_offline, whatever the sizes of the two batches.
    Source: the GAN's discriminator (Goodfellow et al. 2014, arXiv 1406.2661), equation 1.
    """
    chex.assert_rank([expert_logits, offline_logits], 1)
    return jnp.mean(jax.nn.softplus(-expert_logits)) + jnp.mean(jax.nn.softplus(offline_logits))


def positive_unlabelled_loss(expert_logits: jax.Array, offline_logits: jax.Array, positive_share: float) -> jax.Array:
    """eta (E_expert[-log c] - E_expert[-log(1 - c)]) + E_offline[-log(1 - c)]: logits [E] and [S] -> scalar.

    It is the cross entropy between experts, of weight eta, and what the offline data hold beside experts, of weight
    1 - eta: a share eta of the offline data is taken to be as good as the expert. Its term of the expert is linear in
    the logits, so that it has no lower bound where the two batches can be told apart: regularise the discriminator.

    Args:
      positive_share: eta in [0, 1).

    Source: ORIL (Zolna et al. 2020, arXiv 2011.13885), its loss of positive-unlabelled learning; the risk estimator is
    du Plessis et al.'s (2015).
    """
    chex.assert_rank([expert_logits, offline_logits], 1)
    positive = jnp.mean(jax.nn.softplus(-expert_logits)) - jnp.mean(jax.nn.softplus(expert_logits))
    return positive_share * positive + jnp.mean(jax.nn.softplus(offline_logits))


def gradient_penalty(logits: Function, expert: jax.Array, offline: jax.Array, mix: jax.Array) -> jax.Array:
    """Mean of (|d logit / dx| - 1)^2 at x = mix * expert + (1 - mix) * offline: a slope of 1 between the two.

    Args:
      logits: the discriminator, inputs [B, I] -> logits [B], row by row.
      expert, offline: [B, I].
      mix: [B], uniform draws in [0, 1).

    Source: WGAN-GP (Gulrajani et al. 2017, arXiv 1704.00028), equation 3.
    """
    chex.assert_rank([expert, offline, mix], [2, 2, 1])
    chex.assert_equal_shape([expert, offline])
    chex.assert_equal_shape_prefix([expert, mix], 1)
    between = mix[:, None] * expert + (1.0 - mix[:, None]) * offline
    slopes = jax.grad(lambda inputs: jnp.sum(logits(inputs)))(between)
    # The plain norm has no derivative at 0, where a ReLU network can be flat.
    return jnp.mean(jnp.square(optax.safe_norm(slopes, 0.0, axis=-1) - 1.0))
