"""Transitions: a set or a batch of single environment steps, and the sampler that draws batches on the device."""

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np

from rl_jax.core.program import PyTree
from rl_jax.data.checks import check_actions, check_all, check_dtype, check_finite, check_shape


@flax.struct.dataclass
class Transitions:
    """N environment steps (a whole data set or one batch); every array is float32.

    `masks` is 1 - terminal: 0 where the environment ended, 1 everywhere else, also at a time-out.
    """

    observations: jax.Array | np.ndarray  # [N, O]
    actions: jax.Array | np.ndarray  # [N, A]
    rewards: jax.Array | np.ndarray  # [N]
    masks: jax.Array | np.ndarray  # [N]
    next_observations: jax.Array | np.ndarray  # [N, O]
    # Columns that some agents ask for (config.dataset.columns).
    next_actions: jax.Array | np.ndarray | None = None  # [N, A], the data's action in next_observations
    mc_returns: jax.Array | np.ndarray | None = None  # [N], discounted sum of the episode's rewards from this step on
    expert: jax.Array | np.ndarray | None = None  # [N], 1 where an expert chose the action

    def __len__(self) -> int:
        return self.rewards.shape[0]


def sample(transitions: Transitions, key: jax.Array, batch_size: int) -> Transitions:
    """Draws `batch_size` transitions uniformly with replacement: leaves [batch_size, ...]. Pure."""
    return sample_rows(transitions, key, batch_size, len(transitions))


def sample_rows(rows: PyTree, key: jax.Array, batch_size: int, filled: jax.Array | int) -> PyTree:
    """Draws `batch_size` of the first `filled` rows of every leaf, the same ones, uniformly with replacement.

    Leaves [N, ...] become [batch_size, ...]; `filled` is a scalar of at most N.

    The remainder of 32 random bits favours some rows by at most filled / 2^32 (0.05% at two million rows) and takes one
    random-bits kernel where `jax.random.randint` takes three.
    """
    # Unsigned and in bounds: the gathers need neither the wrap of negative indices nor a bounds check.
    indices = jax.random.bits(key, (batch_size,), jnp.uint32) % jnp.asarray(filled, jnp.uint32)
    return jax.tree.map(lambda field: jnp.asarray(field).at[indices].get(mode="promise_in_bounds"), rows)


EXPERT = "expert"  # the further field of Episodes that marks the steps of demonstrations


@flax.struct.dataclass
class Demonstrations:
    """What imitation learns from, a whole set or one batch: an expert's steps, and offline data of any quality.

    The offline data may hold the expert's steps again.
    """

    expert: Transitions
    offline: Transitions


def sample_demonstrations(demonstrations: Demonstrations, key: jax.Array, batch_size: int) -> Demonstrations:
    """Draws `batch_size` transitions of each part, leaves [batch_size, ...]; see `sample`."""
    expert_key, offline_key = jax.random.split(key)
    return Demonstrations(
        sample(demonstrations.expert, expert_key, batch_size), sample(demonstrations.offline, offline_key, batch_size)
    )


@flax.struct.dataclass
class Collected:
    """A batch of an agent's own steps, to be mixed with prior data."""

    transitions: Transitions  # [B, ...]
    num_drawable: jax.Array | np.ndarray  # [B] int32, one number in every row: the steps that the batch was drawn from


def mix_with_prior(prior: Transitions, collected: Collected, key: jax.Array, offline_fraction: float) -> Transitions:
    """A batch [B, ...] of prior and collected steps; pure, to be called inside jit.

    Args:
      prior: a fixed data set, [N, ...], of the same columns.
      collected: while there is nothing to draw from, the whole batch is prior data.
      offline_fraction: the share of the batch that is drawn from `prior`, in [0, 1], rounded down to whole rows: 0.5 is
        symmetric sampling (Ball et al. 2023, arXiv 2302.02948, section 4.1). Below 0 each row, prior or collected, is
        drawn with the same probability, as from one buffer that begins with the data set.
    """
    rows_key, choice_key = jax.random.split(key)
    size = len(collected.transitions)
    if offline_fraction < 0.0:
        total = jnp.uint32(len(prior)) + collected.num_drawable.astype(jnp.uint32)
        from_prior = jax.random.bits(choice_key, (size,), jnp.uint32) % total < len(prior)
    else:
        from_prior = (jnp.arange(size) < int(size * offline_fraction)) | (collected.num_drawable == 0)
    return jax.tree.map(
        lambda old, new: jnp.where(from_prior.reshape(-1, *[1] * (new.ndim - 1)), old, new),
        sample(prior, rows_key, size), collected.transitions,
    )


def check_transitions(transitions: Transitions, name: str, action_bound: float | None = None) -> None:
    """Checks shapes, dtypes, finite values, masks in {0, 1} and, if `action_bound` is given, |actions| <= bound.

    Raises:
      ValueError: naming `name`, the field and the first bad step.
    """
    columns = {field: getattr(transitions, field) for field in transitions.__dataclass_fields__}
    fields = {field: np.asarray(column) for field, column in columns.items() if column is not None}
    size = fields["observations"].shape[0] if fields["observations"].ndim else 0
    if size == 0:
        raise ValueError(f"{name}: field 'observations' holds no steps (shape {fields['observations'].shape})")
    check_shape(name, "observations", fields["observations"], (size, None))
    check_shape(name, "actions", fields["actions"], (size, None))
    check_shape(name, "rewards", fields["rewards"], (size,))
    check_shape(name, "masks", fields["masks"], (size,))
    check_shape(name, "next_observations", fields["next_observations"], fields["observations"].shape)
    if "next_actions" in fields:
        check_shape(name, "next_actions", fields["next_actions"], fields["actions"].shape)
    if "mc_returns" in fields:
        check_shape(name, "mc_returns", fields["mc_returns"], (size,))
    for field, array in fields.items():
        check_dtype(name, field, array, np.float32)
        check_finite(name, field, array)
    masks = fields["masks"]
    check_all(name, "masks", masks, (masks == 0) | (masks == 1), "0 or 1")
    if action_bound is not None:
        check_actions(name, fields["actions"], -action_bound, action_bound)


def write_rows(buffer: PyTree, rows: PyTree, kept: jax.Array, added: jax.Array) -> tuple[PyTree, jax.Array]:
    """(the buffer with the rows that are kept, how many were added in all): they stand behind the `added` ones before
    them and, where the buffer is full, over the oldest.

    Args:
      buffer: leaves [C, ...].
      rows: leaves [..., *row], with the leading axes of `kept`.
      kept: bool.
      added: int32 scalar.
    """
    size, axes, kept = len(jax.tree.leaves(buffer)[0]), kept.ndim, kept.reshape(-1)
    places = jnp.where(kept, (added + jnp.cumsum(kept) - 1) % size, size)
    buffer = jax.tree.map(
        lambda old, new: old.at[places].set(new.reshape(-1, *new.shape[axes:]).astype(old.dtype), mode="drop"),
        buffer, rows,
    )
    return buffer, added + jnp.sum(kept, dtype=jnp.int32)
