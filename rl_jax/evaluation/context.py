"""What a policy is shown of its episodes, S runs x E episodes together: the observation of now, or the last steps."""

from typing import NamedTuple

import numpy as np

from rl_jax.data.sequences import Sequences


class Context(NamedTuple):
    """What a policy with a memory needs to be judged.

    Attributes:
      length: K, the steps that it is shown.
      target_return: the return that it is asked for, undiscounted and in units of the rewards.
    """

    length: int
    target_return: float


class LastObservation:
    """A policy without a memory is shown the observation of now: `inputs` is [S, E, *O] float32."""

    def __init__(self, observations: np.ndarray):
        self.inputs = observations.astype(np.float32)

    def step(self, actions: np.ndarray, rewards: np.ndarray, observations: np.ndarray) -> None:
        """One step of every episode: actions [S, E, *A], what they gave [S, E], what is seen now [S, E, *O]."""
        del actions, rewards
        self.inputs = observations.astype(np.float32)


class LastSteps:
    """A policy with a memory is shown the last K steps: `inputs` are `Sequences`, arrays [S, E, K, ...].

    The last step is the one to act in, its action is zero. Returns-to-go begin at the target return and fall by the
    rewards (Chen et al. 2021, arXiv 2106.01345, section 3).

    Args:
      observations: of the episodes' first step, [S, E, O].
      action_dim: A.
    """

    def __init__(self, context: Context, observations: np.ndarray, action_dim: int):
        runs, episodes, size = observations.shape
        shape = (runs, episodes, context.length)
        self._returns_to_go = np.full((runs, episodes), context.target_return, np.float64)
        self._timestep = 0
        self.inputs = Sequences(
            observations=np.zeros((*shape, size), np.float32),
            actions=np.zeros((*shape, action_dim), np.float32),
            returns_to_go=np.zeros(shape, np.float32),
            timesteps=np.zeros(shape, np.int32),
            mask=np.zeros(shape, np.float32),
        )
        self._append(observations)

    def step(self, actions: np.ndarray, rewards: np.ndarray, observations: np.ndarray) -> None:
        """One step of every episode: actions [S, E, A], what they gave [S, E], what is seen now [S, E, O]."""
        self.inputs.actions[:, :, -1] = actions
        self._returns_to_go -= rewards
        self._timestep += 1
        self._append(observations)

    def _append(self, observations: np.ndarray) -> None:
        shape = observations.shape[:2]
        now = Sequences(
            observations=observations,
            actions=np.zeros((*shape, self.inputs.actions.shape[-1])),
            returns_to_go=self._returns_to_go,
            timesteps=np.full(shape, self._timestep),
            mask=np.ones(shape),
        )
        fields = {}
        for field in Sequences.__dataclass_fields__:
            past, new = getattr(self.inputs, field), getattr(now, field)[:, :, None]
            fields[field] = np.concatenate([past[:, :, 1:], new.astype(past.dtype)], axis=2)
        self.inputs = Sequences(**fields)
