"""One worker of an `EnvPool`: the environments it holds, and the process that waits for the pool's commands.

Runs as `python -m rl_jax.envs.worker` in a fresh interpreter that imports NumPy and the simulator alone, so that
starting it costs neither an import of JAX nor a second run of the parent's main module.
"""

import functools
import logging
import mmap
import os
import re
import signal
import sys
import threading
import time
import traceback
from collections.abc import Callable, Mapping, Sequence
from multiprocessing.connection import Connection
from typing import Any, NamedTuple

import numpy as np

from rl_jax.envs.physics import Physics

ALIGNMENT = 64  # bytes: a cache line


class EnvPoolError(ChildProcessError):
    """An environment of the pool failed, or the process that held it died; the pool is closed."""


class ArraySpec(NamedTuple):
    shape: tuple[int, ...]
    dtype: str


class Arrays(NamedTuple):
    """What pool and workers share: row i of each array belongs to environment i."""

    seeds: Any  # [E] int64: written by the pool, read at a reset
    actions: Any  # [E, *A]: written by the pool, read at a step
    active: Any  # [E] bool: written by the pool; a row that is False is neither reset nor stepped
    observations: Any  # [E, *O]
    rewards: Any  # [E] float64
    terminated: Any  # [E] bool
    truncated: Any  # [E] bool
    steps: Any  # [E] int64: done in the episode
    physics: Any  # [E, P] float64: the environment's state before its last step; P = 0 where nothing is to be saved


def array_specs(num_envs: int, observations: ArraySpec, actions: ArraySpec, physics_size: int = 0) -> Arrays:
    """The shapes and dtypes of a pool's arrays [E, ...], from those of one observation, one action and one saved state.
    """
    return Arrays(
        seeds=ArraySpec((num_envs,), "int64"),
        actions=ArraySpec((num_envs, *actions.shape), actions.dtype),
        active=ArraySpec((num_envs,), "bool"),
        observations=ArraySpec((num_envs, *observations.shape), observations.dtype),
        rewards=ArraySpec((num_envs,), "float64"),
        terminated=ArraySpec((num_envs,), "bool"),
        truncated=ArraySpec((num_envs,), "bool"),
        steps=ArraySpec((num_envs,), "int64"),
        physics=ArraySpec((num_envs, physics_size), "float64"),
    )


def num_bytes(specs: Arrays) -> int:
    """Bytes that `map_arrays` needs for arrays [E, ...] of these shapes and dtypes."""
    return sum(_aligned_bytes(spec) for spec in specs)


def map_arrays(buffer: mmap.mmap, specs: Arrays) -> Arrays:
    """The arrays [E, ...] of these shapes, laid one after the other in `buffer`; nothing is copied."""
    arrays, offset = [], 0
    for spec in specs:
        arrays.append(np.ndarray(spec.shape, spec.dtype, buffer, offset))
        offset += _aligned_bytes(spec)
    return Arrays(*arrays)


