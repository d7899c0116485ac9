"""CartPole-v1: a pole on a cart, kept upright by pushes to the left or to the right.

Barto, Sutton and Anderson 1983, "Neuronlike Adaptive Elements That Can Solve Difficult Learning Control Problems". The
constants, the order of the Euler step and the rewards are Gymnasium's CartPole-v1.
"""

import math
from typing import NamedTuple

import jax
import jax.numpy as jnp

from rl_jax.envs.environment import Environment, Key, TimeStep

GRAVITY = 9.8  # m / s^2
CART_MASS, POLE_MASS = 1.0, 0.1  # kg
HALF_LENGTH = 0.5  # of the pole, m
FORCE = 10.0  # N
SECONDS = 0.02  # between two actions
MAX_POSITION = 2.4  # m, beyond which the cart is off the track
MAX_ANGLE = 12 * 2 * math.pi / 360  # rad, beyond which the pole has fallen
START = 0.05  # each number of an episode's first observation is uniform within +-START
TIME_LIMIT = 500


class CartPoleState(NamedTuple):
    """position m, velocity m/s, angle rad, angular velocity rad/s: float32 [4]; steps: int32 scalar."""

    motion: jax.Array
    steps: jax.Array


def cartpole() -> Environment:
    """Observations are the state's motion, [4]; action 0 pushes to the left, 1 to the right; every step is worth 1."""

    def reset(key: Key) -> tuple[CartPoleState, jax.Array]:
        motion = jax.random.uniform(key, (4,), minval=-START, maxval=START)
        return CartPoleState(motion, jnp.zeros((), jnp.int32)), motion

    def step(state: CartPoleState, action: jax.Array, key: Key) -> tuple[CartPoleState, TimeStep]:
        del key
        motion, steps = moved(state.motion, action), state.steps + 1
        terminated = (jnp.abs(motion[0]) > MAX_POSITION) | (jnp.abs(motion[2]) > MAX_ANGLE)
        truncated = (steps >= TIME_LIMIT) & ~terminated
        return CartPoleState(motion, steps), TimeStep(motion, jnp.ones(()), terminated, truncated)

    return Environment(reset, step, num_actions=2, horizon=TIME_LIMIT)


def moved(motion: jax.Array, action: jax.Array) -> jax.Array:
    """The motion [4] one Euler step later: accelerations at the old motion, positions by the old velocities."""
    position, velocity, angle, spin = motion
    cos, sin = jnp.cos(angle), jnp.sin(angle)
    mass, moment = CART_MASS + POLE_MASS, POLE_MASS * HALF_LENGTH
    force = jnp.where(action == 1, FORCE, -FORCE)
    push = (force + moment * jnp.square(spin) * sin) / mass
    turn = (GRAVITY * sin - cos * push) / (HALF_LENGTH * (4.0 / 3.0 - POLE_MASS * jnp.square(cos) / mass))
    acceleration = push - moment * turn * cos / mass
    return motion + SECONDS * jnp.stack([velocity, acceleration, spin, turn])
