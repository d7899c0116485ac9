"""A point that is steered by its velocity through a maze, in pure JAX: moves, data, shortest ways, pictures.

Positions are (row, column) in cells: the cell of row r and column c is [r, r + 1) x [c, c + 1). Observations are
positions scaled to [-1, 1].
"""

from collections import deque
from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from rl_jax.data.episodes import Episodes
from rl_jax.envs.environment import Environment, Key, TimeStep

WALL, FREE = "#", "."
SPEED = 0.7  # cells a step at most along each axis, below 1 so that no wall is jumped over
GAP = 0.1  # cells between a wall and a point that has run into it
ALCOVES = (
    "#########",
    "#...#...#",
    "#.......#",
    "#.......#",
    "##.....##",
    "#.......#",
    "#.......#",
    "#...#...#",
    "#########",
)


class Sprite(NamedTuple):
    """How the point is drawn: "disc", "square" or "cross", half its size in cells, and its colour in [0, 1]."""

    shape: str
    reach: float
    colour: tuple[float, float, float]


SPRITES = {
    "own": Sprite("disc", 0.45, (0.0, 0.45, 0.7)),
    "square": Sprite("square", 0.4, (0.84, 0.37, 0.0)),
    "cross": Sprite("cross", 0.6, (0.0, 0.62, 0.45)),
}
CLUTTER = ("disc", 0.25)  # shape and reach of things that lie about


def drawn(rows: Sequence[str]) -> np.ndarray:
    """Where a maze is free, bool [R, C].

    Raises:
      ValueError: rows of several lengths, another character, nothing free, or a border that is not all wall.
    """
    if not rows or len({len(row) for row in rows}) != 1:
        raise ValueError(f"the maze's rows have lengths {[len(row) for row in rows]}: give at least one, all of one")
    grid = np.array([list(row) for row in rows])
    if unknown := sorted(set(grid.ravel().tolist()) - {WALL, FREE}):
        raise ValueError(f"the maze has {unknown[0]!r}: draw with {WALL} {FREE}")
    free = grid == FREE
    if not free.any() or free[[0, -1]].any() or free[:, [0, -1]].any():
        raise ValueError("the maze needs a free cell and a border of walls")
    return free


def observed(free: np.ndarray, positions: jax.Array | np.ndarray) -> jax.Array | np.ndarray:
    """Positions [..., 2] in cells -> observations [..., 2] in [-1, 1]."""
    return 2.0 * positions / np.array(free.shape, np.float32) - 1.0


def position(free: np.ndarray, observations: jax.Array | np.ndarray) -> jax.Array | np.ndarray:
    """The inverse of `observed`."""
    return (observations + 1.0) / 2.0 * np.array(free.shape, np.float32)


def moved(free: jax.Array, place: jax.Array, action: jax.Array) -> jax.Array:
    """The position [2] after an action [2] in [-1, 1]^2: rows first, then columns; a wall stops the point."""
    for axis in range(2):
        cell = jnp.floor(place).astype(jnp.int32)
        ahead = place.at[axis].add(SPEED * jnp.clip(action[axis], -1.0, 1.0))
        there = jnp.floor(ahead).astype(jnp.int32)
        stopped = ahead.at[axis].set(jnp.clip(ahead[axis], cell[axis] + GAP, cell[axis] + 1.0 - GAP))
        place = jnp.where(free[there[0], there[1]], ahead, stopped)
    return place


def random_positions(free: np.ndarray, key: Key, count: int) -> jax.Array:
    """[count, 2], uniform over the free cells but for their borders."""
    cell_key, place_key = jax.random.split(key)
    cells = jnp.asarray(np.argwhere(free), jnp.float32)
    chosen = cells[jax.random.randint(cell_key, (count,), 0, len(cells))]
    return chosen + jax.random.uniform(place_key, (count, 2), minval=GAP, maxval=1.0 - GAP)


def velocity_maze(free: np.ndarray, horizon: int) -> Environment:
    """The maze as an environment without rewards, whose episodes end by time alone; actions [2] in [-1, 1]^2."""
    cells = jnp.asarray(free)

    def reset(key: Key) -> tuple[tuple[jax.Array, jax.Array], jax.Array]:
        place = random_positions(free, key, 1)[0]
        return (place, jnp.zeros((), jnp.int32)), observed(free, place)

    def step(
        state: tuple[jax.Array, jax.Array], action: jax.Array, key: Key
    ) -> tuple[tuple[jax.Array, jax.Array], TimeStep]:
        del key
        place, steps = moved(cells, state[0], action), state[1] + 1
        stepped = TimeStep(observed(free, place), jnp.zeros(()), jnp.zeros((), bool), steps >= horizon)
        return (place, steps), stepped

    return Environment(reset, step, num_actions=2, horizon=horizon)


