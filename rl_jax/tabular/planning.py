"""Exact planning in deterministic tabular MDPs, with and without sticky actions: what a policy earns.

Values come out of one backward recursion over the horizon, in float64 whatever the caller's precision is.

Shapes: S states, A actions, T steps. With sticky actions what follows depends on the action executed before as well,
so a value is [S + 1, P] with P = A, else P = 1; the last state is the terminal one, where every action stays and earns
nothing. Values lie flat, [(S + 1) P, columns], so that one gather fetches a row.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from rl_jax.envs.environment import check_sticky
from rl_jax.tabular.mdp import TabularMDP, check_mdp, with_terminal

REWARD_PRECISION = 1e-4  # an action is suboptimal if its best return is lower than the state's by more than this


def policy_return(mdp: TabularMDP, policy: np.ndarray, sticky: float = 0.0) -> float:
    """Exact expected return of a policy [T, S, A], or [S, A] the same at every step; rows sum to 1."""
    policy = check_policy(mdp, policy)
    return float(policy_returns(mdp, sticky)(policy[None])[0])


def policy_returns(mdp: TabularMDP, sticky: float = 0.0) -> Callable[[np.ndarray], np.ndarray]:
    """A compiled function from N policies, [N, T, S, A] or [N, 1, S, A] the same at every step, to returns [N].

    The returns are exact expectations in float64: a learned policy is judged without the noise of episodes. The
    policies see the state and, if T is there, the time, not the previous action. Their rows are not checked.
    """
    mdp = check_mdp(mdp)
    check_sticky(sticky)

    @jax.jit
    def returns(policies: jax.Array) -> jax.Array:
        dynamics = Dynamics.of(mdp.transitions, mdp.rewards.astype(np.float64), is_sticky=sticky > 0)

        def backward(policy: jax.Array) -> jax.Array:
            def step(values, time):
                q = dynamics.mixed(dynamics.earned(values), jnp.where(time == 0, 0.0, sticky))
                at_time = policy[time] if policy.shape[0] > 1 else policy[0]
                return dynamics.expected(q[..., 0], at_time)[:, None], None

            values, _ = jax.lax.scan(step, dynamics.zeros(1), jnp.arange(mdp.horizon), reverse=True)
            return values[0, 0]

        return jax.lax.map(backward, policies.astype(jnp.float64))

    def call(policies: np.ndarray) -> np.ndarray:
        shape = np.shape(policies)
        if len(shape) != 4 or shape[1] not in (1, mdp.horizon) or shape[2:] != mdp.rewards.shape:
            raise ValueError(
                f"policies has shape {shape}: give [policies, {mdp.horizon} or 1, {mdp.num_states}, {mdp.num_actions}]"
            )
        with jax.enable_x64(True):
            return np.asarray(returns(policies))

    return call


def check_policy(mdp: TabularMDP, policy: np.ndarray) -> np.ndarray:
    """The policy as [T or 1, S, A].

    Raises:
      ValueError: it is no policy of this MDP; the message names the shape or the index.
    """
    policy = np.asarray(policy)
    expected = (mdp.horizon, mdp.num_states, mdp.num_actions)
    if policy.shape not in (expected, (1, *expected[1:]), expected[1:]):
        raise ValueError(
            f"policy has shape {policy.shape}: give {list(expected)} (steps, states, actions) or {list(expected[1:])}"
        )
    policy = policy.reshape(-1, *expected[1:])
    bad = ~(np.abs(policy.sum(-1, dtype=np.float64) - 1.0) <= 1e-4) | (policy < 0.0).any(-1)
    if bad.any():
        time, state = np.argwhere(bad)[0]
        raise ValueError(
            f"policy[{time}, {state}] is {policy[time, state].tolist()}: "
            "probabilities are not negative and sum to 1"
        )
    return policy


def reachable_states(mdp: TabularMDP, is_sticky: bool = False) -> int:
    """How many states an episode can act in; see `Analysis.reachable_states`. A frontier grows step by step.

    Sticky actions change how likely a pair of state and executed action is, not which pairs there are: every action
    may also be chosen. At the first step there is no previous action; it counts as action 0, as in the authors' code.
    """
    following = np.asarray(with_terminal(mdp.transitions))
    num_states, num_actions = following.shape
    seen = np.zeros(num_states, bool)
    seen[0] = True
    frontier = np.zeros(1, np.int64)
    pairs = np.zeros((num_states, num_actions if is_sticky else 1), bool)
    pairs[0, 0] = True
    for _ in range(mdp.horizon - 1):
        after = following[frontier]
        pairs[after, np.arange(num_actions) if is_sticky else 0] = True
        frontier = np.unique(after[~seen[after]])
        if not frontier.size:
            break
        seen[frontier] = True
    return int(pairs.sum())


class Dynamics(NamedTuple):
    """The MDP as the recursion reads it.

    Attributes:
      successors: int32 [S + 1, A], the row of the value after an action is executed.
      rewards: float64 [S + 1, A, 1].
      previous: P.
    """

    successors: jax.Array
    rewards: jax.Array
    previous: int

    @classmethod
    def of(cls, transitions: jax.Array, rewards: jax.Array, *, is_sticky: bool) -> "Dynamics":
        num_actions, following = transitions.shape[1], with_terminal(transitions)
        if is_sticky:
            following = following * num_actions + jnp.arange(num_actions, dtype=following.dtype)
        rewards = jnp.concatenate([rewards, jnp.zeros((1, num_actions), rewards.dtype)])
        return cls(following, rewards[:, :, None], num_actions if is_sticky else 1)

    def zeros(self, columns: int, dtype: jnp.dtype = jnp.float64) -> jax.Array:
        """Values [(S + 1) P, columns] after the last step."""
        return jnp.zeros((self.successors.shape[0] * self.previous, columns), dtype)

    def after(self, values: jax.Array) -> jax.Array:
        """[(S + 1) P, C] -> [S + 1, A, C], the value after each executed action."""
        return values[self.successors]

    def earned(self, values: jax.Array) -> jax.Array:
        """[(S + 1) P, C] -> [S + 1, A, C], the reward of each executed action and the value after it."""
        return self.rewards + self.after(values)

    def mixed(self, executed: jax.Array, sticky: jax.Array) -> jax.Array:
        """[S + 1, A, C] -> [S + 1, P, A, C]: of executed actions, that of chosen ones in expectation."""
        if self.previous == 1:
            return executed[:, None]
        return (1.0 - sticky) * executed[:, None] + sticky * executed[:, :, None]

    def joined(self, executed: jax.Array, sticky: jax.Array, join: Callable) -> jax.Array:
        """[S + 1, A, C] -> [S + 1, P, A, C]: `join` over what a chosen action may execute."""
        if self.previous == 1:
            return executed[:, None]
        return jnp.where(sticky > 0, join(executed[:, None], executed[:, :, None]), executed[:, None])

    def expected(self, q: jax.Array, policy: jax.Array | None) -> jax.Array:
        """Values [(S + 1) P] of Q [S + 1, P, A] under a policy [S, A], uniform without one."""
        if policy is None:
            return (q.sum(-1) / q.shape[-1]).reshape(-1)
        values = (q[:-1] * policy[:, None]).sum(-1)
        return jnp.concatenate([values, jnp.zeros((1, self.previous), values.dtype)]).reshape(-1)
