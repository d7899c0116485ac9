"""Many Gymnasium environments stepped together by a few worker processes, without auto-reset."""

import importlib
import mmap
import os
import subprocess
import sys
import tempfile
import time
import weakref
from collections.abc import Mapping
from multiprocessing import Pipe
from multiprocessing.connection import Connection
from typing import Any

import numpy as np

from rl_jax.core.extras import MissingExtraError, require
from rl_jax.envs.physics import Physics
from rl_jax.envs.worker import ArraySpec, EnvGroup, EnvPoolError, array_specs, make_env, map_arrays, num_bytes

__all__ = ["EnvPool", "EnvPoolError"]

_SAVED = ("seeds", "actions", "observations", "steps", "physics")
# The first word of an id -> the module here that registers it.
OWN_TASKS = {
    "maze2d": "rl_jax.envs.point_maze", "door": "rl_jax.envs.adroit", "metaworld": "rl_jax.envs.meta_world",
    "doom": "rl_jax.envs.doom", "dm_control": "rl_jax.envs.control_suite",
}
MIN_ENVS_FOR_WORKERS = 4  # a smaller pool is stepped in this process: starting workers takes a second


class EnvPool:
    """E environments of one kind, stepped by W workers that hold every W-th one.

    Nothing is reset but by `reset`: an environment whose episode has ended is left out of `active` until then. What an
    environment does depends on its reset seed and its actions alone, not on E or W. Workers are fresh interpreters
    that import no JAX; they end with `close`, and by themselves when this process dies, however it dies.

    Args:
      env_id: a registered Gymnasium id, such as `Hopper-v4`, or `module:Id-v0` for one that importing `module`
        registers. Actions must be a `Box`, and observations one or a dictionary or tuple of them, of floating-point
        numbers, which become one vector in the order of the sorted keys.
      num_envs: E.
      num_workers: W. Default: as many as there are usable cores, at most E. With 1, or with fewer than 4
        environments by default, the environments live in this process.
      env_kwargs: keyword arguments of `gymnasium.make`.
      savable: whether `save` may be called: the state of each environment is then noted before each of its steps.

    Attributes:
      observation_space, action_space: the spaces of one environment.

    Raises:
      ValueError: the id is not registered, its spaces are not boxes, or it is to be savable and nobody knows how.
      MissingExtraError: Gymnasium, or the simulator that the environment needs, is not installed.
      EnvPoolError: an environment cannot be made.
    """

    def __init__(
        self,
        env_id: str,
        num_envs: int,
        *,
        num_workers: int | None = None,
        env_kwargs: Mapping[str, Any] = {},
        savable: bool = False,
    ):
        if num_envs < 1:
            raise ValueError(f"num_envs must be positive, not {num_envs}")
        if num_workers is None:
            num_workers = min(_usable_cores(), num_envs) if num_envs >= MIN_ENVS_FOR_WORKERS else 1
        if not 1 <= num_workers <= num_envs:
            raise ValueError(f"num_workers must be between 1 and num_envs = {num_envs}, not {num_workers}")
        self.env_id = env_id
        self.num_envs = num_envs
        spec = find_spec(env_id)
        self.observation_space, self.action_space, physics_size = _find_spaces(env_id, spec, env_kwargs, savable)
        shapes = _array_spec(self.observation_space), _array_spec(self.action_space), physics_size
        specs = array_specs(num_envs, *shapes)
        self._done = np.ones(num_envs, bool)  # nothing may be stepped before the first reset
        self._closed = False
        self._group, self._processes, self._connections = None, [], []
        self._finalizer = weakref.finalize(self, _stop, self._processes, self._connections)
        if num_workers == 1:
            self._arrays = map_arrays(mmap.mmap(-1, num_bytes(specs)), specs)
            self._group = EnvGroup(spec, env_kwargs, range(num_envs), self._arrays)
            return
        with tempfile.TemporaryFile(dir=_memory_folder()) as memory:
            memory.truncate(num_bytes(specs))
            self._arrays = map_arrays(mmap.mmap(memory.fileno(), num_bytes(specs)), specs)
            for _ in range(num_workers):
                self._start_worker(memory.fileno())
            # Every W-th environment, so that runs whose episodes end early leave all workers equally busy.
            rows = [range(worker, num_envs, num_workers) for worker in range(num_workers)]
            self._command(*((spec, dict(env_kwargs), indices, specs) for indices in rows))

    def reset(self, seeds: np.ndarray, mask: np.ndarray | None = None) -> np.ndarray:
        """Resets environments, each to its own seed.

        Args:
          seeds: [E] non-negative integers; rows that are not reset are not read.
          mask: [E] bool, which environments to reset; the others stay where they are. Default: all.

        Returns:
          Observations [E, *O], in the dtype of the observation space.
        """
        seeds = np.asarray(seeds)
        mask = np.ones(self.num_envs, bool) if mask is None else np.asarray(mask)
        self._check_rows("mask", mask)
        if seeds.shape != (self.num_envs,) or seeds.dtype.kind not in "iu" or (seeds[mask] < 0).any():
            raise ValueError(f"seeds must be {self.num_envs} non-negative integers, not {seeds.dtype} {seeds.shape}")
        self._arrays.seeds[mask] = seeds[mask]
        self._arrays.active[:] = mask
        self._command("reset")
        self._done &= ~mask
        return self._arrays.observations.copy()

    def step(self, actions: np.ndarray, active: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        """Steps the active environments; the others keep their observation, with reward 0 and both flags False.

        Args:
          actions: [E, *A], within the bounds of the action space; rows that are not active are not read.
          active: [E] bool.

        Returns:
          observations [E, *O], rewards [E] float64, terminated [E] bool, truncated [E] bool: copies. The observation
          of an episode's last step is the last of that episode, not the first of another.

        Raises:
          ValueError: a wrong shape, or an active environment whose episode has ended.
          EnvPoolError: an environment raised an error or its worker died.
        """
        arrays = self._arrays
        actions, active = np.asarray(actions), np.asarray(active)
        if actions.shape != arrays.actions.shape:
            raise ValueError(f"actions of {self.env_id} must have shape {arrays.actions.shape}, not {actions.shape}")
        self._check_rows("active", active)
        if (active & self._done).any():
            raise ValueError(f"environment {np.argmax(active & self._done)} of {self.env_id} has ended: reset it first")
        arrays.actions[active] = actions[active]
        arrays.active[:] = active
        arrays.rewards[:], arrays.terminated[:], arrays.truncated[:] = 0.0, False, False
        self._command("step")
        self._done |= arrays.terminated | arrays.truncated
        return tuple(x.copy() for x in (arrays.observations, arrays.rewards, arrays.terminated, arrays.truncated))

    def save(self) -> dict[str, np.ndarray]:
        """Where every environment stands, as arrays [E, ...]; a pool of the same environments goes on from it bitwise.

        Raises:
          ValueError: the pool was not made savable, or was never reset.
        """
        arrays = self._arrays
        if not arrays.physics.shape[1]:
            raise ValueError(f"the pool of {self.env_id} cannot be saved: make it with savable=True")
        if self._done.all() and not arrays.steps.any():
            raise ValueError(f"the pool of {self.env_id} cannot be saved before its first reset")
        saved = {name: getattr(arrays, name).copy() for name in _SAVED}
        return saved | {"done": self._done.copy()}

    def restore(self, saved: Mapping[str, np.ndarray]) -> np.ndarray:
        """Goes on from what `save` gave.

        Returns:
          Observations [E, *O] as they were.

        Raises:
          ValueError: `saved` is of other environments, or of another number of them.
          EnvPoolError: the observations come out otherwise, as with another version of the simulator.
        """
        arrays = self._arrays
        for name in _SAVED:
            if np.shape(saved[name]) != getattr(arrays, name).shape:
                raise ValueError(
                    f"the pool of {self.env_id} has {name} of shape {getattr(arrays, name).shape}, and what was saved "
                    f"has {np.shape(saved[name])}: it is of another pool"
                )
            getattr(arrays, name)[:] = saved[name]
        arrays.active[:] = True
        self._command("restore")
        self._done[:] = saved["done"]
        close = np.isclose(arrays.observations, saved["observations"], rtol=1e-4, atol=1e-4)
        if not close.all():
            row = int(np.argmin(close.reshape(self.num_envs, -1).all(1)))
            self.close()
            raise EnvPoolError(
                f"environment {row} of {self.env_id} was saved with the observation {saved['observations'][row]} and "
                f"comes back with {arrays.observations[row]}: restore it with the versions that it was saved with"
            )
        return arrays.observations.copy()

    def close(self) -> None:
        """Ends the workers; a second call does nothing."""
        if self._group is not None and not self._closed:
            self._group.close()
        self._closed = True
        self._finalizer()

    def __enter__(self) -> "EnvPool":
        return self

    def __exit__(self, *unused) -> None:
        self.close()

    def _check_rows(self, name: str, rows: np.ndarray) -> None:
        if rows.shape != (self.num_envs,) or rows.dtype != bool:
            raise ValueError(f"{name} must be bool of shape ({self.num_envs},), not {rows.dtype} {rows.shape}")

    def _command(self, *commands: Any) -> None:
        """Has every worker do one command, the same or one each; after a failure the pool is closed."""
        if self._closed:
            raise ValueError(f"the pool of {self.env_id} is closed")
        try:
            if self._group is not None:
                getattr(self._group, commands[0])()
                return
            if len(commands) == 1:
                commands = commands * len(self._connections)
            for worker, command in enumerate(commands):
                self._talk(worker, lambda connection, command=command: connection.send(command))
            for worker in range(len(commands)):
                failure = self._talk(worker, lambda connection: connection.recv())
                if failure is not None:
                    message, traceback = failure
                    error = EnvPoolError(message if self.env_id in message else f"{self.env_id}: {message}")
                    error.add_note(f"In worker {worker}:\n{traceback}")
                    raise error
        except BaseException:
            # Also after an interrupt: answers that were not waited for would be taken for those of the next command.
            self.close()
            raise

    def _talk(self, worker: int, exchange: Any) -> Any:
        try:
            return exchange(self._connections[worker])
        except (EOFError, OSError) as error:
            code = self._processes[worker].wait()
            how = f"signal {-code}" if code < 0 else f"exit code {code}"
            raise EnvPoolError(f"worker {worker} of {self.env_id} died ({how})") from error

    def _start_worker(self, memory_fd: int) -> None:
        ours, theirs = Pipe()
        path = [entry or os.getcwd() for entry in sys.path]
        threads = {name: "1" for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")}
        arguments = (theirs.fileno(), memory_fd, os.getpid())
        self._processes.append(
            subprocess.Popen(
                # -P: the working directory is searched only where this process searches it.
                [sys.executable, "-P", "-m", "rl_jax.envs.worker", *map(str, arguments)],
                stdin=subprocess.DEVNULL,
                stdout=2,  # what an environment prints is for people; standard output is the program's own
                env={**os.environ, **threads, "PYTHONPATH": os.pathsep.join(path)},
                pass_fds=arguments[:2],
            )
        )
        self._connections.append(ours)
        theirs.close()


def _stop(processes: list[subprocess.Popen], connections: list[Connection]) -> None:
    for connection in connections:
        connection.close()
    deadline = time.monotonic() + 2.0  # for all of them together
    for process in processes:
        try:
            process.wait(timeout=max(deadline - time.monotonic(), 0.0))
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def find_spec(env_id: str) -> Any:
    """Gymnasium's EnvSpec of an id, or of `module:Id-v0`; ValueError where there is none."""
    gymnasium = require("gymnasium", "mujoco")
    module, _, name = env_id.rpartition(":")
    module = module or OWN_TASKS.get(name.partition("-")[0], "")
    try:
        if module:
            importlib.import_module(module)
        # Not `gymnasium.make(id)`: that warns of every version but the newest, and published scores are of older ones.
        return gymnasium.spec(name)
    except (gymnasium.error.Error, ModuleNotFoundError) as error:
        raise ValueError(f"there is no Gymnasium environment {env_id!r}: {error}") from error


def _find_spaces(env_id: str, spec: Any, env_kwargs: Mapping[str, Any], savable: bool) -> tuple[Any, Any, int]:
    """The spaces of one environment, and the size of its state where it is to be saved."""
    gymnasium = require("gymnasium", "mujoco")
    try:
        env = make_env(spec, env_kwargs)
    except MissingExtraError:
        raise
    except (gymnasium.error.DependencyNotInstalled, ModuleNotFoundError) as error:
        raise MissingExtraError(f"{env_id} cannot be made: {error} (pip install 'rl_jax[mujoco]')") from error
    except Exception as error:
        raise EnvPoolError(f"{env_id} cannot be made: {type(error).__name__}: {error}") from error
    spaces = env.observation_space, env.action_space
    if savable:
        env.reset(seed=0)
    try:
        physics_size = Physics(env).size() if savable else 0
    finally:
        env.close()
    for name, space in zip(("observations", "actions"), spaces):
        if not isinstance(space, gymnasium.spaces.Box):
            raise ValueError(f"{name} of {env_id} must be a Box, not {space}")
    return *spaces, physics_size


def _array_spec(space: Any) -> ArraySpec:
    return ArraySpec(tuple(space.shape), space.dtype.str)


def _memory_folder() -> str | None:
    """Where a nameless file lives in memory; None is the folder of temporary files."""
    return "/dev/shm" if os.access("/dev/shm", os.W_OK) else None


def _usable_cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
