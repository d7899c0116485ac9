"""Deterministic tabular MDPs with a finite horizon: their files, the BRIDGE ones shipped here, and an environment.

Format: Laidlaw, Russell and Dragan 2023, "Bridging RL Theory and Practice with the Effective Horizon",
arXiv 2304.09853; sticky actions: Laidlaw et al. 2023, arXiv 2312.08369. `bridge/SOURCE.md` describes the files.
"""

import hashlib
import os
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct

from rl_jax.envs.environment import Environment, Key, TimeStep

TERMINAL = -1  # in `transitions`
BRIDGE_DIR = Path(__file__).parent / "bridge"
# Horizons of the BRIDGE MDPs shipped here; their files do not hold them.
BRIDGE = {
    "MiniGrid-Empty-16x16-DistanceShaped-v0": 100,
    "MiniGrid-KeyCorridorS3R1-v0": 100,
    "MiniGrid-UnlockPickup-OpenDoorsPickupShaped-v0": 100,
    "freeway_10_fs30": 10,
    "freeway_10_fs30_framestack": 10,
    "maze_easy_l0_30_fs1": 30,
}
# Those that come with an exploration policy of the authors, and its file.
BRIDGE_EXPLORATION = {
    "freeway_10_fs30_framestack": "freeway_10_fs30_exploration_policy",
    "maze_easy_l0_30_fs1": "maze_easy_l0_30_fs1_exploration_policy",
}


class TabularMDP(struct.PyTreeNode):
    """A deterministic MDP of S states and A actions; every episode starts in state 0 and has at most `horizon` steps.

    Attributes:
      transitions: int32 [S, A], the next state, or -1 where the action ends the episode.
      rewards: float32 [S, A].
      horizon: steps of the longest episode. Nothing is earned after it: a time-out is the end of the problem.
    """

    transitions: np.ndarray
    rewards: np.ndarray
    horizon: int = struct.field(pytree_node=False)

    @property
    def num_states(self) -> int:
        return self.transitions.shape[0]

    @property
    def num_actions(self) -> int:
        return self.transitions.shape[1]


class Screens(NamedTuple):
    """What the states look like; kept apart from the MDP, so that an analysis does not carry it.

    Attributes:
      images: uint8 [N, height, width, channels] or [N, height, width].
      of_state: int32 [S], the image of each state, or [S, F], its F last ones, oldest first.
    """

    images: np.ndarray
    of_state: np.ndarray


class TabularState(NamedTuple):
    """Where an episode is: int32 scalars. `state` is -1 after a terminal; `previous_action` is the one executed."""

    state: jax.Array
    previous_action: jax.Array
    time: jax.Array


def check_mdp(mdp: TabularMDP, source: str = "the MDP") -> TabularMDP:
    """The same MDP as int32 and float32 arrays; ValueError naming `source`, field, index and remedy if it is none."""
    transitions, rewards = np.asarray(mdp.transitions), np.asarray(mdp.rewards)
    if transitions.ndim != 2 or 0 in transitions.shape:
        raise ValueError(
            f"{source}: transitions has shape {transitions.shape}: give [states, actions], at least one of each"
        )
    if rewards.shape != transitions.shape:
        raise ValueError(
            f"{source}: rewards has shape {rewards.shape} and transitions {transitions.shape}: "
            "both are [states, actions]"
        )
    if not np.issubdtype(transitions.dtype, np.integer):
        raise ValueError(f"{source}: transitions has dtype {transitions.dtype}: store state numbers as integers")
    if not (np.issubdtype(rewards.dtype, np.floating) or np.issubdtype(rewards.dtype, np.integer)):
        raise ValueError(f"{source}: rewards has dtype {rewards.dtype}: store float32")
    num_states = transitions.shape[0]
    _refuse(
        (transitions < TERMINAL) | (transitions >= num_states), transitions, source, "transitions",
        f"use state numbers 0 to {num_states - 1}, or -1 where the episode ends",
    )
    _refuse(~np.isfinite(rewards), rewards, source, "rewards", "every reward must be a finite number")
    if isinstance(mdp.horizon, bool) or int(mdp.horizon) != mdp.horizon or mdp.horizon < 1:
        raise ValueError(f"{source}: horizon is {mdp.horizon!r}: give a whole number of steps, at least 1")
    return TabularMDP(transitions.astype(np.int32), rewards.astype(np.float32), int(mdp.horizon))


def _refuse(bad: np.ndarray, array: np.ndarray, source: str, field: str, remedy: str) -> None:
    if bad.any():
        state, action = np.argwhere(bad)[0]
        raise ValueError(
            f"{source}: {field}[{state}, {action}] is {array[state, action]} ({bad.sum()} such entries): {remedy}"
        )


