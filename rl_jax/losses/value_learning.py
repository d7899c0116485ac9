"""Targets and losses of value functions. All are unreduced: a mean, a mask or a sum over an ensemble is the caller's.

A step leads from s_{t-1} to s_t. `r_t` is its reward, `mask_t` is 0 where s_t is terminal and 1 elsewhere (also at a
time-out), and `v_t` is a value of s_t. Errors are targets less predictions.
"""

import chex
import jax
import jax.numpy as jnp

from rl_jax.losses.divergence import Function


def td_target(r_t: jax.Array, mask_t: jax.Array, v_t: jax.Array, discount: float) -> jax.Array:
    """r_t + discount * mask_t * v_t, [B]: what one step bootstraps from the next state's value.

    Gradients flow through it. A semi-gradient method takes `v_t` outside of what it differentiates, as of target
    networks, or stops the gradient itself.

    Args:
      r_t: [B].
      mask_t: [B].
      v_t: [B], V(s_t) or a backup over Q(s_t, .).
      discount: gamma in [0, 1].

    Source: Sutton and Barto 2018, "Reinforcement Learning", equation 6.2.
    """
    chex.assert_rank(r_t, 1)
    chex.assert_equal_shape([r_t, mask_t, v_t])
    chex.assert_type([r_t, mask_t, v_t], float)
    return r_t + discount * mask_t * v_t


def values_of_actions(q: jax.Array, actions: jax.Array) -> jax.Array:
    """Q(s, a), [...], of the values of all actions q [..., A] and of whole numbers actions [...] that broadcast to it.
    """
    chex.assert_type([q, actions], [float, int])
    # A product with a one-hot vector: the gradient of an index is a scatter, which is slow everywhere.
    return jnp.sum(q * jax.nn.one_hot(actions, q.shape[-1]), -1)


def squared_error(predictions: jax.Array, targets: jax.Array) -> jax.Array:
    """(target - prediction)^2, [B] or [N, B], of predictions [B] or of an ensemble's [N, B], and of targets [B]."""
    chex.assert_rank(targets, 1)
    chex.assert_equal_shape_suffix([predictions, targets], 1)
    chex.assert_type([predictions, targets], float)
    return jnp.square(predictions - targets)


def expectile_loss(errors: jax.Array, expectile: float) -> jax.Array:
    """|expectile - 1(u < 0)| u^2, [B], of errors u = target - prediction, [B].

    The minimiser of its mean is the expectile of the targets; 0.5 gives half the squared error.
    Source: IQL (Kostrikov et al. 2021, arXiv 2110.06169), equation 5 in section 4.1.
    """
    chex.assert_rank(errors, 1)
    chex.assert_type(errors, float)
    weights = jnp.where(errors > 0, expectile, 1.0 - expectile)
    return weights * jnp.square(errors)


def gumbel_loss(
    errors: jax.Array, beta: float, max_clip: float, scaled: bool = True, beside: jax.Array | None = None
) -> jax.Array:
    """exp(-m) (exp(z) - z - 1), [B], with z = min(u / beta, max_clip) of errors u = target - prediction, [B].

    Where nothing is clipped the gradient of its mean vanishes at the prediction beta log mean exp(target / beta): the
    mean of the targets for a large beta, their maximum for a small one. Two stabilisers keep exp(z) from overflowing:

    - m = max(max z, -1) over the batch, a constant for the gradient. The whole gradient is scaled by exp(-m): its
      direction stays and its size changes from batch to batch, so losses of different batches do not compare.
    - max_clip. An error above beta * max_clip has no gradient at all: it no longer pulls the prediction up, which
      settles lower, where the other errors alone put it. If every error is that large, nothing moves.

    Args:
      errors: [B].
      beta: temperature above 0, in the unit of the errors.
      max_clip: the largest u / beta that still counts; infinity for no clip.
      scaled: whether exp(-m) stands before the loss; without it exp(z) overflows in float32 above z = 88.
      beside: [M], errors that count for m alone (ReCOIL's code: the expert's half of a batch).

    Source: XQL (Garg et al. 2023, arXiv 2301.02328), equation 11 and the appendix on numeric stability. The paper's
    listing clips at -max_clip too; the authors' code, which is followed here, does not.
    """
    chex.assert_rank(errors, 1)
    chex.assert_type(errors, float)
    z = jnp.minimum(errors / beta, max_clip)
    if not scaled:
        return jnp.exp(z) - z - 1.0
    largest = jnp.max(z) if beside is None else jnp.maximum(jnp.max(z), jnp.minimum(jnp.max(beside) / beta, max_clip))
    m = jax.lax.stop_gradient(jnp.maximum(largest, -1.0))
    return jnp.exp(z - m) - z * jnp.exp(-m) - jnp.exp(-m)


def implicit_maximum_loss(errors: jax.Array, surrogate: Function, lam: float) -> jax.Array:
    """f-DVL's loss of V: lam h(u) - (1 - lam) u, [B], of errors u = Q(s, a) - V(s), [B].

    It is the dual loss of V with d_0 replaced by the data's states and Q held fixed (so (1 - lam) E[V] is
    -(1 - lam) E[u] but for a constant). Larger lam puts V nearer to the maximum of Q over the data's actions.

    Args:
      errors: [B].
      surrogate: h, of `rl_jax.losses.divergence.SURROGATES`.
      lam: in (0, 1); total variation has no minimum at 1/2 and below.

    Source: Dual RL (Sikchi et al. 2023, arXiv 2302.08560), f-DVL; the sign and the scale are those of the authors'
    code.
    """
    chex.assert_rank(errors, 1)
    chex.assert_type(errors, float)
    return lam * surrogate(errors) - (1.0 - lam) * errors
