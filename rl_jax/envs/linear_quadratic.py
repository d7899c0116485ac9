"""Linear dynamics with quadratic costs (LQR), where the optimal policy, its value and every action's regret are exact.

    x' = A x + B u,  reward -(x' Q x + u' R u);  V(x) = -x' P x and u* = -K x by the Riccati equation, undiscounted.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from rl_jax.data.episodes import Episodes
from rl_jax.envs.environment import Environment, Key, TimeStep


class LinearQuadratic(NamedTuple):
    """A problem of n states and m actions; float64 arrays.

    Attributes:
      dynamics, control: A [n, n] and B [n, m].
      state_cost, control_cost: Q [n, n] and R [m, m], symmetric; R is positive definite.
      start: each number of an episode's first state is uniform within +-start.
      bound: actions lie within +-bound; it is wide enough that the optimal ones do from every start.
      horizon: steps of an episode, which ends by time alone.
    """

    dynamics: np.ndarray
    control: np.ndarray
    state_cost: np.ndarray
    control_cost: np.ndarray
    start: float
    bound: float
    horizon: int


class Solution(NamedTuple):
    """K [m, n] and P [n, n], float64."""

    gain: np.ndarray
    cost: np.ndarray


def double_integrator(horizon: int = 100) -> LinearQuadratic:
    """A unit mass pushed along a line, 0.1 s a step: states are position and velocity, actions forces within +-3."""
    seconds = 0.1
    return LinearQuadratic(
        np.array([[1.0, seconds], [0.0, 1.0]]), np.array([[seconds**2 / 2], [seconds]]), np.eye(2), np.eye(1),
        start=1.0, bound=3.0, horizon=horizon,
    )


def solve(problem: LinearQuadratic, tolerance: float = 1e-12) -> Solution:
    """The optimal policy of the infinite horizon, by iterating the Riccati equation.

    Raises:
      ValueError: it does not converge, as where (A, B) cannot be stabilised.
    """
    a, b, q, r = problem[:4]
    cost = q
    for _ in range(100_000):
        gain = np.linalg.solve(r + b.T @ cost @ b, b.T @ cost @ a)
        new = q + a.T @ cost @ (a - b @ gain)
        if np.abs(new - cost).max() <= tolerance * np.abs(new).max():
            return Solution(gain, new)
        cost = new
    raise ValueError("the Riccati iteration does not converge: the problem cannot be stabilised")


def values(solution: Solution, states: np.ndarray) -> np.ndarray:
    """V = -x' P x, [N] float64, of states [N, n]."""
    return -np.einsum("ni,ij,nj->n", states, solution.cost, states, dtype=np.float64)


def regrets(problem: LinearQuadratic, solution: Solution, states: np.ndarray, actions: np.ndarray) -> np.ndarray:
    """V(x) - Q(x, u) = (u + K x)' (R + B' P B) (u + K x), [N] float64: states [N, n], actions [N, m]."""
    off = actions + states @ solution.gain.T
    weight = problem.control_cost + problem.control.T @ solution.cost @ problem.control
    return np.einsum("ni,ij,nj->n", off, weight, off, dtype=np.float64)


def environment(problem: LinearQuadratic) -> Environment:
    """The problem as a pure environment; observations are states [n], actions [m] are clipped to the bound."""
    a, b, q, r = (jnp.asarray(part, jnp.float32) for part in problem[:4])

    def reset(key: Key) -> tuple[tuple[jax.Array, jax.Array], jax.Array]:
        state = jax.random.uniform(key, (a.shape[0],), minval=-problem.start, maxval=problem.start)
        return (state, jnp.zeros((), jnp.int32)), state

    def step(
        carried: tuple[jax.Array, jax.Array], action: jax.Array, key: Key
    ) -> tuple[tuple[jax.Array, jax.Array], TimeStep]:
        del key
        (state, steps), action = carried, jnp.clip(action, -problem.bound, problem.bound)
        reward = -(state @ q @ state + action @ r @ action)
        state, steps = a @ state + b @ action, steps + 1
        return (state, steps), TimeStep(state, reward, jnp.zeros((), bool), steps >= problem.horizon)

    return Environment(reset, step, num_actions=b.shape[1], horizon=problem.horizon)


def collect(
    problem: LinearQuadratic, num_episodes: int, steps: int, *, strength: float, noise: float, seed: int
) -> Episodes:
    """Episodes of u = -strength K x + noise, clipped to the bound, from the problem's own starts.

    The further fields "value" and "next_value" are V before and behind each step, [N] float32.

    Args:
      steps: of an episode.
      strength: the share of the optimal gain.
      noise: standard deviation of normal noise on every action, as a share of the bound.
    """
    solution, rng = solve(problem), np.random.default_rng(seed)
    n, m = problem.control.shape
    states = np.empty((num_episodes, steps + 1, n))
    actions = np.empty((num_episodes, steps, m))
    states[:, 0] = rng.uniform(-problem.start, problem.start, (num_episodes, n))
    for t in range(steps):
        pushed = -strength * states[:, t] @ solution.gain.T + noise * problem.bound * rng.normal(size=(num_episodes, m))
        actions[:, t] = np.clip(pushed, -problem.bound, problem.bound)
        states[:, t + 1] = states[:, t] @ problem.dynamics.T + actions[:, t] @ problem.control.T
    before, after, actions = (x.reshape(-1, x.shape[-1]) for x in (states[:, :-1], states[:, 1:], actions))
    cost = np.einsum("ni,ij,nj->n", before, problem.state_cost, before)
    cost += np.einsum("ni,ij,nj->n", actions, problem.control_cost, actions)
    last = np.arange(len(cost)) % steps == steps - 1
    return Episodes(
        before.astype(np.float32), actions.astype(np.float32), (-cost).astype(np.float32), np.zeros(len(cost), bool),
        last, after.astype(np.float32), np.arange(0, len(cost), steps, dtype=np.int64),
        {"value": values(solution, before).astype(np.float32),
         "next_value": values(solution, after).astype(np.float32)},
    )


def picture(states: jax.Array, size: int, reach: float) -> jax.Array:
    """States [..., 2] as bytes [..., size, size, 3]: a soft dot, position across and velocity up, white on black.

    Args:
      reach: what the middle of the picture is away from its edges, in units of both numbers.
    """
    grid = jnp.linspace(-reach, reach, size)
    across, up = (jnp.exp(-jnp.square((grid - states[..., i : i + 1]) * 8 / reach)) for i in range(2))
    dot = jnp.round(255 * up[..., ::-1, None] * across[..., None, :]).astype(jnp.uint8)
    return jnp.broadcast_to(dot[..., None], (*dot.shape, 3))


def seen_as_pictures(environment: Environment, size: int, reach: float) -> Environment:
    """An environment of two-dimensional states whose observations are their `picture`s."""

    def reset(key: Key) -> tuple[tuple[jax.Array, jax.Array], jax.Array]:
        state, observation = environment.reset(key)
        return state, picture(observation, size, reach)

    def step(
        state: tuple[jax.Array, jax.Array], action: jax.Array, key: Key
    ) -> tuple[tuple[jax.Array, jax.Array], TimeStep]:
        state, stepped = environment.step(state, action, key)
        return state, stepped._replace(observation=picture(stepped.observation, size, reach))

    return environment._replace(reset=reset, step=step)
