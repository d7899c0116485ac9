"""Episodes: a data set on the host, whole episodes laid end to end in flat arrays."""

import dataclasses
from collections.abc import Iterable, Sequence

import jax
import numpy as np

from rl_jax.core.config import unknown
from rl_jax.data.checks import check_actions, check_all, check_dtype, check_finite, check_names, check_shape
from rl_jax.data.transitions import Transitions

STEP_FIELDS = ("observations", "actions", "rewards", "terminated", "truncated", "next_observations")


@dataclasses.dataclass(frozen=True)
class Episodes:
    """E episodes of N steps in all; episode e is the steps starts[e] .. starts[e + 1] - 1.

    `terminated` and `truncated` are kept apart and are set at an episode's last step only; an episode that the data set
    itself breaks off counts as truncated. `next_observations` holds the true successor, at a time-out too.
    """

    observations: np.ndarray  # [N, O] float32
    actions: np.ndarray  # [N, A] float32
    rewards: np.ndarray  # [N] float32
    terminated: np.ndarray  # [N] bool
    truncated: np.ndarray  # [N] bool
    next_observations: np.ndarray  # [N, O] float32
    starts: np.ndarray  # [E] int64
    extras: dict[str, np.ndarray] = dataclasses.field(default_factory=dict)  # further per-step fields, [N, ...]

    def __len__(self) -> int:
        return self.rewards.shape[0]

    @property
    def num_episodes(self) -> int:
        return self.starts.shape[0]

    @property
    def lengths(self) -> np.ndarray:
        """Steps of each episode: [E] int64."""
        return np.diff(np.append(self.starts, len(self)))

    @property
    def returns(self) -> np.ndarray:
        """Undiscounted sum of the rewards of each episode: [E] float64."""
        return np.add.reduceat(self.rewards.astype(np.float64), self.starts)

    @property
    def complete_returns(self) -> np.ndarray:
        """Returns of the episodes that the task itself ended, [at least 1] float64.

        An episode that the data set breaks off (truncated before the longest truncated one's length, its time limit)
        is left out; where that leaves none, all count.
        """
        ends = np.append(self.starts[1:], len(self)) - 1
        cut = self.truncated[ends]
        whole = ~cut | (self.lengths == max(self.lengths[cut], default=0))
        return self.returns[whole]

    def returns_within(self, num_steps: int) -> np.ndarray:
        """Undiscounted returns of the first `num_steps` steps of each episode, [at least 1] float64.

        An episode that the data set breaks off before that is left out; where that leaves none, all count.
        """
        step = np.arange(len(self)) - np.repeat(self.starts, self.lengths)
        returns = np.add.reduceat(np.where(step < num_steps, self.rewards.astype(np.float64), 0.0), self.starts)
        whole = self.terminated[self.starts + self.lengths - 1] | (self.lengths >= num_steps)
        return returns[whole] if whole.any() else returns

    def stretch_returns(self, num_steps: int) -> np.ndarray:
        """Returns of consecutive stretches of `num_steps` steps wherever episodes end, [at least 1] float64.

        What is left over at the end is not counted; a set that is shorter than that is one stretch.
        """
        count = max(len(self) // num_steps, 1)
        return self.rewards[: count * num_steps].astype(np.float64).reshape(count, -1).sum(1)

    def to_transitions(self, columns: Sequence[str] = (), discount: float = 1.0) -> Transitions:
        """All steps as transitions, in order; host arrays.

        Args:
          columns: of "next_actions" and "mc_returns", those to add. A step whose next action is unknown, the last of
            an episode that a time-out ended, is left out where next actions are asked for; at a terminal step, after
            which nothing is bootstrapped, the column repeats the step's own action.
          discount: of the Monte-Carlo returns. They take no value for what lies beyond a time-out.

        Raises:
          ValueError: there is no such column.
        """
        for column in columns:
            if column not in ("next_actions", "mc_returns"):
                raise ValueError(unknown("column", column, ("next_actions", "mc_returns")))
        transitions = Transitions(
            observations=self.observations,
            actions=self.actions,
            rewards=self.rewards,
            masks=1.0 - self.terminated.astype(np.float32),
            next_observations=self.next_observations,
        )
        if "mc_returns" in columns:
            transitions = transitions.replace(mc_returns=self.returns_to_go(discount))
        if "next_actions" in columns:
            following = np.where(self.terminated[:, None], self.actions, np.roll(self.actions, -1, axis=0))
            known = ~self.truncated
            transitions = jax.tree.map(lambda column: column[known], transitions.replace(next_actions=following))
        return transitions

    def returns_to_go(self, discount: float = 1.0) -> np.ndarray:
        """Discounted sum of the rewards of the same episode from each step on: [N] float32."""
        totals = self.rewards.astype(np.float64)
        lengths = self.lengths
        # All episodes together, one step further from their ends at a time.
        for back in range(1, int(lengths.max())):
            steps = (self.starts + lengths)[lengths > back] - 1 - back
            totals[steps] += discount * totals[steps + 1]
        return totals.astype(np.float32)

    def best_steps(self, fraction: float) -> "Episodes":
        """The episodes of highest return that hold together at most `fraction` of the steps, at least one; in order.

        Source: percentile BC in the code of Chen et al. 2021 (arXiv 2106.01345), which counts steps, not episodes.

        Raises:
          ValueError: the fraction is not in (0, 1].
        """
        if not 0.0 < fraction <= 1.0:
            raise ValueError(f"fraction is {fraction}: it must lie in (0, 1]")
        order = np.argsort(-self.returns, kind="stable")
        within = np.cumsum(self.lengths[order]) <= fraction * len(self)
        return self.select(np.sort(order[: max(int(within.sum()), 1)]))

    def select(self, chosen: Sequence[int] | np.ndarray) -> "Episodes":
        """The episodes with the numbers `chosen`, [E] integers, in the order given."""
        lengths = self.lengths[np.asarray(chosen)]
        first = self.starts[np.asarray(chosen)]
        rows = np.concatenate([np.arange(start, start + length) for start, length in zip(first, lengths, strict=True)])
        starts = np.cumsum([0, *lengths[:-1]]).astype(np.int64)
        extras = {field: array[rows] for field, array in self.extras.items()}
        return Episodes(**{field: getattr(self, field)[rows] for field in STEP_FIELDS}, starts=starts, extras=extras)

    def first_steps(self, num_steps: int) -> "Episodes":
        """The first `num_steps` steps (all if there are fewer); an episode that is cut counts as truncated."""
        if num_steps < 1:
            raise ValueError(f"num_steps is {num_steps}, expected at least 1")
        if num_steps >= len(self):
            return self
        arrays = {field: getattr(self, field)[:num_steps] for field in STEP_FIELDS}
        arrays["truncated"] = arrays["truncated"].copy()
        arrays["truncated"][-1] |= not arrays["terminated"][-1]
        extras = {field: array[:num_steps] for field, array in self.extras.items()}
        return Episodes(**arrays, starts=self.starts[self.starts < num_steps], extras=extras)


def concatenate_episodes(parts: Iterable[Episodes]) -> Episodes:
    """Joins sets whose extras have the same names into one, in order."""
    parts = list(parts)
    arrays = {field: np.concatenate([getattr(part, field) for part in parts]) for field in STEP_FIELDS}
    offsets = np.cumsum([0] + [len(part) for part in parts[:-1]])
    starts = np.concatenate([part.starts + offset for part, offset in zip(parts, offsets)]).astype(np.int64)
    extras = {field: np.concatenate([part.extras[field] for part in parts]) for field in parts[0].extras}
    return Episodes(**arrays, starts=starts, extras=extras)


def starts_from_ends(ends: np.ndarray) -> np.ndarray:
    """First step of each episode, [E] int64, from the flags [N] of last steps; the set's last step always ends one."""
    return np.concatenate([[0], np.flatnonzero(ends[:-1]) + 1]).astype(np.int64)


def check_episodes(episodes: Episodes, name: str, action_bound: float | None = None) -> None:
    """Checks shapes, dtypes, finite values, episode boundaries, terminals against time-outs and successors.

    Raises:
      ValueError: naming `name`, the field and the first bad step.
    """
    size = len(episodes.observations)
    if size == 0:
        raise ValueError(f"{name}: field 'observations' holds no steps")
    check_shape(name, "observations", episodes.observations, (size, None))
    check_shape(name, "actions", episodes.actions, (size, None))
    check_shape(name, "next_observations", episodes.next_observations, episodes.observations.shape)
    for field in ("rewards", "terminated", "truncated"):
        check_shape(name, field, getattr(episodes, field), (size,))
    for field in ("observations", "actions", "rewards", "next_observations"):
        check_dtype(name, field, getattr(episodes, field), np.float32)
        check_finite(name, field, getattr(episodes, field))
    for field in ("terminated", "truncated"):
        check_dtype(name, field, getattr(episodes, field), np.bool_)
    if action_bound is not None:
        check_actions(name, episodes.actions, -action_bound, action_bound)
    check_names(name, episodes.extras)
    for field, array in episodes.extras.items():
        check_shape(name, f"extras/{field}", array, (size,) + array.shape[1:])
        if np.issubdtype(array.dtype, np.floating):
            check_finite(name, f"extras/{field}", array)
    _check_boundaries(episodes, name)


def _check_boundaries(episodes: Episodes, name: str) -> None:
    starts = episodes.starts
    check_shape(name, "starts", starts, (None,))
    check_dtype(name, "starts", starts, np.int64)
    if not len(starts) or starts[0] != 0:
        raise ValueError(f"{name}: field 'starts' does not begin at step 0")
    if (np.diff(starts) <= 0).any() or starts[-1] >= len(episodes):
        bad = int(np.argmax(np.append(np.diff(starts) <= 0, True)))
        raise ValueError(f"{name}: field 'starts' at episode {bad} is {starts[bad]}: starts must rise and stay below "
                         f"the number of steps {len(episodes)}")
    last = np.zeros(len(episodes), bool)
    last[np.append(starts[1:], len(episodes)) - 1] = True
    for field in ("terminated", "truncated"):
        flags = getattr(episodes, field)
        check_all(name, field, flags, ~flags | last, "False: the step is inside an episode")
    ended = episodes.terminated ^ episodes.truncated
    check_all(name, "truncated", episodes.truncated, ended | ~last,
              "exactly one of terminated and truncated at an episode's last step")
    same = (episodes.next_observations[:-1] == episodes.observations[1:]).all(axis=1) | last[:-1]
    check_all(name, "next_observations", episodes.next_observations[:-1, 0], same,
              "the observation of the following step of the same episode")
