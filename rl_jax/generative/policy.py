"""The multistep sampler of an image model as a policy, whose actions are Gaussian with known densities.

Oertell, Chang, Zhang, Brantley and Sun 2024, "RL for Consistency Models" (RLCM), arXiv 2404.03673, section 4; Black,
Janner, Du, Kostrikov and Levine 2023, "Training Diffusion Models with Reinforcement Learning" (DDPO), arXiv 2305.13301,
section 4.

A state is a noisy image x at a noise level, the action is the next noisy image, and the reward at the end is that of
the clean image that the model makes of the last state. RLCM and DDPO differ only in the step. With y the model's clean
image of x, both draw the next image from

    N(y + carry (x - y), std^2),

where RLCM carries nothing of x and adds all the noise of the next level, and DDPO carries the part of x that an
ancestral step of a diffusion sampler (DDIM with eta = 1) carries.

An episode of RLCM may make n of its sampler's K calls, spread evenly from the first: its calls i = 0, ..., n - 1 are at
the levels i K // n. The authors make all K in training. n is an array, so that shapes stay.
"""

from collections.abc import Callable
from typing import NamedTuple

import chex
import jax
import jax.numpy as jnp
import numpy as np

from rl_jax.core.program import Key, PyTree
from rl_jax.generative.denoising import Denoise, per_image

REDUCTIONS = ("mean", "sum")


class Sampler(NamedTuple):
    """A sampler that makes K calls of a model and takes H steps between or after them.

    Attributes:
      denoise: see `denoising.Denoise`.
      levels: float32 [K], the noise levels, falling; an episode starts with noise of the first level.
      carries: float32 [H], see the module.
      stds: float32 [H], above 0. H is K - 1, or K where a last step is drawn that does not enter the image.
      reduction: "mean" or "sum" of a log-density over an image's numbers. The authors take the mean, which makes ratios
        nearly 1; their clip of 1e-4 is meant for it.
    """

    denoise: Denoise
    levels: np.ndarray
    carries: np.ndarray
    stds: np.ndarray
    reduction: str = "mean"


class Trajectory(NamedTuple):
    """The trajectories of B episodes.

    Attributes:
      states: [H, B, ...], noisy images.
      actions: [H, B, ...], the next noisy images.
      log_probs: [H, B], of the actions.
      final: [B, ...], the clean images.
      num_calls: int32 [B], the calls that each episode made; see `taken` for its steps. None of a policy without calls.
    """

    states: jax.Array
    actions: jax.Array
    log_probs: jax.Array
    final: jax.Array
    num_calls: jax.Array | None = None


def consistency_sampler(
    denoise: Denoise, levels: np.ndarray, sigma_min: float, *, last_step: bool = True, reduction: str = "mean"
) -> Sampler:
    """Makes RLCM's sampler, x' = f(x, t) + sqrt(t'^2 - sigma_min^2) noise (Consistency Models, algorithm 1).

    Args:
      levels: [K], falling, above `sigma_min`.
      last_step: whether to draw and train on a step of the last level's noise after the last call, as the authors'
        code does, although the image is the output of that call: it adds noise of zero mean to the gradient.
    """
    levels = _checked(levels, sigma_min, reduction)
    following = np.concatenate([levels[1:], levels[-1:]]) if last_step else levels[1:]
    stds = np.sqrt(np.square(following) - sigma_min**2)
    return Sampler(denoise, levels, np.zeros_like(stds), stds, reduction)


def ancestral_sampler(denoise: Denoise, levels: np.ndarray, *, reduction: str = "mean") -> Sampler:
    """Makes DDPO's sampler, the step of DDIM with eta = 1 in the notation x_t = x_0 + t noise.

    With t' the next level, the added noise has std^2 = t'^2 (t^2 - t'^2) / t^2. The old noise x - y has std t, and its
    share carry = sqrt(t'^2 - std^2) / t = t'^2 / t^2 stays, so that both together have std t'.

    Source: Song, Meng and Ermon 2021, arXiv 2010.02502, equations 12 and 16.
    """
    levels = _checked(levels, 0.0, reduction)
    before, after = np.square(levels[:-1]), np.square(levels[1:])
    return Sampler(denoise, levels, after / before, np.sqrt(after * (before - after) / before), reduction)


def _checked(levels: np.ndarray, sigma_min: float, reduction: str) -> np.ndarray:
    levels = np.asarray(levels, np.float32)
    if levels.ndim != 1 or len(levels) < 2 or levels[-1] <= sigma_min or (np.diff(levels) >= 0).any():
        raise ValueError(f"levels are {levels.tolist()}: give at least two, falling, all above {sigma_min}")
    if reduction not in REDUCTIONS:
        raise ValueError(f"reduction is {reduction!r}: choose {' or '.join(REDUCTIONS)}")
    return levels


def random_calls(sampler: Sampler, fewest: int) -> Callable[[Key, int], jax.Array]:
    """Returns (key, B) -> the number of calls of B episodes, int32 [B], the same for all of them.

    It is from `fewest` to K, all equally likely, or always K where `fewest` is 0. Rewards depend on it: normalised by
    each other, episodes of different numbers would mostly say which number was drawn.

    Raises:
      ValueError: one call has no action that an image comes from, or fewer calls are another policy's.
    """
    most = len(sampler.levels)
    if fewest and (not 2 <= fewest <= most or np.any(sampler.carries)):
        raise ValueError(f"model.fewest_calls={fewest}: give 0, or of a consistency model 2 to num_calls={most}")
    return lambda key, size: jnp.full(size, jax.random.randint(key, (), fewest or most, most + 1))


