"""What RLZero reads: data of a maze, drawn clips in the place of imagined ones, the states nearest to them."""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from ml_collections import ConfigDict

from experiments.rlzero.prompts import MAZE, expert_paths
from rl_jax.agents.agent import Agent
from rl_jax.core.config import unknown
from rl_jax.core.program import PyTree
from rl_jax.data.cache import content_checksum
from rl_jax.data.transitions import Transitions
from rl_jax.envs.velocity_maze import SPRITES, collect, moved, observed, picture, position, random_positions
from rl_jax.generative.embedders import AT_ONCE, Embedder, make_embedder, nearest, stacked

STARTS, CLIP_STARTS = jax.random.key(1), jax.random.key(2)  # of roll-outs and of clips, the same for all runs


class World(NamedTuple):
    """The maze's data.

    Attributes:
      transitions: N, host arrays.
      starts: of its episodes, [E].
      checksum: of the data.
    """

    transitions: Transitions
    starts: np.ndarray
    checksum: str


class Clips(NamedTuple):
    """One clip a prompt and what was made of it.

    Attributes:
      positions: [P, L, 2] in cells, where the oracle drew the point.
      projected: observations [P, L, 2] of the data's states whose pictures are nearest.
      table, pictured: the embedded states' vectors [M, K], and those of the clips' pictures [P, L, K].
      embed: of pictures.
    """

    positions: np.ndarray
    projected: np.ndarray
    table: np.ndarray
    pictured: np.ndarray
    embed: Embedder


def make_world(config: ConfigDict) -> World:
    own = config.maze
    episodes = collect(MAZE, own.episodes, own.episode_steps, own.seed)
    return World(episodes.to_transitions(), episodes.starts, content_checksum(episodes))


def frames(config: ConfigDict, positions: np.ndarray, sprite: str) -> np.ndarray:
    """Pictures uint8 [N, H, W, 3] of positions [N, 2].

    Raises:
      ValueError: there is no such sprite.
    """
    if sprite not in SPRITES:
        raise ValueError(unknown("sprite in config.imagine.sprite", sprite, SPRITES))

    def draw(place: jax.Array) -> jax.Array:
        return picture(MAZE, place, config.embedder.pixels, SPRITES[sprite])

    return np.asarray(jax.jit(lambda places: jax.lax.map(draw, places, batch_size=AT_ONCE))(positions))


def make_clips(config: ConfigDict, world: World) -> Clips:
    """Imagine and project: draws a clip a prompt and finds the nearest pictures of the data, window by window."""
    own, window = config.embedder, config.embedder.window
    start = random_positions(MAZE, CLIP_STARTS, 1)
    positions = expert_paths(start, config.imagine.frames)[:, 0]
    states = world.transitions.next_observations[: own.states]
    seen = frames(config, position(MAZE, states), "own")
    embed = make_embedder(own.name, seen, own.path)
    begins = world.starts[world.starts < len(states)]
    table = stacked(embed(seen), begins, window)
    count, length = positions.shape[:2]
    drawn = embed(frames(config, positions.reshape(-1, 2), config.imagine.sprite))
    pictured = stacked(drawn, np.arange(count) * length, window)
    projected = states[nearest(pictured, table)].reshape(count, length, 2)
    return Clips(positions, projected, table, pictured.reshape(count, length, -1), embed)


# Judging

# (parameters of one run, observations [P, E, O]) -> actions [P, E, A], a policy a prompt
ActAll = Callable[[PyTree, jax.Array], jax.Array]


class Judge(NamedTuple):
    """Roll-outs of P policies from E starts each, the same for all runs.

    Attributes:
      starts: positions [E, 2].
      steps: of a roll-out.
    """

    starts: np.ndarray
    steps: int

    @classmethod
    def of(cls, config: ConfigDict) -> "Judge":
        return cls(np.asarray(random_positions(MAZE, STARTS, config.eval_episodes)), config.imagine.horizon)

    def paths(self, act: ActAll, num_policies: int) -> Callable[[PyTree], jax.Array]:
        """A function of one run's parameters to positions [P, E, steps, 2] behind each step."""
        free = jnp.asarray(MAZE)
        each = jax.vmap(jax.vmap(lambda place, action: moved(free, place, action)))

        def roll(params: PyTree) -> jax.Array:
            def step(places: jax.Array, _: None) -> tuple[jax.Array, jax.Array]:
                places = each(places, act(params, observed(MAZE, places)))
                return places, places

            start = jnp.broadcast_to(jnp.asarray(self.starts), (num_policies, *self.starts.shape))
            return jnp.moveaxis(jax.lax.scan(step, start, None, length=self.steps)[1], 0, 2)

        return roll


def with_latents(agent: Agent) -> Callable[[PyTree, jax.Array, jax.Array], jax.Array]:
    """(parameters, observations [P, E, O], latents [P, D]) -> the mode's actions [P, E, A]."""

    def act(params: PyTree, observations: jax.Array, latents: jax.Array) -> jax.Array:
        wide = jnp.broadcast_to(latents[:, None], (*observations.shape[:2], latents.shape[-1]))
        return agent.act(params, (observations, wide), jax.random.key(0), 0.0)

    return act
