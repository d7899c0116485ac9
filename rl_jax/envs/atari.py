"""Atari games on the host, as an environment of pure functions that is stepped in batches.

A state of the emulator is a string of bytes, so a step is a pure function of bytes and an action, computed on the host
by a pool of threads with an emulator each (`jax.pure_callback`). What learns in a pure-JAX environment learns here
unchanged: states are arrays, checkpoints hold them, and a resumed run goes on exactly.

Settings: Laidlaw et al. 2023, arXiv 2312.08369, and the code of its authors; screens: Mnih et al. 2015, Nature 518.
"""

import functools
import os
import queue
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from rl_jax.core.extras import require
from rl_jax.envs.environment import Environment, Key, TimeStep, check_sticky, sticky_action

SIZE = 84  # pixels of a screen's side
SNAPSHOT_BYTES = 16_384  # more than any game's state takes; the first four are the length of what follows


class Emulator:
    """One game, which can be set to any of its states.

    Args:
      rom: the game's name, e.g. "freeway", or a ROM file.
      frameskip: frames for which an action is held.
      seed: of the emulator.
    """

    def __init__(self, rom: str, frameskip: int, seed: int = 0):
        self._ale_py = require("ale_py", "atari")
        path = rom
        if not os.path.isfile(path):
            path = os.path.join(os.path.dirname(self._ale_py.__file__), "roms", f"{rom}.bin")
        if not os.path.isfile(path):
            raise ValueError(
                f"no Atari game {rom!r}: give a name such as freeway, as ale-py writes it, or a ROM's path"
            )
        self._ale_py.ALEInterface.setLoggerMode(self._ale_py.LoggerMode.Error)
        self._ale = self._ale_py.ALEInterface()
        self._ale.setInt("random_seed", seed)
        self._ale.setFloat("repeat_action_probability", 0.0)
        self._ale.loadROM(path)
        self._ale.reset_game()
        self._frameskip, self._actions = frameskip, self._ale.getMinimalActionSet()

    @property
    def num_actions(self) -> int:
        return len(self._actions)

    def snapshot(self) -> bytes:
        return self._ale.cloneSystemState().serialize()

    def restore(self, snapshot: bytes) -> None:
        self._ale.restoreSystemState(self._ale_py.ALEState(snapshot))

    def screen(self) -> np.ndarray:
        """uint8 [84, 84], grey, each pixel the mean of those it covers."""
        image = require("PIL.Image", "atari")
        grey = image.fromarray(self._ale.getScreenGrayscale())
        return np.asarray(grey.resize((SIZE, SIZE), image.Resampling.BOX))

    def step(self, action: int) -> tuple[float, bool]:
        """(reward, whether the game is over) of an action held for `frameskip` frames."""
        return float(sum(self._ale.act(self._actions[action]) for _ in range(self._frameskip))), self._ale.game_over()


class AtariState(NamedTuple):
    """Where an episode is.

    Attributes:
      snapshot: uint8 [SNAPSHOT_BYTES], the emulator's state.
      frames: uint8 [84, 84, F], the last screens, oldest first.
      previous_action: int32 scalar, the one executed.
      time: int32 scalar, decisions so far.
    """

    snapshot: jax.Array
    frames: jax.Array
    previous_action: jax.Array
    time: jax.Array


