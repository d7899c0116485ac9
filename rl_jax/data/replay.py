"""A replay buffer on the host for S runs, with the data set beside it that a fine-tuned agent was trained on."""

from collections.abc import Mapping, Sequence

import numpy as np

from rl_jax.data.transitions import Transitions

STEP_COLUMNS = ("observations", "actions", "rewards", "masks", "next_observations")


class ReplayBuffer:
    """The last `capacity` steps of each of S runs, and prior data that all of them share.

    With `discount` every row gets the Monte-Carlo return of its episode, as Cal-QL needs it (Nakamoto et al. 2023,
    arXiv 2303.05479, whose code adds whole episodes): a step is then drawn only after its episode has ended.

    Args:
      num_runs: S.
      capacity: steps that are kept of each run; the oldest go first. Memory is taken as it fills.
      observation_size, action_size: O and A.
      prior: a fixed data set. It must have a column mc_returns where `discount` is given.
      offline_fraction: the share of every batch that is drawn from `prior`. Below 0: each row, prior or collected, is
        drawn with the same chance, which is one buffer that begins with the data set. While a run has nothing else to
        draw from, its whole batch comes from `prior`.
      discount: of the Monte-Carlo returns; None keeps no such column.

    Attributes:
      added: steps that were added to each run so far.

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
        prior: Transitions | None = None,
        offline_fraction: float = -1.0,
        discount: float | None = None,
    ):
        if num_runs < 1 or capacity < 1:
            raise ValueError(f"num_runs and capacity must be positive, not {num_runs} and {capacity}")
        if offline_fraction > 1.0 or (offline_fraction > 0.0 and prior is None):
            raise ValueError(f"offline_fraction={offline_fraction}: at most 1, and above 0 only with prior data")
        self.num_runs, self.capacity, self.added = num_runs, capacity, 0
        self._offline_fraction, self._discount = offline_fraction, discount
        shapes = dict.fromkeys(STEP_COLUMNS, ()) | {"actions": (action_size,)}
        shapes |= dict.fromkeys(("observations", "next_observations"), (observation_size,))
        if discount is not None:
            shapes["mc_returns"] = ()
        # Zeroed pages cost nothing until they are written.
        self._columns = {name: np.zeros((num_runs, capacity, *shape), np.float32) for name, shape in shapes.items()}
        self._complete = np.zeros(num_runs, np.int64)  # steps of each run whose return is known
        # Plain arrays: a memory map's own indexing is slow.
        self._prior = {} if prior is None else {name: np.asarray(getattr(prior, name)) for name in shapes}
        self._prior_size = 0 if prior is None else len(prior)
        for name, column in self._prior.items():
            wanted = (self._prior_size, *shapes[name])
            if column.shape != wanted:
                raise ValueError(f"the prior data have {name} of shape {column.shape}, and {wanted} is needed")

    def add(self, ended: np.ndarray, **step: np.ndarray) -> None:
        """Adds one step of every run.

        Args:
          ended: [S] bool, whether the step was the last of its episode, by a terminal state or a time-out.
          step: observations [S, O], actions [S, A], rewards [S], masks [S] (0 at a terminal state, 1 at a time-out
            too) and next_observations [S, O].

        Raises:
          ValueError: an episode whose returns are wanted does not fit the buffer.
        """
        row = self.added % self.capacity
        for name in STEP_COLUMNS:
            self._columns[name][:, row] = step[name]
        self.added += 1
        if self._discount is None:
            self._complete[:] = self.added
            return
        if self.added - self._complete.min() > self.capacity:
            raise ValueError(f"an episode is longer than the replay buffer's capacity of {self.capacity} steps")
        for run in np.flatnonzero(ended):
            self._finish_episode(run, self._discount)

    def _finish_episode(self, run: int, discount: float) -> None:
        rows = np.arange(self._complete[run], self.added) % self.capacity
        rewards, returns = self._columns["rewards"][run, rows].astype(np.float64), np.zeros(len(rows))
        later = 0.0  # nothing is known of what lies beyond a time-out
        for t in reversed(range(len(rows))):
            returns[t] = later = rewards[t] + discount * later
        self._columns["mc_returns"][run, rows] = returns
        self._complete[run] = self.added

    def sample(self, generators: Sequence[np.random.Generator], batch_size: int) -> Transitions:
        """A batch [S, batch_size, ...]: each run's rows uniformly with replacement, by a generator of its own.

        Raises:
          ValueError: a run has nothing to draw from.
        """
        first = max(0, self.added - self.capacity)
        picks = np.stack([
            self._pick(generator, batch_size, int(complete) - first)
            for generator, complete in zip(generators, self._complete, strict=True)
        ])
        offline = picks < self._prior_size
        # Collected rows by their place in the ring; prior rows are put over what this reads for them.
        rows = (first + np.maximum(picks - self._prior_size, 0)) % self.capacity
        rows += np.arange(self.num_runs)[:, None] * self.capacity
        prior_rows = picks[offline]
        batch = {}
        for name, column in self._columns.items():
            batch[name] = column.reshape(-1, *column.shape[2:])[rows]
            if len(prior_rows):
                batch[name][offline] = self._prior[name][prior_rows]
        return Transitions(**batch)

    def _pick(self, generator: np.random.Generator, batch_size: int, collected: int) -> np.ndarray:
        """Rows [batch_size]: those below the prior's size are of the prior, the others count from the oldest kept."""
        prior = self._prior_size
        if prior + collected == 0:
            raise ValueError("the replay buffer is empty: collect before the first batch, e.g. by random steps")
        if collected == 0:
            return generator.integers(prior, size=batch_size)
        if self._offline_fraction < 0:
            return generator.integers(prior + collected, size=batch_size)
        num_prior = int(batch_size * self._offline_fraction)
        return np.concatenate([
            generator.integers(prior, size=num_prior) if num_prior else np.zeros(0, np.int64),
            prior + generator.integers(collected, size=batch_size - num_prior),
        ])

    def save(self) -> dict[str, np.ndarray | int]:
        """What was collected, as arrays; the prior data are not part of it."""
        filled = min(self.added, self.capacity)
        columns = {name: column[:, :filled].copy() for name, column in self._columns.items()}
        return {"added": self.added, "complete": self._complete.copy(), **columns}

    def restore(self, saved: Mapping[str, np.ndarray | int]) -> None:
        """Goes on from what `save` gave.

        Raises:
          ValueError: it is of a buffer of another shape or capacity.
        """
        added = int(saved["added"])
        filled = min(added, self.capacity)
        for name, column in self._columns.items():
            if np.shape(saved.get(name)) != (self.num_runs, filled, *column.shape[2:]):
                raise ValueError(
                    f"the saved replay buffer has {name} of shape {np.shape(saved.get(name))}, and this one needs "
                    f"{(self.num_runs, filled, *column.shape[2:])}: give it the capacity and runs it was saved with"
                )
            column[:, :filled] = saved[name]
        self.added, self._complete = added, np.array(saved["complete"], np.int64)
