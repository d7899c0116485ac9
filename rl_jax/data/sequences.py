"""Sequences: stretches of consecutive steps of an episode, and the sampler that draws batches of them on the device."""

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np

from rl_jax.data.episodes import Episodes
from rl_jax.data.transitions import sample_rows


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


@flax.struct.dataclass
class RewardedSequences(Sequences):
    """Sequences with what value functions learn from besides; all float32."""

    rewards: jax.Array | np.ndarray  # [B, K]
    masks: jax.Array | np.ndarray  # [B, K], 1 - terminal: 1 also where a time-out ended the episode, which bootstraps
    next_observations: jax.Array | np.ndarray  # [B, K, O], the true successors, also at an episode's last step


@flax.struct.dataclass
class RewardedTrajectories(Trajectories):
    """All N steps of a set with what value functions learn from besides, and where its E episodes begin."""

    rewards: jax.Array | np.ndarray  # [N]
    masks: jax.Array | np.ndarray  # [N]
    next_observations: jax.Array | np.ndarray  # [N, O]
    starts: jax.Array | np.ndarray  # [E] int32


def to_trajectories(episodes: Episodes) -> Trajectories:
    """The steps of a set with their undiscounted returns-to-go, in order; host arrays.

    A return-to-go takes nothing for what lies beyond a time-out.
    """
    timesteps = np.arange(len(episodes)) - np.repeat(episodes.starts, episodes.lengths)
    return Trajectories(episodes.observations, episodes.actions, episodes.returns_to_go(), timesteps.astype(np.int32))


def to_rewarded_trajectories(episodes: Episodes) -> RewardedTrajectories:
    """The same with rewards, terminals and successors."""
    return RewardedTrajectories(
        **vars(to_trajectories(episodes)), rewards=episodes.rewards,
        masks=1.0 - episodes.terminated.astype(np.float32), next_observations=episodes.next_observations,
        starts=episodes.starts.astype(np.int32),
    )


def sequences_at(data: Trajectories, starts: jax.Array | np.ndarray, context_length: int) -> Sequences:
    """The sequences of at most `context_length` = K steps that begin at the steps `starts`, [B] integers in [0, N).

    NumPy arrays give NumPy arrays and JAX arrays give JAX arrays, RewardedTrajectories give RewardedSequences.
    """
    ahead = np.arange(context_length, dtype=np.int32)
    rows = (starts[:, None] + ahead.astype(starts.dtype)) % len(data)
    timesteps = data.timesteps[rows]
    # A later episode, or the set's beginning after its end, counts from zero again and cannot have the count due here.
    inside = timesteps == timesteps[:, :1] + ahead
    mask = inside.astype(np.float32)

    def cut(names: tuple[str, ...]) -> dict[str, jax.Array | np.ndarray]:
        columns = {name: getattr(data, name)[rows] for name in names}
        return {name: x * (mask if x.ndim == 2 else mask[:, :, None]) for name, x in columns.items()}

    common = cut(("observations", "actions", "returns_to_go")) | {"timesteps": timesteps * inside, "mask": mask}
    if isinstance(data, RewardedTrajectories):
        return RewardedSequences(**common, **cut(("rewards", "masks", "next_observations")))
    return Sequences(**common)


def sample_sequences(data: Trajectories, key: jax.Array, batch_size: int, context_length: int) -> Sequences:
    """Draws `batch_size` sequences that begin at steps drawn uniformly with replacement: leaves [B, K, ...]. Pure.

    A uniform step of the set is an episode with probability proportional to its length and then a uniform step of it:
    the sampling of the code of Chen et al. 2021 (arXiv 2106.01345). The draw itself is that of `transitions.sample`.
    """
    starts = jax.random.bits(key, (batch_size,), np.uint32) % np.uint32(len(data))
    return sequences_at(jax.tree.map(jnp.asarray, data), starts, context_length)


def sample_episodes(
    data: RewardedTrajectories, key: jax.Array, batch_size: int, context_length: int
) -> RewardedSequences:
    """Draws `batch_size` episodes uniformly with replacement, each from its beginning: leaves [B, K, ...]. Pure.

    So a recurrent network unrolls from the start of an episode, and needs no stored memory and no burn-in. K is at
    least the longest episode's length; of a longer one the end would be missing.
    """
    starts = sample_rows(jnp.asarray(data.starts), key, batch_size, len(data.starts))
    return sequences_at(jax.tree.map(jnp.asarray, data), starts, context_length)


def with_successors(batch: RewardedSequences) -> Sequences:
    """The K steps of sequences from an episode's beginning and the one after the last, [B, K + 1, ...].

    Row t + 1 is what step t led to, also where it ended the episode; its action is zero there. Where the action of a
    step matters, or its reward, take rows [:, :-1]; its successor is rows [:, 1:].
    """
    zero = jax.tree.map(lambda x: jnp.zeros_like(x[:, :1]), batch)

    def after(first: jax.Array, then: jax.Array) -> jax.Array:
        return jnp.concatenate([first, then], 1)

    return Sequences(
        observations=after(batch.observations[:, :1], batch.next_observations),
        actions=after(batch.actions, zero.actions),
        returns_to_go=after(batch.returns_to_go, zero.returns_to_go),
        timesteps=after(batch.timesteps[:, :1], (batch.timesteps + 1) * (batch.mask > 0)),
        mask=after(batch.mask[:, :1], batch.mask),
    )