def _aligned_bytes(spec: ArraySpec) -> int:
    size = int(np.prod(spec.shape)) * np.dtype(spec.dtype).itemsize
    return -(-size // ALIGNMENT) * ALIGNMENT


def make_env(spec: Any, env_kwargs: Mapping[str, Any]) -> Any:
    """One environment of a `gymnasium.envs.registration.EnvSpec`, without Gymnasium's checker, which slows every step.

    Observations that are a dictionary or a tuple of boxes become one vector, in the order of the sorted keys, as the
    readers of data sets make it.

    MuJoCo by itself prints each warning for each environment and appends it to MUJOCO_LOG.TXT in the working directory.
    Here what it says of Gymnasium's models, which no user can change, is dropped, and what it says of a simulation
    is logged once.
    """
    import gymnasium

    if "mujoco" not in str(spec.entry_point):
        return _with_flat_observations(gymnasium.make(spec, disable_env_checker=True, **env_kwargs))
    import mujoco

    mujoco.set_mju_user_warning(lambda message: None)
    env = gymnasium.make(spec, disable_env_checker=True, **env_kwargs)
    mujoco.set_mju_user_warning(_log_mujoco_warning)
    return _with_flat_observations(env)


def _with_flat_observations(env: Any) -> Any:
    from gymnasium import spaces, wrappers

    def boxes(space: Any) -> list[Any]:
        if isinstance(space, spaces.Dict):
            return [box for key in sorted(space.spaces) for box in boxes(space[key])]
        if isinstance(space, spaces.Tuple):
            return [box for inner in space.spaces for box in boxes(inner)]
        return [space]

    def arrays(space: Any, value: Any) -> list[Any]:
        if isinstance(space, spaces.Dict):
            return [array for key in sorted(space.spaces) for array in arrays(space[key], value[key])]
        if isinstance(space, spaces.Tuple):
            return [array for inner, one in zip(space.spaces, value) for array in arrays(inner, one)]
        return [np.ravel(value)]

    nested, parts = env.observation_space, boxes(env.observation_space)
    if parts == [nested] or not all(isinstance(box, spaces.Box) and box.dtype.kind == "f" for box in parts):
        return env
    low, high = (np.concatenate([np.ravel(getattr(box, end)) for box in parts]) for end in ("low", "high"))
    flat = spaces.Box(low, high, dtype=low.dtype.type)
    return wrappers.TransformObservation(env, lambda value: np.concatenate(arrays(nested, value)), flat)


def _log_mujoco_warning(message: str) -> None:
    _log_once(re.sub(r"\s*Time = \S+", "", message))


@functools.lru_cache(maxsize=None)
def _log_once(message: str) -> None:
    logging.getLogger(__name__).warning("MuJoCo: %s", message)


class EnvGroup:
    """The environments that live in rows `indices` of a pool's arrays.

    Args:
      spec: the `gymnasium.envs.registration.EnvSpec` of the environments.
      env_kwargs: keyword arguments of `gymnasium.make`.
      indices: rows of `arrays` that this group reads and writes.
      arrays: the pool's arrays.
    """

    def __init__(self, spec: Any, env_kwargs: Mapping[str, Any], indices: Sequence[int], arrays: Arrays):
        self.env_id = spec.id
        self.indices = indices
        self.arrays = arrays
        self.envs = [make_env(spec, env_kwargs) for _ in indices]
        savable = arrays.physics.shape[1] > 0
        self.physics = [Physics(env) if savable else None for env in self.envs]

    def reset(self) -> None:
        self._each_active("reset", self._reset)

    def step(self) -> None:
        self._each_active("step", self._step)

    def restore(self) -> None:
        """Brings every environment to where the arrays say: reset, put before its last step, and stepped."""
        self._each_active("restore", self._restore)

    def _each_active(self, method: str, do: Callable[[int, Any, Physics | None], None]) -> None:
        for i, env, physics in zip(self.indices, self.envs, self.physics):
            if not self.arrays.active[i]:
                continue
            try:
                do(i, env, physics)
            except Exception as error:
                raise self._failure(i, method, error) from error

    def _reset(self, i: int, env: Any, physics: Physics | None) -> None:
        del physics
        self.arrays.observations[i], _ = env.reset(seed=int(self.arrays.seeds[i]))
        self.arrays.steps[i] = 0

    def _step(self, i: int, env: Any, physics: Physics | None) -> None:
        arrays = self.arrays
        if physics is not None:
            physics.read(arrays.physics[i])
        # A copy: an environment may keep the action it was given, the row is overwritten by the next step.
        observation, reward, terminated, truncated, _ = env.step(arrays.actions[i].copy())
        arrays.observations[i], arrays.rewards[i] = observation, reward
        arrays.terminated[i], arrays.truncated[i] = terminated, truncated
        arrays.steps[i] += 1

    def _restore(self, i: int, env: Any, physics: Physics) -> None:
        arrays = self.arrays
        steps = int(arrays.steps[i])
        self._reset(i, env, physics)
        if steps:
            physics.write(arrays.physics[i], steps - 1)
            arrays.steps[i] = steps - 1
            self._step(i, env, physics)

    def close(self) -> None:
        for env in self.envs:
            env.close()

    def _failure(self, index: int, method: str, error: Exception) -> EnvPoolError:
        return EnvPoolError(f"environment {index} of {self.env_id} failed in {method}: {type(error).__name__}: {error}")


def main(connection_fd: int, memory_fd: int, parent: int) -> None:
    """Answers every command with b"" or with an error's message and traceback, until the pool closes its end."""
    # Whoever interrupts a run signals the whole process group; the parent decides what that means for its workers.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    threading.Thread(target=_exit_with_parent, args=(parent,), daemon=True).start()
    connection = Connection(connection_fd)
    group = None
    try:
        while True:
            command = connection.recv()
            try:
                if isinstance(command, str):
                    getattr(group, command)()
                else:
                    spec, env_kwargs, indices, specs = command
                    arrays = map_arrays(mmap.mmap(memory_fd, num_bytes(specs)), specs)
                    group = EnvGroup(spec, env_kwargs, indices, arrays)
                connection.send(None)
            except Exception as error:
                message = str(error) if isinstance(error, EnvPoolError) else f"{type(error).__name__}: {error}"
                connection.send((message, traceback.format_exc()))
    except (EOFError, BrokenPipeError, ConnectionResetError):
        if group is not None:
            group.close()


def _exit_with_parent(parent: int) -> None:
    # The closed connection ends an idle worker at once; this ends one that hangs inside an environment.
    while os.getppid() == parent:
        time.sleep(1.0)
    os._exit(1)


if __name__ == "__main__":
    # Classes sent over the connection are pickled under the module's own name, not as __main__'s.
    from rl_jax.envs import worker

    worker.main(*map(int, sys.argv[1:]))