def taken(sampler: Sampler, steps: jax.Array, num_calls: jax.Array) -> jax.Array:
    """Returns whether episodes of so many calls take their steps, bool [B]: K calls take all H."""
    return steps < num_calls - len(sampler.levels) + len(sampler.stds)


def levels_and_stds(
    sampler: Sampler, steps: jax.Array, num_calls: jax.Array | int | None
) -> tuple[jax.Array, jax.Array]:
    """Returns the levels of the calls of steps [B] and the stds of their actions, both [B]."""
    most = len(sampler.levels)
    num_calls = most if num_calls is None else num_calls
    at, following = (jnp.minimum(steps + ahead, num_calls - 1) * most // num_calls for ahead in (0, 1))
    # An action has the std of the level that it goes to, which after the last call is the last level again.
    return jnp.asarray(sampler.levels)[at], jnp.asarray(sampler.stds)[following - 1]


def gaussian_log_prob(actions: jax.Array, means: jax.Array, stds: jax.Array, reduction: str) -> jax.Array:
    """Returns log N(actions; means, stds^2) [B], summed or averaged over each image's numbers.

    Args:
      actions, means: [B, ...].
      stds: [B].
    """
    chex.assert_equal_shape([actions, means])
    axes, stds = tuple(range(1, actions.ndim)), per_image(stds, actions)
    terms = -0.5 * jnp.square((actions - means) / stds) - jnp.log(stds) - 0.5 * jnp.log(2.0 * jnp.pi)
    return jnp.mean(terms, axes) if reduction == "mean" else jnp.sum(terms, axes)


def step_mean(
    sampler: Sampler, params: PyTree, states: jax.Array, steps: jax.Array, condition: PyTree,
    num_calls: jax.Array | None = None,
) -> jax.Array:
    """Returns the mean of the next images [B, ...], given states [B, ...] at steps [B] int32.

    Args:
      num_calls: int32 [B], of the rows' episodes; None for all K.
    """
    clean = sampler.denoise(params, states, levels_and_stds(sampler, steps, num_calls)[0], condition)
    return clean + per_image(jnp.asarray(sampler.carries)[steps], states) * (states - clean)


def log_prob(
    sampler: Sampler, params: PyTree, states: jax.Array, actions: jax.Array, steps: jax.Array, condition: PyTree,
    num_calls: jax.Array | None = None,
) -> jax.Array:
    """Returns the log-densities [B] of actions [B, ...] in states [B, ...] at steps [B] int32; see `step_mean`."""
    means = step_mean(sampler, params, states, steps, condition, num_calls)
    return gaussian_log_prob(actions, means, levels_and_stds(sampler, steps, num_calls)[1], sampler.reduction)


def sample(
    sampler: Sampler, params: PyTree, shape: tuple[int, ...], condition: PyTree, key: Key,
    num_calls: jax.Array | None = None,
) -> Trajectory:
    """Samples episodes of images of a shape [B, ...]; leaves of `condition` are [B, ...]; see `step_mean`."""
    start_key, noise_key = jax.random.split(key)
    steps, batch = len(sampler.stds), shape[0]
    num_calls = jnp.full(batch, len(sampler.levels)) if num_calls is None else num_calls
    noise = jax.random.normal(noise_key, (steps, *shape))
    start = sampler.levels[0] * jax.random.normal(start_key, shape)

    def one_step(carry: tuple[jax.Array, jax.Array], inputs: tuple[jax.Array, jax.Array]) -> tuple[tuple, tuple]:
        (states, _), (step, noise) = carry, inputs
        at = jnp.full(batch, step)
        means = step_mean(sampler, params, states, at, condition, num_calls)
        stds = levels_and_stds(sampler, at, num_calls)[1]
        actions = means + per_image(stds, means) * noise
        goes_on = per_image(taken(sampler, at, num_calls), states)
        carry = jax.tree.map(lambda new, old: jnp.where(goes_on, new, old), (actions, means), carry)
        return carry, (states, actions, gaussian_log_prob(actions, means, stds, sampler.reduction))

    carry, (states, actions, log_probs) = jax.lax.scan(one_step, (start, start), (jnp.arange(steps), noise))
    after, final = carry
    if steps < len(sampler.levels):  # otherwise the mean of the last step is the image of the last call
        final = sampler.denoise(params, after, levels_and_stds(sampler, num_calls - 1, num_calls)[0], condition)
    return Trajectory(states, actions, log_probs, final, num_calls)


def kl_to_reference(
    sampler: Sampler, params: PyTree, reference: PyTree, states: jax.Array, steps: jax.Array, condition: PyTree,
    num_calls: jax.Array | None = None,
) -> jax.Array:
    """Returns the KL divergence [B] of the next images' distribution from that of reference parameters.

    Both have the same std, so it is |mean - mean_reference|^2 / (2 std^2), reduced as log-densities are.

    Source: Fan et al. 2023 (DPOK), arXiv 2305.16381.
    """
    means, wanted = (step_mean(sampler, own, states, steps, condition, num_calls) for own in (params, reference))
    stds = per_image(levels_and_stds(sampler, steps, num_calls)[1], states)
    terms = 0.5 * jnp.square((means - jax.lax.stop_gradient(wanted)) / stds)
    axes = tuple(range(1, states.ndim))
    return jnp.mean(terms, axes) if sampler.reduction == "mean" else jnp.sum(terms, axes)