def check_sticky(sticky: float) -> None:
    """ValueError if it is no probability below 1."""
    if not 0.0 <= sticky < 1.0:
        raise ValueError(f"sticky is {sticky}: give a probability, at least 0 and below 1")


def sticky_action(
    action: jax.Array, previous_action: jax.Array, time: jax.Array, sticky: float, key: Key
) -> jax.Array:
    """The action executed, int32: with probability `sticky` the previous one; never at an episode's first step."""
    repeats = (jax.random.uniform(key) < sticky) & (time > 0)
    return jnp.where(repeats, previous_action, jnp.asarray(action, jnp.int32))


def with_terminal(transitions: jax.Array | np.ndarray) -> jax.Array:
    """Transitions [S + 1, A] of an MDP's [S, A]: the terminal as one more state, S, where every action stays."""
    num_states, num_actions = transitions.shape
    following = jnp.where(transitions == TERMINAL, num_states, transitions)
    return jnp.concatenate([following, jnp.full((1, num_actions), num_states, following.dtype)])


def load_mdp(path: str | os.PathLike, horizon: int | None = None) -> TabularMDP:
    """Reads the MDP of an npz file with `transitions`, `rewards` and, if `save_mdp` wrote it, `horizon`.

    Args:
      horizon: steps of an episode; without it the file's own, or that of the BRIDGE MDP of the file's name.

    Raises:
      FileNotFoundError or ValueError: the message names the file, the field and the remedy.
    """
    arrays = _read(path, ("transitions", "rewards"), ("horizon",))
    if horizon is None:
        horizon = arrays["horizon"].item() if "horizon" in arrays else BRIDGE.get(Path(path).stem)
    if horizon is None:
        endless = "" if (arrays["transitions"] == TERMINAL).any() else " and no transition ends an episode"
        raise ValueError(f"{path}: the file has no horizon{endless}: give the number of steps as horizon")
    return check_mdp(TabularMDP(arrays["transitions"], arrays["rewards"], horizon), str(path))


def load_screens(path: str | os.PathLike) -> Screens:
    """Reads the images of an npz file with `screens` and `screen_mapping`; errors as those of `load_mdp`."""
    arrays = _read(path, ("screens", "screen_mapping"))
    images, of_state = arrays["screens"], arrays["screen_mapping"]
    if images.dtype != np.uint8 or images.ndim not in (3, 4):
        raise ValueError(
            f"{path}: screens is {images.dtype} {images.shape}: store uint8 [images, height, width(, channels)]"
        )
    if of_state.ndim not in (1, 2) or not np.issubdtype(of_state.dtype, np.integer):
        raise ValueError(f"{path}: screen_mapping is {of_state.dtype} {of_state.shape}: store integers [states]")
    if of_state.size and not (0 <= of_state.min() and of_state.max() < len(images)):
        index = np.argwhere((of_state < 0) | (of_state >= len(images)))[0]
        raise ValueError(
            f"{path}: screen_mapping{index.tolist()} is {of_state[tuple(index)]}: use 0 to {len(images) - 1}, "
            "the images of `screens`"
        )
    return Screens(images, of_state.astype(np.int32))


def _read(path: str | os.PathLike, needed: tuple[str, ...], optional: tuple[str, ...] = ()) -> dict[str, np.ndarray]:
    """The named arrays of an npz file."""
    try:
        with np.load(path, allow_pickle=False) as file:
            names, arrays = file.files, {name: file[name] for name in (*needed, *optional) if name in file.files}
    except FileNotFoundError as error:
        raise FileNotFoundError(f"{path}: no such file: give an npz file with transitions and rewards") from error
    except (zipfile.BadZipFile, zlib.error, EOFError, OSError, ValueError, TypeError, AttributeError) as error:
        # Of what numpy says of such a file only the first sentence is about the file.
        reason = str(error).partition(". ")[0]
        raise ValueError(f"{path}: not a readable npz file ({reason}): write it again with save_mdp") from error
    for name in needed:
        if name not in arrays:
            there = ", ".join(names[:6] + ["..."] * (len(names) > 6)) or "none"
            raise ValueError(f"{path}: no array {name!r}, it has {there}: add it")
    return arrays


def save_mdp(path: str | os.PathLike, mdp: TabularMDP, screens: Screens | None = None) -> None:
    """Writes an npz file that `load_mdp` (and `load_screens`) reads; a file of that name is replaced as a whole."""
    mdp, path = check_mdp(mdp), Path(path)
    arrays = {"transitions": mdp.transitions, "rewards": mdp.rewards, "horizon": np.int32(mdp.horizon)}
    if screens is not None:
        arrays |= {"screens": screens.images, "screen_mapping": screens.of_state}
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        with open(unfinished, "wb") as file:
            np.savez_compressed(file, **arrays)
        os.replace(unfinished, path)
    finally:
        unfinished.unlink(missing_ok=True)


