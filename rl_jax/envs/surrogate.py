"""A model of an environment as an environment: pure, made of arrays that are known only when the program runs, and so
stepped in thousands of copies at once.

Sutton 1991 (Dyna); Zolman et al. 2024 (SINDy-RL), arXiv 2403.09110. An episode starts where real ones do, and ends at
the horizon or where the model leaves its box: a polynomial has no reason to be right there, or finite.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from rl_jax.envs.cartpole_swingup import RAIL, SECONDS, cartpole_swingup, swingup_reward
from rl_jax.envs.environment import Environment, Key, TimeStep

Predict = Callable[[jax.Array, jax.Array], jax.Array]
Reward = Callable[[jax.Array, jax.Array], jax.Array]


class World(NamedTuple):
    """What is known of a task beside its steps.

    Attributes:
      variables, actions: names of the observation's and the action's numbers, for printing.
      seconds: of a step.
      box: (low [O], high [O]) that the surrogate's episodes end outside of; () for the box of the data.
      environment: the task as pure functions; None where it is a simulator's.
      env_id: the Gymnasium id of the simulator; "" where there is none.
      reward: (observations [..., O] after a step, actions [..., A]) -> [...]; None where it is not known.
      project: observations [..., O] -> the nearest that can be.
      smooth: observations [..., O] -> bool, where no contact acts: steps beyond are not fitted.
    """

    variables: tuple[str, ...]
    actions: tuple[str, ...]
    seconds: float
    box: tuple = ()
    environment: Environment | None = None
    env_id: str = ""
    reward: Reward | None = None
    project: Callable[[jax.Array], jax.Array] = lambda observations: observations
    smooth: Callable[[jax.Array], jax.Array] = lambda observations: jnp.ones(observations.shape[:-1], bool)


def on_the_circle(observations: jax.Array) -> jax.Array:
    """Cart-pole observations [..., 5] with (cosine, sine) scaled to length 1."""
    length = jnp.linalg.norm(observations[..., 1:3], axis=-1, keepdims=True)
    pair = observations[..., 1:3] / jnp.maximum(length, 1e-6)
    return jnp.concatenate([observations[..., :1], pair, observations[..., 3:]], -1)


_SWINGUP = World(
    ("x", "cos", "sin", "v", "w"), ("u",), SECONDS,
    box=((-5.0, -1.1, -1.1, -10.0, -10.0), (5.0, 1.1, 1.1, 10.0, 10.0)),  # the authors'
    reward=swingup_reward, project=on_the_circle, smooth=lambda observations: jnp.abs(observations[..., 0]) < RAIL,
)
_SWIMMER = ("angle", "joint1", "joint2", "vx", "vy", "spin", "spin1", "spin2")
WORLDS = {
    "swingup": _SWINGUP._replace(environment=cartpole_swingup()),
    "dm_control": _SWINGUP._replace(env_id="dm_control-cartpole-swingup-v0"),
    "swimmer": World(_SWIMMER, ("u1", "u2"), 0.04, env_id="Swimmer-v5"),
}


def surrogate(
    world: World, predict: Predict, reward: Reward, starts: jax.Array, box: tuple[jax.Array, jax.Array], horizon: int
) -> Environment:
    """The environment of a model; its state is (observation [O], steps).

    Args:
      predict: (observation [O], action [A] in [-1, 1]) -> the next one.
      reward: of the next observation and the action.
      starts: [K, O] observations, one of which begins an episode.
      box: (low [O], high [O]); leaving it, or a number that is none, is a terminal.
    """
    low, high = box

    def reset(key: Key) -> tuple[Any, jax.Array]:
        observation = starts[jax.random.randint(key, (), 0, len(starts))]
        return (observation, jnp.zeros((), jnp.int32)), observation

    def step(state: tuple[jax.Array, jax.Array], action: jax.Array, key: Key) -> tuple[Any, TimeStep]:
        del key
        (observation, steps), action = state, jnp.clip(action, -1.0, 1.0)
        following = predict(observation, action)
        inside = jnp.all((following >= low) & (following <= high))  # false for a NaN
        following = jnp.clip(jnp.where(jnp.isfinite(following), following, observation), low, high)
        following, steps = world.project(following), steps + 1
        truncated = inside & (steps >= horizon)
        return (following, steps), TimeStep(following, reward(following, action), ~inside, truncated)

    return Environment(reset, step, num_actions=len(world.actions), horizon=horizon)


def roll_out(world: World, predict: Predict, start: jax.Array, actions: jax.Array, box: tuple) -> jax.Array:
    """Observations [T, O] that a model predicts behind `start` [O] under actions [T, A], each from the one before;
    they are kept in the box, so that a model that blows up is far off and not infinite."""
    low, high = box

    def step(observation: jax.Array, action: jax.Array) -> tuple[jax.Array, jax.Array]:
        following = predict(observation, jnp.clip(action, -1.0, 1.0))
        following = jnp.clip(jnp.where(jnp.isfinite(following), following, observation), low, high)
        following = world.project(following)
        return following, following

    return jax.lax.scan(step, start, actions)[1]