def atari(
    rom: str, *, horizon: int, frameskip: int, sticky: float = 0.0, frame_stack: int = 4, reward_scale: float = 1.0,
    seed: int = 0, num_threads: int | None = None,
) -> Environment:
    """A game as an environment of pure functions whose steps run on the host.

    Every episode begins where the game does, so `reset` ignores its key; the step at the horizon is `truncated`.
    Under vmap all copies are stepped in one call of the host, side by side in threads.

    Args:
      rom, frameskip, seed: see Emulator.
      horizon: decisions of an episode.
      sticky: see `sticky_action`.
      frame_stack: F, screens of an observation, uint8 [84, 84, F].
      reward_scale: what rewards are multiplied by.
      num_threads: as many as there are processors if not given.
    """
    check_sticky(sticky)
    if horizon < 1 or frameskip < 1 or frame_stack < 1:
        given = f"horizon={horizon}, frameskip={frameskip}, frame_stack={frame_stack}"
        raise ValueError(f"{given}: give at least 1 of each")
    first = Emulator(rom, frameskip, seed)
    snapshot, frame = _packed(first.snapshot()), first.screen()
    frames = np.repeat(frame[..., None], frame_stack, -1)
    pool = _Pool(rom, frameskip, seed, num_threads or os.cpu_count() or 1)
    shapes = (
        jax.ShapeDtypeStruct((SNAPSHOT_BYTES,), jnp.uint8), jax.ShapeDtypeStruct((SIZE, SIZE), jnp.uint8),
        jax.ShapeDtypeStruct((), jnp.float32), jax.ShapeDtypeStruct((), jnp.bool_),
    )

    def reset(key: Key) -> tuple[AtariState, jax.Array]:
        del key
        zero = jnp.zeros((), jnp.int32)
        state = AtariState(jnp.asarray(snapshot), jnp.asarray(frames), zero, zero)
        return state, state.frames

    def step(state: AtariState, action: jax.Array, key: Key) -> tuple[AtariState, TimeStep]:
        executed = sticky_action(action, state.previous_action, state.time, sticky, key)
        after, frame, reward, over = jax.pure_callback(
            pool.step, shapes, state.snapshot, executed, vmap_method="broadcast_all"
        )
        stacked = jnp.concatenate([state.frames[..., 1:], frame[..., None]], -1)
        time = state.time + 1
        time_step = TimeStep(stacked, reward_scale * reward, over, ~over & (time >= horizon))
        return AtariState(after, stacked, executed, time), time_step

    return Environment(reset, step, first.num_actions, horizon)


class _Pool:
    """Threads with an emulator each; an emulator's step does not hold Python's lock."""

    def __init__(self, rom: str, frameskip: int, seed: int, size: int):
        self._make = functools.partial(Emulator, rom, frameskip, seed)
        self._free: queue.SimpleQueue[Emulator] = queue.SimpleQueue()
        self._threads = ThreadPoolExecutor(size, thread_name_prefix="atari")

    def step(self, snapshots: Any, actions: Any) -> tuple[np.ndarray, ...]:
        """Steps from snapshots [..., SNAPSHOT_BYTES] by actions [...]."""
        snapshots, actions = np.asarray(snapshots), np.asarray(actions)
        rows = zip(snapshots.reshape(-1, SNAPSHOT_BYTES), actions.reshape(-1), strict=True)
        results = zip(*self._threads.map(self._one, rows), strict=True)
        dtypes = (np.uint8, np.uint8, np.float32, np.bool_)
        arrays = [np.asarray(result, dtype) for result, dtype in zip(results, dtypes, strict=True)]
        return tuple(array.reshape((*actions.shape, *array.shape[1:])) for array in arrays)

    def _one(self, row: tuple[np.ndarray, np.ndarray]) -> tuple[np.ndarray, np.ndarray, float, bool]:
        snapshot, action = row
        try:
            emulator = self._free.get_nowait()
        except queue.Empty:
            emulator = self._make()  # one a thread at most, since each hands its own back
        emulator.restore(_unpacked(snapshot))
        reward, over = emulator.step(int(action))
        result = _packed(emulator.snapshot()), emulator.screen(), reward, over
        self._free.put(emulator)
        return result


def _packed(snapshot: bytes) -> np.ndarray:
    """uint8 [SNAPSHOT_BYTES]: the length, the snapshot, zeros."""
    if len(snapshot) > SNAPSHOT_BYTES - 4:
        raise ValueError(f"a snapshot has {len(snapshot)} bytes: raise SNAPSHOT_BYTES, which is {SNAPSHOT_BYTES}")
    packed = np.zeros(SNAPSHOT_BYTES, np.uint8)
    packed[:4] = np.frombuffer(len(snapshot).to_bytes(4, "little"), np.uint8)
    packed[4 : 4 + len(snapshot)] = np.frombuffer(snapshot, np.uint8)
    return packed


def _unpacked(packed: np.ndarray) -> bytes:
    length = int.from_bytes(packed[:4].tobytes(), "little")
    return packed[4 : 4 + length].tobytes()
