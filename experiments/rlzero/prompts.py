"""Twelve prompts for four alcoves about a hall, written by hand, and an oracle that draws what each of them says.

The oracle stands in for the text-to-video model of the paper: it knows what a prompt means (the cells to visit) and
draws a clip of a point that goes there. Whatever is said of "imagined" frames here is said of drawn ones.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from rl_jax.envs.velocity_maze import ALCOVES, drawn, moved, towards, ways_to

PACE = 8  # steps between two stations


class Prompt(NamedTuple):
    """What is asked.

    Attributes:
      text: for people.
      stations: cells (row, column) that are visited in turn.
      region: (first row, first column, last row, last column) of the cells in which the prompt is obeyed.
    """

    text: str
    stations: tuple[tuple[int, int], ...]
    region: tuple[int, int, int, int]


PROMPTS = (
    Prompt("wait in the upper left corner", ((1, 1),), (1, 1, 2, 2)),
    Prompt("wait in the upper right corner", ((1, 7),), (1, 6, 2, 7)),
    Prompt("wait in the lower left corner", ((7, 1),), (6, 1, 7, 2)),
    Prompt("wait in the lower right corner", ((7, 7),), (6, 6, 7, 7)),
    Prompt("stand in the middle of the hall", ((4, 4),), (4, 3, 4, 5)),
    Prompt("stand between the upper alcoves", ((2, 4),), (2, 3, 2, 5)),
    Prompt("stand between the alcoves on the left", ((4, 2),), (3, 2, 5, 2)),
    Prompt("stand between the alcoves on the right", ((4, 6),), (3, 6, 5, 6)),
    Prompt("pace along the upper wall of the first alcove", ((1, 1), (1, 3)), (1, 1, 1, 3)),
    Prompt("pace along the right wall of the second alcove", ((1, 7), (3, 7)), (1, 7, 3, 7)),
    Prompt("pace along the left wall of the third alcove", ((5, 1), (7, 1)), (5, 1, 7, 1)),
    Prompt("pace along the bottom wall of the last alcove", ((7, 5), (7, 7)), (7, 5, 7, 7)),
)
MAZE = drawn(ALCOVES)


def obeyed(positions: jax.Array) -> jax.Array:
    """1.0 where positions [P, ..., 2], or [1, ..., 2] for all prompts, are in the region, else 0.0: [P, ...]."""
    shape = (len(PROMPTS), *[1] * (positions.ndim - 2), 2)
    low = jnp.array([prompt.region[:2] for prompt in PROMPTS], jnp.float32).reshape(shape)
    high = jnp.array([prompt.region[2:] for prompt in PROMPTS], jnp.float32).reshape(shape) + 1.0
    return jnp.all((positions >= low) & (positions < high), -1).astype(jnp.float32)


def expert_paths(starts: np.ndarray, steps: int) -> np.ndarray:
    """Where a point goes that does what each prompt says, by shortest ways: float32 [P, E, steps, 2].

    Args:
      starts: positions [E, 2], not on the paths.
    """
    longest = max(len(prompt.stations) for prompt in PROMPTS)
    ways = jnp.asarray(np.stack([
        [ways_to(MAZE, prompt.stations[i % len(prompt.stations)]) for i in range(longest)] for prompt in PROMPTS
    ]))
    free = jnp.asarray(MAZE)

    def path(ways: jax.Array, start: jax.Array) -> jax.Array:
        def step(place: jax.Array, time: jax.Array) -> tuple[jax.Array, jax.Array]:
            place = moved(free, place, towards(ways[time // PACE % longest], place))
            return place, place

        return jax.lax.scan(step, start, jnp.arange(steps))[1]

    of_prompt = jax.vmap(path, (None, 0))
    return np.asarray(jax.jit(jax.vmap(of_prompt, (0, None)))(ways, jnp.asarray(starts, jnp.float32)))
