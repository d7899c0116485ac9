"""Four rooms that meet at one crossing, seen through a 3x3 window: where a way has to be put together from two others.

Episodes begin in the north-west room (start A) or in the north-east one (start B). A landmark, shown at the first step
alone, says which start it is and which of two goals, in the southern corners, is the right one; the other one ends the
episode too, with nothing. The right goal is shown alike at both starts: no episode of A gets to a goal, so were it a
sign of A's own no data could say what it means. Beside the window every step shows a token that is drawn anew each time
and means nothing, so that no two histories are the same.

Two kinds of behaviour make the data. A goes from start A to the crossing and then wanders, never onto a goal; B goes
from start B through the crossing to a goal. So no episode leads from start A to a goal, and a learner that is asked for
that has to put the first half of an A together with the second half of a B.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from rl_jax.core.config import unknown
from rl_jax.data.episodes import Episodes, concatenate_episodes
from rl_jax.envs.environment import Environment, Key, TimeStep
from rl_jax.envs.recording import Behaviour, record

LAYOUT = (  # the rooms of the starts, the crossing +, the goals 0 and 1
    "AAAA#BBBB",
    "AAAA#BBBB",
    "AAAA#BBBB",
    "AAAA.BBBB",
    "####+####",
    ".........",
    "....#....",
    "....#....",
    "0...#...1",
)
SIZE = len(LAYOUT)
CELLS = "".join(LAYOUT)  # a position is a place in it
MOVES = ((-1, 0), (1, 0), (0, -1), (0, 1))  # north, south, west, east
TOKENS = 16  # kinds of the token that means nothing
CROSSING = CELLS.index("+")
GOALS = (CELLS.index("0"), CELLS.index("1"))
VIEWS = ("partial", "state")


class GridState(NamedTuple):
    """Where an episode is; int32 scalars. `start` is 0 for A and 1 for B, `goal` the right one."""

    position: jax.Array
    start: jax.Array
    goal: jax.Array
    time: jax.Array


def stitching_grid(
    start: str = "A", view: str = "partial", horizon: int = 30, either_goal: bool = False
) -> Environment:
    """The task; the right goal pays 1, and a time-out after `horizon` steps is no terminal.

    Args:
      start: "A" or "B".
      view: "partial" shows the walls of the 3x3 window [9], the token [16] and, at the first step, the landmark: the
        start [2] and the right goal [2]; "state" shows the position [81] and the right goal [2], with which no memory
        is needed.
      either_goal: whether the wrong goal pays too: so one sees who finds a way and forgot where to.

    Raises:
      ValueError: there is no such start or view.
    """
    if start not in ("A", "B"):
        raise ValueError(unknown("start", start, ("A", "B")))
    if view not in VIEWS:
        raise ValueError(unknown("view", view, VIEWS))
    room = jnp.array([cell for cell, letter in enumerate(CELLS) if letter == start], jnp.int32)
    after, windows = jnp.asarray(successors()), jnp.asarray(walls_around())

    def observe(state: GridState, key: Key) -> jax.Array:
        if view == "state":
            return jnp.concatenate([jax.nn.one_hot(state.position, len(CELLS)), jax.nn.one_hot(state.goal, 2)])
        token = jax.nn.one_hot(jax.random.randint(key, (), 0, TOKENS), TOKENS)
        landmark = jnp.concatenate([jax.nn.one_hot(state.start, 2), jax.nn.one_hot(state.goal, 2)])
        return jnp.concatenate([windows[state.position], token, landmark * (state.time == 0)])

    def reset(key: Key) -> tuple[GridState, jax.Array]:
        room_key, goal_key, token_key = jax.random.split(key, 3)
        goal = jax.random.randint(goal_key, (), 0, 2)
        state = GridState(jax.random.choice(room_key, room), jnp.int32(start == "B"), goal, jnp.int32(0))
        return state, observe(state, token_key)

    def step(state: GridState, action: jax.Array, key: Key) -> tuple[GridState, TimeStep]:
        state = state._replace(position=after[state.position, action], time=state.time + 1)
        goals = jnp.array(GOALS)
        terminated = jnp.any(state.position == goals)
        reward = (terminated if either_goal else state.position == goals[state.goal]).astype(jnp.float32)
        truncated = ~terminated & (state.time >= horizon)
        return state, TimeStep(observe(state, key), reward, terminated, truncated)

    return Environment(reset, step, len(MOVES), horizon)


def behaviour_a(noise: float) -> Behaviour:
    """Goes to the crossing and then wanders, never onto a goal; every way to the crossing has random moves in it, with
    probability `noise`. It remembers whether it has been at the crossing."""
    nearer, safe = jnp.asarray(nearer_to(CROSSING)), jnp.asarray(~np.isin(successors(), GOALS))

    def act(reached: jax.Array, state: GridState, key: Key) -> tuple[jax.Array, jax.Array]:
        reached = reached | (state.position == CROSSING)
        return reached, noisy_choice(jnp.where(reached, safe, nearer)[state.position], noise * ~reached, key)

    return Behaviour(lambda key: jnp.zeros((), bool), act)


def behaviour_b(noise: float, wrong_share: float) -> Behaviour:
    """Goes to a goal, the wrong one with probability `wrong_share`, which it remembers; see `behaviour_a`."""
    nearer = jnp.asarray(np.stack([nearer_to(goal) for goal in GOALS]))

    def act(wrong: jax.Array, state: GridState, key: Key) -> tuple[jax.Array, jax.Array]:
        return wrong, noisy_choice(nearer[state.goal ^ wrong, state.position], noise, key)

    return Behaviour(lambda key: jax.random.bernoulli(key, wrong_share).astype(jnp.int32), act)


def recorded(num_episodes: int, view: str, *, noise: float, wrong_share: float, horizon: int, seed: int) -> Episodes:
    """Episodes of A, and as many of B; those of both views are of the same moves.

    Raises:
      ValueError: the number is not even.
    """
    if num_episodes < 2 or num_episodes % 2:
        raise ValueError(f"config.data.episodes={num_episodes}: give an even number, half for each behaviour")
    behaviours = {"A": behaviour_a(noise), "B": behaviour_b(noise, wrong_share)}
    keys = jax.random.split(jax.random.key(seed), 2)
    return concatenate_episodes(
        record(stitching_grid(start, view, horizon), behaviour, num_episodes // 2, key)
        for (start, behaviour), key in zip(behaviours.items(), keys, strict=True)
    )


def noisy_choice(good: jax.Array, noise: jax.Array | float, key: Key) -> jax.Array:
    """One of the moves that are `good` [4] bool, all alike; with probability `noise` one of all."""
    noise_key, choice_key = jax.random.split(key)
    allowed = good | jax.random.bernoulli(noise_key, noise)
    return jax.random.categorical(choice_key, jnp.where(allowed, 0.0, -jnp.inf)).astype(jnp.int32)


# Tables of the rooms, by position


def successors() -> np.ndarray:
    """Where each move leads, [81, 4] int32: a wall or the edge leaves one where one is."""
    table = np.zeros((len(CELLS), len(MOVES)), np.int32)
    for cell in range(len(CELLS)):
        for move, (down, right) in enumerate(MOVES):
            row, column = cell // SIZE + down, cell % SIZE + right
            inside = 0 <= row < SIZE and 0 <= column < SIZE and LAYOUT[row][column] != "#"
            table[cell, move] = row * SIZE + column if inside else cell
    return table


def walls_around() -> np.ndarray:
    """The 3x3 window around each position, [81, 9] float32: 1 for a wall, or beyond the edge."""
    walls = np.pad(np.array([[cell == "#" for cell in row] for row in LAYOUT]), 1, constant_values=True)
    windows = np.lib.stride_tricks.sliding_window_view(walls, (3, 3))
    return windows.reshape(len(CELLS), 9).astype(np.float32)


def nearer_to(goal: int) -> np.ndarray:
    """Which moves bring one nearer to a position, [81, 4] bool; in the position itself, and in walls, all."""
    after = successors()
    steps = np.full(len(CELLS), np.inf)
    steps[goal] = 0.0
    for _ in range(len(CELLS)):
        steps = np.minimum(steps, steps[after].min(1) + 1.0)
    nearer = steps[after] < steps[:, None]
    return nearer | ~nearer.any(1, keepdims=True)