def checksum(mdp: TabularMDP) -> str:
    """sha256 (hex) of the MDP's content, the same whatever file it came from."""
    mdp = check_mdp(mdp)
    digest = hashlib.sha256(f"{mdp.transitions.shape} {mdp.horizon}".encode())
    digest.update(mdp.transitions.astype("<i4").tobytes())
    digest.update(mdp.rewards.astype("<f4").tobytes())
    return digest.hexdigest()


def bridge_mdp(name: str) -> TabularMDP:
    """One of the BRIDGE MDPs shipped here; `BRIDGE` lists them."""
    return load_mdp(bridge_path(name))


def bridge_path(name: str) -> Path:
    """Its file."""
    if name not in BRIDGE:
        raise ValueError(f"no BRIDGE MDP {name!r} is shipped here: use one of {', '.join(BRIDGE)}, or a file's path")
    return BRIDGE_DIR / f"{name}.npz"


def bridge_exploration_policy(name: str) -> np.ndarray:
    """The authors' exploration policy of a BRIDGE MDP, float32 [T, S, A]; `BRIDGE_EXPLORATION` lists who has one."""
    if name not in BRIDGE_EXPLORATION:
        raise ValueError(f"no exploration policy of {name!r}: use one of {', '.join(BRIDGE_EXPLORATION)}")
    # The last state of the file is the terminal one, which an MDP here does not have.
    return _read(BRIDGE_DIR / f"{BRIDGE_EXPLORATION[name]}.npz", ("policy",))["policy"][:, :-1]


def one_hot(mdp: TabularMDP) -> Callable[[jax.Array], jax.Array]:
    """Observations float32 [S]: 1 at the state; zeros after a terminal."""
    return lambda state: jax.nn.one_hot(state, mdp.num_states)


def pictures(screens: Screens) -> Callable[[jax.Array], jax.Array]:
    """Observations uint8 [height, width, channels]; zeros after a terminal.

    The F last images of a state are stacked along the channels: [height, width, F * channels].
    """
    images, of_state = jnp.asarray(screens.images), jnp.asarray(screens.of_state)

    def observe(state: jax.Array) -> jax.Array:
        picture = images[of_state[state]] * (state != TERMINAL).astype(jnp.uint8)
        if images.ndim == 3:
            picture = picture[..., None]
        if of_state.ndim == 2:
            picture = jnp.concatenate(list(picture), -1)
        return picture

    return observe


def environment(
    mdp: TabularMDP, sticky: float = 0.0, observe: Callable[[jax.Array], jax.Array] | None = None
) -> Environment:
    """The MDP as an environment of pure functions.

    Every episode begins in state 0, so `reset` ignores its key. A terminal transition is `terminated`; the step at the
    horizon is `truncated`, because the two are different facts. But the horizon is part of these problems and nothing
    is earned after it: a learner of the finite-horizon problem (discount 1, values that know the time) takes both for
    the end, mask 1 - (terminated | truncated). One that bootstraps through `truncated` solves an endless problem, of
    which `evaluation/planning.py` knows nothing. What a step does after the end of an episode is undefined.

    The tables may be traced, so that they come as an argument of a compiled step; they are not checked here.

    Args:
      sticky: probability that a step executes the action executed before it instead of the given one; never at an
        episode's first step (arXiv 2312.08369, section 4).
      observe: int32 MDP state -> observation, called with -1 after a terminal; `one_hot(mdp)` without it,
        `pictures(screens)` for images. It does not see the previous action.
    """
    check_sticky(sticky)
    transitions, rewards = jnp.asarray(mdp.transitions), jnp.asarray(mdp.rewards)
    observe = observe or one_hot(mdp)
    zero = jnp.zeros((), jnp.int32)

    def reset(key: Key) -> tuple[TabularState, jax.Array]:
        del key
        return TabularState(zero, zero, zero), observe(zero)

    def step(state: TabularState, action: jax.Array, key: Key) -> tuple[TabularState, TimeStep]:
        executed = sticky_action(action, state.previous_action, state.time, sticky, key)
        after, time = transitions[state.state, executed], state.time + 1
        terminated = after == TERMINAL
        truncated = ~terminated & (time >= mdp.horizon)
        time_step = TimeStep(observe(after), rewards[state.state, executed], terminated, truncated)
        return TabularState(after, executed, time), time_step

    return Environment(reset, step, mdp.num_actions, mdp.horizon)
