"""Cart-pole swing-up of dm_control's suite as pure functions: the same equations, integrator, rail and reward.

Tassa et al. 2018, "DeepMind Control Suite", arXiv 1801.00690. A pole hangs from a cart that is pushed along a rail; it
has to be swung up and held. MuJoCo's model is a cart of 1 kg and a capsule of 0.1 kg, its integrator Runge and Kutta's
of order 4, and the ends of the rail are one soft constraint, which has a closed form.
"""

import math
from typing import NamedTuple

import jax
import jax.numpy as jnp

from rl_jax.envs.environment import Environment, Key, TimeStep

SECONDS = 0.01  # of a step
TIME_LIMIT = 1000
START = 0.01  # standard deviation of each number at an episode's start, about a pole that hangs at rest
GRAVITY = 9.81  # m / s^2
CART_MASS, POLE_MASS = 1.0, 0.1  # kg
CENTRE = 0.5  # of the pole's mass, from the hinge, m
RADIUS = 0.045  # of the capsule, m
CART_DAMPING, HINGE_DAMPING = 5e-4, 2e-6  # N s / m, N m s
FORCE = 10.0  # N at an action of 1
RAIL = 1.8  # m to either side
# MuJoCo's solref and solimp of the rail's ends.
TIME_CONSTANT = 0.08  # s, critically damped
SOFTEST, HARDEST, WIDTH = 0.9, 0.95, 0.001


class SwingUpState(NamedTuple):
    """motion: position m, angle rad (0 is upright), velocity m/s, angular velocity rad/s, float32 [4]; steps: int32."""

    motion: jax.Array
    steps: jax.Array


def cartpole_swingup() -> Environment:
    """Observations [5]: position, cosine and sine of the angle, velocity, angular velocity; actions [1], clipped to
    [-1, 1]. Nothing but the time limit ends an episode."""

    def reset(key: Key) -> tuple[SwingUpState, jax.Array]:
        motion = START * jax.random.normal(key, (4,)) + jnp.array([0.0, math.pi, 0.0, 0.0])
        return SwingUpState(motion, jnp.zeros((), jnp.int32)), observed(motion)

    def step(state: SwingUpState, action: jax.Array, key: Key) -> tuple[SwingUpState, TimeStep]:
        del key
        motion, steps = moved(state.motion, jnp.clip(action, -1.0, 1.0)[0]), state.steps + 1
        observation = observed(motion)
        reward = swingup_reward(observation, action)
        state = SwingUpState(motion, steps)
        return state, TimeStep(observation, reward, jnp.zeros((), bool), steps >= TIME_LIMIT)

    return Environment(reset, step, num_actions=1, horizon=TIME_LIMIT)


def observed(motion: jax.Array) -> jax.Array:
    """Motions [..., 4] -> observations [..., 5]."""
    position, angle, velocity, spin = jnp.moveaxis(motion, -1, 0)
    return jnp.stack([position, jnp.cos(angle), jnp.sin(angle), velocity, spin], -1)


def moved(motion: jax.Array, push: jax.Array) -> jax.Array:
    """The motion [4] one step of Runge and Kutta's later, under a push in [-1, 1]."""
    first = rates(motion, push)
    second = rates(motion + 0.5 * SECONDS * first, push)
    third = rates(motion + 0.5 * SECONDS * second, push)
    fourth = rates(motion + SECONDS * third, push)
    return motion + SECONDS / 6.0 * (first + 2.0 * second + 2.0 * third + fourth)


def rates(motion: jax.Array, push: jax.Array) -> jax.Array:
    """d/dt of the motion [4]: M(angle) a = forces, and what the rail adds where the cart is beyond its end."""
    position, angle, velocity, spin = motion
    cos, sin = jnp.cos(angle), jnp.sin(angle)
    total, coupling, inertia = CART_MASS + POLE_MASS, POLE_MASS * CENTRE * cos, _inertia()
    along = FORCE * push - CART_DAMPING * velocity + POLE_MASS * CENTRE * sin * jnp.square(spin)
    about = POLE_MASS * GRAVITY * CENTRE * sin - HINGE_DAMPING * spin
    determinant = total * inertia - jnp.square(coupling)
    free = (inertia * along - coupling * about) / determinant
    # The rail's force is what brings the constraint's acceleration to its reference, softened by R (MuJoCo's
    # documentation, "Computation: constraint model"); side is 1 or -1, so that both ends are written once.
    side = jnp.sign(position)
    beyond = jnp.maximum(side * position - RAIL, 0.0)
    hardness = SOFTEST + (HARDEST - SOFTEST) * _sigmoid(beyond / WIDTH)
    damping, stiffness = 2.0 / (HARDEST * TIME_CONSTANT), 1.0 / (HARDEST * TIME_CONSTANT) ** 2
    wanted = damping * side * velocity + stiffness * hardness * beyond
    upright = POLE_MASS * CENTRE
    softness = (1.0 - hardness) / hardness * _inertia() / (total * _inertia() - upright**2)
    force = jnp.where(beyond > 0.0, jnp.maximum(wanted + side * free, 0.0), 0.0)
    force = -side * force / (inertia / determinant + softness)
    acceleration = free + inertia * force / determinant
    turn = (about - coupling * acceleration) / inertia
    return jnp.stack([velocity, spin, acceleration, turn])


def _inertia() -> float:
    """Of the capsule about the hinge, kg m^2."""
    cylinder, ends = math.pi * RADIUS**2, 4.0 / 3.0 * math.pi * RADIUS**3  # the cylinder is 1 m long
    share = cylinder / (cylinder + ends)
    own = share * (1.0 / 12.0 + RADIUS**2 / 4.0)
    own += (1.0 - share) * (0.4 * RADIUS**2 + 0.25 + 0.375 * RADIUS)
    return POLE_MASS * (own + CENTRE**2)


def _sigmoid(x: jax.Array) -> jax.Array:
    """MuJoCo's, of midpoint 0.5 and power 2: 0 at 0 and 1 from 1 on."""
    return jnp.where(x < 0.5, 2.0 * jnp.square(x), 1.0 - 2.0 * jnp.square(1.0 - jnp.minimum(x, 1.0)))


def swingup_reward(observation: jax.Array, action: jax.Array) -> jax.Array:
    """The suite's smooth reward in [0, 1], [...]: observations [..., 5] after the step, actions [..., 1] in it."""
    position, cos, _, _, spin = jnp.moveaxis(observation, -1, 0)
    upright = (1.0 + cos) / 2.0
    centred = (1.0 + _near(position, 2.0)) / 2.0
    gentle = (4.0 + 1.0 - jnp.square(jnp.clip(action[..., 0], -1.0, 1.0))) / 5.0
    slow = (1.0 + _near(spin, 5.0)) / 2.0
    return upright * centred * gentle * slow


def _near(x: jax.Array, margin: float) -> jax.Array:
    """The suite's tolerance: 1 at 0 and 0.1 at the margin, Gaussian."""
    return jnp.exp(math.log(0.1) * jnp.square(x / margin))
