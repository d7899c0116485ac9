"""Policy evaluation in Gymnasium environments: all training runs and all episodes behind one compiled `act`."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import numpy as np

from rl_jax.core.fused import default_seed_axis, over_runs
from rl_jax.envs.gym_pool import EnvPool
from rl_jax.evaluation.context import Context, LastObservation, LastSteps

# act(params, observations [N, O], key, temperature) -> actions [N, A], for one run; temperature 0 is the mode. A policy
# with a memory takes Sequences in place of the observations.
Act = Callable[[Any, jax.Array, jax.Array, jax.Array], jax.Array]


class EpisodeResults(NamedTuple):
    """What each of E episodes gave for each of S runs."""

    returns: np.ndarray  # [S, E] float64: undiscounted sums of rewards
    lengths: np.ndarray  # [S, E] int64: environment steps
    terminated: np.ndarray  # [S, E] bool: ended in a terminal state (False: by a time-out)


class PolicyEvaluator:
    """Rolls out S runs for E episodes each, in S * E environments stepped together.

    Every environment plays one episode, from its own reset to its own end, and then rests. Episodes are so counted
    once each, whatever their lengths; restarting an environment as soon as it is free would over-count short ones.

    Episode e starts from the same reset seed in all runs, a function of (seed, e) alone: runs are compared on the
    same starts, and a run's result does not depend on the runs beside it.

    Args:
      pool: S * E environments. Their episodes must end: they need a time limit unless every policy reaches a terminal
        state. Several evaluators may take turns in one pool, whose opener closes it.
      act: the policy of one run: act(params, observations [E, O], key, temperature) -> actions [E, A]. What was done
        to observations in training (normalisation) is done inside it.
      num_episodes: E, the episodes of one evaluation of one run.
      context: of a policy with a memory, whose `act` takes `Sequences` of the last steps, arrays [E, K, ...].

    Raises:
      ValueError: the environments of the pool are not E for each of some runs.
    """

    def __init__(self, pool: EnvPool, act: Act, num_episodes: int, context: Context | None = None):
        if num_episodes < 1 or pool.num_envs % num_episodes:
            raise ValueError(f"{pool.num_envs} environments do not serve {num_episodes} episodes of each run")
        self.pool = pool
        self.num_seeds = pool.num_envs // num_episodes
        self.num_episodes = num_episodes
        self.context = context

        # One run after another on a CPU: its actions, and so its score, then have the bits of the run alone.
        seed_axis = default_seed_axis()

        def act_all(params, inputs, seed, step, temperature):
            key = jax.random.fold_in(jax.random.key(seed), step)
            act_one = over_runs(lambda params, inputs: act(params, inputs, key, temperature), seed_axis)
            return act_one(params, inputs)

        self._act = jax.jit(act_all)

    def __call__(self, params: Any, seed: int, temperature: float = 0.0) -> EpisodeResults:
        """Plays every episode once.

        Args:
          params: what `act` takes, every leaf with a leading axis [S, ...]: NumPy arrays or JAX arrays of this process,
            on any of its devices.
          seed: decides the reset seeds and, at temperature > 0, the action noise. 0 <= seed < 2**32.
          temperature: handed to `act`; 0 is the mode.

        Raises:
          ValueError: a leaf of `params` does not have the leading axis, or actions have another shape than the task's.
          FloatingPointError: an action or a reward is not finite; the message names run, episode and step.
          EnvPoolError: an environment failed.
        """
        self._check_params(params)
        # One device, so that a policy is judged by the same arithmetic on whatever mesh it was trained.
        params = jax.device_put(params, jax.local_devices()[0])
        shape = (self.num_seeds, self.num_episodes)
        low, high = self.pool.action_space.low, self.pool.action_space.high
        returns, lengths = np.zeros(shape, np.float64), np.zeros(shape, np.int64)
        terminated = np.zeros(shape, bool)
        active = np.ones(shape, bool)
        observations = self.pool.reset(np.tile(episode_seeds(seed, self.num_episodes), self.num_seeds))
        observations = observations.reshape(*shape, *observations.shape[1:])
        shown = LastObservation(observations)
        if self.context is not None:
            shown = LastSteps(self.context, observations, *low.shape)
        step = 0
        while active.any():
            # Explicit transfers: legal under jax.transfer_guard("disallow"). uint32 and float32 keep one trace.
            inputs = jax.device_put((shown.inputs, np.uint32(seed), np.uint32(step), np.float32(temperature)))
            actions = jax.device_get(self._act(params, *inputs))
            if actions.shape != (*shape, *low.shape):
                raise ValueError(f"act gave actions of shape {actions.shape}, not {(*shape, *low.shape)}")
            self._check_finite("action", actions, active, step)
            actions = np.clip(actions, low, high)
            flat = self.pool.step(actions.reshape(-1, *low.shape), active.reshape(-1))
            observations, rewards, ended, timed_out = (x.reshape(*shape, *x.shape[1:]) for x in flat)
            self._check_finite("reward", rewards, active, step)
            shown.step(actions, rewards, observations)
            returns += np.where(active, rewards, 0.0)
            lengths += active
            terminated |= active & ended
            active &= ~(ended | timed_out)
            step += 1
        return EpisodeResults(returns, lengths, terminated)

    def _check_params(self, params: Any) -> None:
        for path, leaf in jax.tree_util.tree_leaves_with_path(params):
            if np.ndim(leaf) < 1 or leaf.shape[0] != self.num_seeds:
                raise ValueError(
                    f"params{jax.tree_util.keystr(path)} has shape {np.shape(leaf)}: every leaf needs the leading axis "
                    f"of the runs, {self.num_seeds}"
                )

    def _check_finite(self, name: str, values: np.ndarray, active: np.ndarray, step: int) -> None:
        finite = np.isfinite(values).reshape(*active.shape, -1).all(-1)
        if not (finite | ~active).all():
            run, episode = np.argwhere(~finite & active)[0]
            raise FloatingPointError(
                f"evaluation of {self.pool.env_id}: the {name} of run {run} is not finite at step {step} of episode "
                f"{episode}"
            )


def episode_seeds(seed: int, num_episodes: int) -> np.ndarray:
    """Reset seeds [num_episodes], int64 in [0, 2**32): episode e's depends on (seed, e) alone."""
    return np.array([np.random.SeedSequence((seed, e)).generate_state(1)[0] for e in range(num_episodes)], np.int64)
