"""What V-PTR reads: clips of another body, a robot's demonstrations of several tasks, a few of the task that counts.

A scene is the body's row, column, red, green and blue, then the same of each thing that lies about, float32 [O];
pictures are drawn of scenes inside the compiled step. In each clip of the video the body has another colour.
"""

from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from ml_collections import ConfigDict

from rl_jax.core.config import unknown
from rl_jax.core.program import Key
from rl_jax.data.cache import content_checksum
from rl_jax.data.episodes import Episodes
from rl_jax.data.transitions import Transitions
from rl_jax.data.video import Video
from rl_jax.envs.velocity_maze import ALCOVES, SPRITES, drawn, moved, picture, random_positions, towards, ways_to

MAZE = drawn(ALCOVES)
CELLS = np.argwhere(MAZE)
PRIOR_GOALS = ((1, 1), (1, 7), (7, 1), (4, 4))  # of the robot's tasks before; no goal of the video is named
GOAL = (7, 7)  # of the task that counts
TASKS = (*PRIOR_GOALS, GOAL)
FINAL = 3  # last steps of a demonstration, which are in the goal and rewarded
REWARDS = (10.0, -1.0)  # there and elsewhere: 11 r - 1
OUTSIDE = -9.0  # a place that no picture shows
DARK = 0.8  # what a body's colours are below; the floor is lighter
REACHED = 0.5  # cells from the goal's middle, along each axis


class Robot(NamedTuple):
    """Demonstrations, the prior tasks' first.

    Attributes:
      transitions: N steps; observations are (scenes [N, O], one-hot tasks [N, K]), with mc_returns.
      prior: how many steps are of the prior tasks.
      video: what a camera sees of the prior tasks.
      checksum: of all.
    """

    transitions: Transitions
    prior: int
    video: Video
    checksum: str


def pictures(config: ConfigDict, scenes: jax.Array, sprite: str) -> jax.Array:
    """What differs from the empty maze in pictures of scenes [..., O]: [..., H, W, 3] in [-1, 1].

    Without the walls, which fill most of a picture and are always the same, features of two places hardly differ.
    """
    size, body = config.world.pixels, SPRITES[sprite]._replace(colour=scenes[..., None, None, 2:5])
    clutter = scenes[..., 5:].reshape(*scenes.shape[:-1], -1, 5)
    empty = picture(MAZE, jnp.array([OUTSIDE, OUTSIDE]), size, SPRITES[sprite])
    return (picture(MAZE, scenes[..., :2], size, body, clutter).astype(jnp.float32) - empty) / 255.0


def check_sprites(config: ConfigDict) -> None:
    """Raises ValueError for a sprite that does not exist."""
    for field in ("human", "robot"):
        if config.world[field] not in SPRITES:
            raise ValueError(unknown(f"sprite in config.world.{field}", config.world[field], SPRITES))


def scenes_of(positions: jax.Array, key: Key, things: int, sprite: str = "") -> jax.Array:
    """Positions [E, T, 2] beside a colour and things that lie still in each episode, [E, T, O].

    Args:
      sprite: whose colour the body has; a colour of its own in each episode if empty.
    """
    place_key, thing_key, body_key = jax.random.split(key, 3)
    count, steps = positions.shape[:2]
    places = random_positions(MAZE, place_key, count * things).reshape(count, things, 2)
    clutter = jnp.concatenate([places, jax.random.uniform(thing_key, (count, things, 3))], -1).reshape(count, 1, -1)
    body = jax.random.uniform(body_key, (count, 1, 3), maxval=DARK)
    body = jnp.broadcast_to(jnp.asarray(SPRITES[sprite].colour), body.shape) if sprite else body
    parts = positions, *(jnp.broadcast_to(x, (count, steps, x.shape[-1])) for x in (body, clutter))
    return jnp.concatenate(parts, -1)


