"""What a policy is held near: the parameters that a reference takes, and how they follow the policy.

    frozen      what training started from
    previous    the policy at the end of the last round
    ema         a moving average of the policy

An average of several models (`soup`) and a model without its adapters (`adapters_off`) are frozen anchors too.
"""

from collections.abc import Sequence

import jax
import jax.numpy as jnp

from rl_jax.core.config import unknown
from rl_jax.core.program import PyTree
from rl_jax.networks.lora import apply_lora

ANCHORS = ("frozen", "previous", "ema")


def next_anchor(kind: str, anchor: PyTree, policy: PyTree, decay: float = 0.99) -> PyTree:
    """The anchor after a round.

    Args:
      kind: one of ANCHORS.
      anchor: of the round that ends.
      policy: at its end.
      decay: the share of the anchor that stays, of "ema" alone.

    Raises:
      ValueError: the kind is unknown.
    """
    if kind == "frozen":
        return anchor
    if kind == "previous":
        return jax.tree.map(jnp.copy, policy)
    if kind == "ema":
        return jax.tree.map(lambda old, new: (decay * old + (1.0 - decay) * new).astype(old.dtype), anchor, policy)
    raise ValueError(unknown("anchor", kind, ANCHORS))


def soup(models: Sequence[PyTree]) -> PyTree:
    """The mean of the parameters of several models, in float32 whatever they have.

    Source: model soups (Wortsman et al. 2022, arXiv 2203.05482); as an anchor, SALSA (Chegini et al. 2024, arXiv
    2411.01798).
    """
    return jax.tree.map(lambda *leaves: sum(x.astype(jnp.float32) for x in leaves) / len(leaves), *models)


def adapters_off(pretrained: PyTree, adapters: PyTree, alpha: float) -> PyTree:
    """A model with adapters of zero: what it was before any were trained."""
    return apply_lora(pretrained, jax.tree.map(jnp.zeros_like, adapters), alpha)
