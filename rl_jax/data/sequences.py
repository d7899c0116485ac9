"""Sequences: stretches of consecutive steps of an episode, and the sampler that draws batches of them on the device."""

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np

from rl_jax.data.episodes import Episodes


@flax.struct.dataclass
class Sequences:
    """B stretches of K consecutive steps of one episode each; every array is float32 but `timesteps`.

    It is a batch to learn from, and equally what an agent with a memory is shown when it acts: the K steps that end
    now, the last of them with an action of zeros. Where the episode gives fewer than K steps the others are padding,
    zeros with `mask` 0: behind the steps in a batch, before them in what an acting agent is shown.
    """

    observations: jax.Array | np.ndarray  # [B, K, O]
    actions: jax.Array | np.ndarray  # [B, K, A]
    returns_to_go: jax.Array | np.ndarray  # [B, K], undiscounted sum of the rewards from the step to the episode's end
    timesteps: jax.Array | np.ndarray  # [B, K] int32, steps since the episode began
    mask: jax.Array | np.ndarray  # [B, K], 1 for a step and 0 for padding


@flax.struct.dataclass
class Trajectories:
    """All N steps of a set, whole episodes end to end, from which sequences are cut; float32 but `timesteps`."""

    observations: jax.Array | np.ndarray  # [N, O]
    actions: jax.Array | np.ndarray  # [N, A]
    returns_to_go: jax.Array | np.ndarray  # [N]
    timesteps: jax.Array | np.ndarray  # [N] int32; an episode begins where it is 0

    def __len__(self) -> int:
        return self.timesteps.shape[0]


def to_trajectories(episodes: Episodes) -> Trajectories:
    """The steps of a set with their undiscounted returns-to-go, in order; host arrays.

    A return-to-go takes nothing for what lies beyond a time-out.
    """
    timesteps = np.arange(len(episodes)) - np.repeat(episodes.starts, episodes.lengths)
    return Trajectories(episodes.observations, episodes.actions, episodes.returns_to_go(), timesteps.astype(np.int32))


def sequences_at(data: Trajectories, starts: jax.Array | np.ndarray, context_length: int) -> Sequences:
    """The sequences of at most `context_length` = K steps that begin at the steps `starts`, [B] integers in [0, N).

    NumPy arrays give NumPy arrays and JAX arrays give JAX arrays.
    """
    ahead = np.arange(context_length, dtype=np.int32)
    rows = (starts[:, None] + ahead.astype(starts.dtype)) % len(data)
    timesteps = data.timesteps[rows]
    # A later episode, or the set's beginning after its end, counts from zero again and cannot have the count due here.
    inside = timesteps == timesteps[:, :1] + ahead
    mask = inside.astype(np.float32)
    return Sequences(
        observations=data.observations[rows] * mask[:, :, None],
        actions=data.actions[rows] * mask[:, :, None],
        returns_to_go=data.returns_to_go[rows] * mask,
        timesteps=timesteps * inside,
        mask=mask,
    )


def sample_sequences(data: Trajectories, key: jax.Array, batch_size: int, context_length: int) -> Sequences:
    """Draws `batch_size` sequences that begin at steps drawn uniformly with replacement: leaves [B, K, ...]. Pure.

    A uniform step of the set is an episode with probability proportional to its length and then a uniform step of it:
    the sampling of the code of Chen et al. 2021 (arXiv 2106.01345). The draw itself is that of `transitions.sample`.
    """
    starts = jax.random.bits(key, (batch_size,), np.uint32) % np.uint32(len(data))
    return sequences_at(jax.tree.map(jnp.asarray, data), starts, context_length)
