"""A replay buffer on the host for S runs."""

from collections.abc import Mapping, Sequence

import numpy as np

from rl_jax.data.transitions import Transitions

STEP_COLUMNS = ("observations", "actions", "rewards", "masks", "next_observations")


class ReplayBuffer:
    """The last `capacity` steps of each of S runs.

    With `discount` every row gets the Monte-Carlo return of its episode, as Cal-QL needs it (Nakamoto et al. 2023,
    arXiv 2303.05479, whose code adds whole episodes): a step is then drawn only after its episode has ended.

    Runs may keep different steps, and so different numbers of them.

    Args:
      num_runs: S.
      capacity: steps that are kept of each run; the oldest go first. Memory is taken as it fills.
      observation_size, action_size: O and A.
      discount: of the Monte-Carlo returns; None keeps no such column.
      marks_expert: whether rows say who chose the action, as `Transitions.expert`.

    Attributes:
      added: [S] int64, steps that were added to each run so far.

    Raises:
      ValueError: an argument cannot work.
    """

    def __init__(
        self,
        num_runs: int,
        capacity: int,
        observation_size: int,
        action_size: int,
        *,
        discount: float | None = None,
        marks_expert: bool = False,
    ):
        if num_runs < 1 or capacity < 1:
            raise ValueError(f"num_runs and capacity must be positive, not {num_runs} and {capacity}")
        self.num_runs, self.capacity, self.added = num_runs, capacity, np.zeros(num_runs, np.int64)
        self._discount = discount
        shapes = dict.fromkeys(STEP_COLUMNS, ()) | {"actions": (action_size,)}
        shapes |= dict.fromkeys(("observations", "next_observations"), (observation_size,))
        shapes |= {"expert": ()} if marks_expert else {}
        self._given = tuple(shapes)
        if discount is not None:
            shapes["mc_returns"] = ()
        # Zeroed pages cost nothing until they are written.
        self._columns = {name: np.zeros((num_runs, capacity, *shape), np.float32) for name, shape in shapes.items()}
        self._complete = np.zeros(num_runs, np.int64)  # steps of each run whose return is known

    @property
    def drawable(self) -> np.ndarray:
        """Steps of each run that `sample` draws from, [S] int64."""
        return self._complete - np.maximum(0, self.added - self.capacity)

    def add(self, ended: np.ndarray, kept: np.ndarray | None = None, **step: np.ndarray) -> None:
        """Adds one step of every run, or of those that keep theirs.

        Args:
          ended: [S] bool, whether the step was the last of its episode, by a terminal state or a time-out.
          kept: [S] bool, which runs add their step; None for all.
          step: observations [S, O], actions [S, A], rewards [S], masks [S] (0 at a terminal state, 1 at a time-out
            too), next_observations [S, O] and, where rows are marked, expert [S].

        Raises:
          ValueError: an episode whose returns are wanted does not fit the buffer.
        """
        runs = np.arange(self.num_runs) if kept is None else np.flatnonzero(kept)
        rows = self.added[runs] % self.capacity
        for name in self._given:
            self._columns[name][runs, rows] = step[name][runs]
        self.added[runs] += 1
        if self._discount is None:
            self._complete[:] = self.added
            return
        if (self.added - self._complete).max() > self.capacity:
            raise ValueError(f"an episode is longer than the replay buffer's capacity of {self.capacity} steps")
        for run in runs[ended[runs]]:
            self._finish_episode(run, self._discount)

    def _finish_episode(self, run: int, discount: float) -> None:
        rows = np.arange(self._complete[run], self.added[run]) % self.capacity
        rewards, returns = self._columns["rewards"][run, rows].astype(np.float64), np.zeros(len(rows))
        later = 0.0  # nothing is known of what lies beyond a time-out
        for t in reversed(range(len(rows))):
            returns[t] = later = rewards[t] + discount * later
        self._columns["mc_returns"][run, rows] = returns
        self._complete[run] = self.added[run]

    def sample(self, generators: Sequence[np.random.Generator], batch_size: int) -> Transitions:
        """A batch [S, batch_size, ...]: each run's rows uniformly with replacement, by a generator of its own.

        A run without drawable steps gets rows that mean nothing.
        """
        picks = np.stack([
            generator.integers(max(int(drawable), 1), size=batch_size)
            for generator, drawable in zip(generators, self.drawable, strict=True)
        ])
        first = np.maximum(0, self.added - self.capacity)[:, None]
        rows = (first + picks) % self.capacity + np.arange(self.num_runs)[:, None] * self.capacity
        return Transitions(**{
            name: column.reshape(-1, *column.shape[2:])[rows] for name, column in self._columns.items()
        })

    def save(self) -> dict[str, np.ndarray | int]:
        """What was collected: "added" and "complete" [S] int64, and each column [S, min(most added, capacity), ...]."""
        filled = min(int(self.added.max()), self.capacity)
        columns = {name: column[:, :filled].copy() for name, column in self._columns.items()}
        return {"added": self.added.copy(), "complete": self._complete.copy(), **columns}

    def restore(self, saved: Mapping[str, np.ndarray | int]) -> None:
        """Goes on from what `save` gave: arrays [S, ...].

        Raises:
          ValueError: it is of a buffer of another shape or capacity.
        """
        added = np.array(saved["added"], np.int64)
        filled = min(int(added.max()), self.capacity)
        for name, column in self._columns.items():
            if np.shape(saved.get(name)) != (self.num_runs, filled, *column.shape[2:]):
                raise ValueError(
                    f"the saved replay buffer has {name} of shape {np.shape(saved.get(name))}, and this one needs "
                    f"{(self.num_runs, filled, *column.shape[2:])}: give it the capacity and runs it was saved with"
                )
            column[:, :filled] = saved[name]
        self.added, self._complete = added, np.array(saved["complete"], np.int64)