def collect(free: np.ndarray, num_episodes: int, steps: int, seed: int) -> Episodes:
    """Episodes of uniform actions from uniform positions, rewards 0: their visits are near to uniform."""
    start_key, action_key = jax.random.split(jax.random.key(seed))
    actions = jax.random.uniform(action_key, (steps, num_episodes, 2), minval=-1.0, maxval=1.0)
    cells = jnp.asarray(free)

    def one(places: jax.Array, actions: jax.Array) -> tuple[jax.Array, tuple[jax.Array, jax.Array]]:
        after = jax.vmap(lambda place, action: moved(cells, place, action))(places, actions)
        return after, (places, after)

    starts = random_positions(free, start_key, num_episodes)
    _, (before, after) = jax.jit(lambda start, actions: jax.lax.scan(one, start, actions))(starts, actions)
    before, after = (np.asarray(observed(free, x.swapaxes(0, 1).reshape(-1, 2)), np.float32) for x in (before, after))
    number = num_episodes * steps
    return Episodes(
        before, np.asarray(actions.swapaxes(0, 1).reshape(-1, 2)), np.zeros(number, np.float32),
        np.zeros(number, bool), np.arange(number) % steps == steps - 1, after,
        np.arange(0, number, steps, dtype=np.int64),
    )


def ways_to(free: np.ndarray, cell: Sequence[int]) -> np.ndarray:
    """Of each cell the next one on a shortest way to `cell`, int32 [R, C, 2]; of walls and of cells from which no way
    leads there, the cell itself.

    Raises:
      ValueError: `cell` is a wall.
    """
    if not free[tuple(cell)]:
        raise ValueError(f"cell {tuple(cell)} is a wall: name a free one")
    following = np.stack(np.indices(free.shape), -1).astype(np.int32)
    seen, queue = {tuple(cell)}, deque([tuple(cell)])
    while queue:
        at = queue.popleft()
        for down, right in ((-1, 0), (0, 1), (1, 0), (0, -1)):
            beside = at[0] + down, at[1] + right
            if free[beside] and beside not in seen:
                seen.add(beside)
                queue.append(beside)
                following[beside] = at
    return following


def towards(ways: jax.Array, place: jax.Array) -> jax.Array:
    """The action [2] from a position [2] to the middle of the next cell by `ways_to`."""
    cell = jnp.floor(place).astype(jnp.int32)
    return jnp.clip((ways[cell[0], cell[1]] + 0.5 - place) / SPEED, -1.0, 1.0)


def picture(
    free: np.ndarray, positions: jax.Array, size: int, sprite: Sprite, clutter: jax.Array | None = None
) -> jax.Array:
    """Positions [..., 2] as pictures uint8 [..., size, size, 3]: dark walls, a light floor and the sprite.

    Args:
      clutter: [..., K, 5], things that lie about beneath the sprite: their positions, and their colours in [0, 1].

    Raises:
      ValueError: the sprite has an unknown shape.
    """
    rows, columns = free.shape
    down, right = (jnp.arange(size) + 0.5) / size * rows, (jnp.arange(size) + 0.5) / size * columns
    floor = jnp.asarray(free)[down.astype(jnp.int32)[:, None], right.astype(jnp.int32)]
    ground = jnp.where(floor[..., None], 0.93, 0.25) * jnp.ones(3)

    def painted(image: jax.Array, places: jax.Array, shape: str, reach: float, colour: jax.Array) -> jax.Array:
        y, x = jnp.abs(down - places[..., :1])[..., :, None], jnp.abs(right - places[..., 1:])[..., None, :]
        if shape == "disc":
            distance = jnp.sqrt(y * y + x * x)
        elif shape == "square":
            distance = jnp.maximum(y, x)
        elif shape == "cross":
            distance = jnp.maximum(jnp.maximum(y, x), 2.5 * jnp.minimum(y, x))
        else:
            raise ValueError(f"sprite.shape is {shape!r}: choose disc, square or cross")
        pixel = rows / size
        cover = jnp.clip((reach - distance) / pixel + 0.5, 0.0, 1.0)[..., None]  # softened over a pixel
        return (1.0 - cover) * image + cover * colour

    image = ground
    for k in range(0 if clutter is None else clutter.shape[-2]):
        image = painted(image, clutter[..., k, :2], *CLUTTER, clutter[..., k, None, None, 2:])
    image = painted(image, positions, sprite.shape, sprite.reach, jnp.asarray(sprite.colour))
    return jnp.round(255.0 * image).astype(jnp.uint8)