def walks(
    config: ConfigDict, seed: int, goals: np.ndarray, steps: int, sprite: str = ""
) -> tuple[np.ndarray, np.ndarray]:
    """Noisy shortest ways to goals [E, 2], and staying there: (scenes [E, steps + 1, O], actions [E, steps, 2])."""
    start_key, noise_key, scene_key = jax.random.split(jax.random.key(seed), 3)
    cells, which = np.unique(goals, axis=0, return_inverse=True)
    ways = jnp.asarray(np.stack([ways_to(MAZE, cell) for cell in cells]))[which.reshape(-1)]
    noise = config.world.noise * jax.random.normal(noise_key, (steps, len(goals), 2))

    def step(places: jax.Array, noise: jax.Array) -> tuple[jax.Array, tuple[jax.Array, jax.Array]]:
        actions = jnp.clip(jax.vmap(towards)(ways, places) + noise, -1.0, 1.0)
        after = jax.vmap(lambda place, action: moved(jnp.asarray(MAZE), place, action))(places, actions)
        return after, (after, actions)

    starts = random_positions(MAZE, start_key, len(goals))
    _, (after, actions) = jax.lax.scan(step, starts, noise)
    positions = jnp.concatenate([starts[:, None], after.swapaxes(0, 1)], 1)
    scenes = scenes_of(positions, scene_key, config.world.things, sprite)
    return np.asarray(scenes, np.float32), np.asarray(actions.swapaxes(0, 1), np.float32)


def human_video(config: ConfigDict) -> Video:
    """Clips of who walks to goals all over the maze; what they do there nobody says."""
    own = config.world
    goals = CELLS[np.random.default_rng(own.seed).integers(0, len(CELLS), own.clips)]
    scenes, _ = walks(config, own.seed, goals, own.clip_steps)
    count = own.clips * own.clip_steps
    frames, next_frames = (x.reshape(count, -1) for x in (scenes[:, :-1], scenes[:, 1:]))
    return Video(frames, next_frames, np.repeat(np.arange(1, own.clips + 1) * own.clip_steps - 1, own.clip_steps))


def demonstrations(config: ConfigDict, seed: int, tasks: Sequence[int]) -> tuple[Episodes, np.ndarray]:
    """(a demonstration of each task of a list, which ends after FINAL steps in the goal; the tasks of the steps)."""
    steps = config.world.robot_steps
    goals = np.array(TASKS)[np.asarray(tasks)]
    scenes, actions = walks(config, seed, goals, steps, config.world.robot)
    there = np.abs(scenes[:, 1:, :2] - goals[:, None] - 0.5).max(-1) < REACHED
    # The first step after which FINAL steps in a row have been there.
    done = np.stack([there[:, i : steps - FINAL + 1 + i] for i in range(FINAL)]).all(0)
    lengths = np.where(done.any(1), done.argmax(1) + FINAL, 0)
    kept = np.flatnonzero(lengths)
    cut = [np.concatenate([x[e, : lengths[e]] for e in kept]) for x in (scenes[:, :-1], actions, scenes[:, 1:])]
    starts = np.cumsum([0, *lengths[kept]])
    back = np.repeat(starts[1:], lengths[kept]) - np.arange(starts[-1])  # steps to the end, 1 at the last
    rewards = np.where(back <= FINAL, *REWARDS).astype(np.float32)
    episodes = Episodes(cut[0], cut[1], rewards, back == 1, np.zeros(len(back), bool), cut[2],
                        starts[:-1].astype(np.int64))
    return episodes, np.repeat(np.asarray(tasks)[kept], lengths[kept])


def robot_data(config: ConfigDict) -> Robot:
    """What the robot has: `config.world.prior` demonstrations of the prior tasks in turn, and of the last one."""
    own = config.world
    prior, prior_tasks = demonstrations(config, own.seed + 1, np.arange(own.prior) % len(PRIOR_GOALS))
    target, target_tasks = demonstrations(config, own.seed + 2, np.full(own.demonstrations, len(PRIOR_GOALS)))
    parts = [part.to_transitions(("mc_returns",), config.agent.get("discount", 1.0)) for part in (prior, target)]
    joined = jax.tree.map(lambda *arrays: np.concatenate(arrays), *parts)
    tasks = np.eye(len(TASKS), dtype=np.float32)[np.concatenate([prior_tasks, target_tasks])]
    joined = joined.replace(observations=(joined.observations, tasks),
                            next_observations=(joined.next_observations, tasks))
    return Robot(joined, len(prior), Video.of(prior), f"{content_checksum(prior)} {content_checksum(target)}")


def steps_to(cell: Sequence[int]) -> np.ndarray:
    """Steps of a shortest way from each cell to one, [R, C]; 0 for walls."""
    ways, at, steps = ways_to(MAZE, cell), np.stack(np.indices(MAZE.shape), -1), np.zeros(MAZE.shape)
    for _ in range(MAZE.sum()):
        following = ways[at[..., 0], at[..., 1]]
        steps, at = steps + (following != at).any(-1), following
    return steps
