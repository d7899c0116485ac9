"""Deterministic tabular MDPs with a finite horizon.

Format: Laidlaw, Russell and Dragan 2023, "Bridging RL Theory and Practice with the Effective Horizon",
arXiv 2304.09853.
"""

import hashlib
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct

TERMINAL = -1  # in `transitions`


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


def check_mdp(mdp: TabularMDP, source: str = "the MDP") -> TabularMDP:
    """The same MDP as int32 and float32 arrays.

    Raises:
      ValueError: it is no MDP; the message names `source`, the field, the index and the remedy.
    """
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
    """Raises ValueError naming the first bad entry [state, action] of an array, if there is one."""
    if bad.any():
        state, action = np.argwhere(bad)[0]
        raise ValueError(
            f"{source}: {field}[{state}, {action}] is {array[state, action]} ({bad.sum()} such entries): {remedy}"
        )


def with_terminal(transitions: jax.Array | np.ndarray) -> jax.Array:
    """Transitions [S + 1, A] of an MDP's [S, A]: the terminal as one more state, S, where every action stays."""
    num_states, num_actions = transitions.shape
    following = jnp.where(transitions == TERMINAL, num_states, transitions)
    return jnp.concatenate([following, jnp.full((1, num_actions), num_states, following.dtype)])


def checksum(mdp: TabularMDP) -> str:
    """sha256 (hex) of the MDP's content, the same whatever file it came from."""
    mdp = check_mdp(mdp)
    digest = hashlib.sha256(f"{mdp.transitions.shape} {mdp.horizon}".encode())
    digest.update(mdp.transitions.astype("<i4").tobytes())
    digest.update(mdp.rewards.astype("<f4").tobytes())
    return digest.hexdigest()
