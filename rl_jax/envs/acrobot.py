"""Acrobot-v1: two links that hang from a hinge, to be swung up by a torque between them.

Sutton 1996, "Generalization in Reinforcement Learning: Successful Examples Using Sparse Coarse Coding". The constants,
the dynamics (those of Sutton and Barto's book), the Runge-Kutta step and the rewards are Gymnasium's Acrobot-v1.
"""

import math
from typing import NamedTuple

import jax
import jax.numpy as jnp

from rl_jax.envs.environment import Environment, Key, TimeStep

GRAVITY = 9.8  # m / s^2
CENTRE = 0.5  # of a link of 1 m and 1 kg, m from its hinge; its moment of inertia is 1 kg m^2
SECONDS = 0.2  # between two actions
MAX_SPEEDS = (4 * math.pi, 9 * math.pi)  # rad / s
START = 0.1  # each of an episode's first angles and speeds is uniform within +-START
TIME_LIMIT = 500


class AcrobotState(NamedTuple):
    """angles rad and their speeds rad/s, the first link's from hanging down, the second's from the first: float32 [4];
    steps: int32 scalar."""

    motion: jax.Array
    steps: jax.Array


def acrobot() -> Environment:
    """Observations are cosine and sine of both angles and both speeds, [6]; actions 0, 1, 2 are a torque of -1, 0 and 1
    N m. Every step costs 1 but the one that lifts the tip by a link's length above the hinge, which ends the episode.
    """

    def reset(key: Key) -> tuple[AcrobotState, jax.Array]:
        motion = jax.random.uniform(key, (4,), minval=-START, maxval=START)
        return AcrobotState(motion, jnp.zeros((), jnp.int32)), observed(motion)

    def step(state: AcrobotState, action: jax.Array, key: Key) -> tuple[AcrobotState, TimeStep]:
        del key
        motion, steps = moved(state.motion, action), state.steps + 1
        terminated = -jnp.cos(motion[0]) - jnp.cos(motion[1] + motion[0]) > 1.0
        truncated = (steps >= TIME_LIMIT) & ~terminated
        reward = jnp.where(terminated, 0.0, -1.0)
        return AcrobotState(motion, steps), TimeStep(observed(motion), reward, terminated, truncated)

    return Environment(reset, step, num_actions=3, horizon=TIME_LIMIT)


def observed(motion: jax.Array) -> jax.Array:
    """Observations [6] of a motion [4]."""
    cosines, sines = jnp.cos(motion[:2]), jnp.sin(motion[:2])
    return jnp.stack([cosines[0], sines[0], cosines[1], sines[1], motion[2], motion[3]])


def moved(motion: jax.Array, action: jax.Array) -> jax.Array:
    """The motion [4] one step later: the classical Runge-Kutta method, angles wrapped to +-pi and speeds bounded."""
    torque = jnp.asarray(action, motion.dtype) - 1.0
    one = accelerated(motion, torque)
    two = accelerated(motion + SECONDS / 2 * one, torque)
    three = accelerated(motion + SECONDS / 2 * two, torque)
    four = accelerated(motion + SECONDS * three, torque)
    motion = motion + SECONDS / 6 * (one + 2 * two + 2 * three + four)
    angles = jnp.mod(motion[:2] + math.pi, 2 * math.pi) - math.pi
    bounds = jnp.array(MAX_SPEEDS)
    return jnp.concatenate([angles, jnp.clip(motion[2:], -bounds, bounds)])


def accelerated(motion: jax.Array, torque: jax.Array) -> jax.Array:
    """The derivative [4] of a motion by time."""
    first, second, first_speed, second_speed = motion
    cos = jnp.cos(second)
    d1 = CENTRE**2 + (1.0 + CENTRE**2 + 2.0 * CENTRE * cos) + 2.0
    d2 = CENTRE**2 + CENTRE * cos + 1.0
    phi2 = CENTRE * GRAVITY * jnp.cos(first + second - math.pi / 2)
    phi1 = (
        -CENTRE * second_speed**2 * jnp.sin(second) - 2.0 * CENTRE * second_speed * first_speed * jnp.sin(second)
        + (CENTRE + 1.0) * GRAVITY * jnp.cos(first - math.pi / 2) + phi2
    )
    second_acceleration = (torque + d2 / d1 * phi1 - CENTRE * first_speed**2 * jnp.sin(second) - phi2) / (
        CENTRE**2 + 1.0 - d2**2 / d1
    )
    first_acceleration = -(d2 * second_acceleration + phi1) / d1
    return jnp.stack([first_speed, second_speed, first_acceleration, second_acceleration])
