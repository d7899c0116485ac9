"""Regularised RL in a tabular MDP with a discount, solved exactly through its duals.

The problem is to maximise E_d[r] - alpha D_f(d || d_O) over the discounted visitations d that a policy can have. These
are the d >= 0 that flow: what enters a state leaves it,

    sum_a d(s, a) = (1 - gamma) d_0(s) + gamma sum_{s', a'} P(s | s', a') d(s', a').

The duals have no constraint. The gradient of dual-V in V(s) is the amount by which d = d_O w(residual / alpha) breaks
the flow at s, so that at the minimum d is the visitation sought. Float64, with dense matrices: for up to some thousand
pairs of a state and an action.

Source: Dual RL (Sikchi, Zheng, Zhang and Niekum 2023, arXiv 2302.08560), its section on regularised policy learning;
`losses.dual` has the same objectives on samples, `losses.divergence` the functions.

d_0 is state 0. The MDP's horizon is not read. A terminal takes what enters it, so that d sums to less than 1.
"""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import scipy.optimize

from rl_jax.losses.divergence import TOTAL_VARIATION, Divergence, Function
from rl_jax.tabular.mdp import TERMINAL, TabularMDP, check_mdp
from rl_jax.tabular.planning import check_policy

FLOW_ERROR = 1e-7  # most that a visitation found may miss at a state, or a pair
ALPHA_STEP = 0.7  # by which alpha falls to the one asked for; each minimum is where the search for the next begins
MOST_NEWTON_STEPS = 200


class Solution(NamedTuple):
    """The optimum of a dual, which is that of the primal problem.

    Attributes:
      value: E_d[r] - alpha D_f(d || d_O).
      multipliers: float64, V [S] of dual-V, Q [S, A] of dual-Q.
      visitation: float64 [S, A], d.
    """

    value: float
    multipliers: np.ndarray
    visitation: np.ndarray


def visitation(mdp: TabularMDP, policy: np.ndarray, discount: float) -> np.ndarray:
    """d of a policy [S, A]: (1 - gamma) sum_t gamma^t Pr(s_t = s, a_t = a), float64 [S, A]."""
    mdp, policy = check_mdp(mdp), _stationary(mdp, policy)
    # Of the flow, with d = policy * (its sum over actions).
    flow = _residual_matrix(mdp, discount) * policy.reshape(-1, 1)
    states = np.linalg.solve(-flow.reshape(*policy.shape, -1).sum(1).T, _start(mdp, discount))
    return states[:, None] * policy


def best_visitation(mdp: TabularMDP, discount: float) -> np.ndarray:
    """d of an optimal policy, float64 [S, A], by the linear programme of RL: least (1 - gamma) V(s_0) such that
    V(s) >= r + gamma V(s') for every pair."""
    mdp = check_mdp(mdp)
    result = _linear_programme(
        _start(mdp, discount), _residual_matrix(mdp, discount), -mdp.rewards.astype(np.float64).ravel()
    )
    return -result.ineqlin.marginals.reshape(mdp.rewards.shape)


def regularised_value(
    mdp: TabularMDP, d: np.ndarray, data: np.ndarray, divergence: Divergence, alpha: float
) -> float:
    """E_d[r] - alpha D_f(d || d_O) of a visitation [S, A]; data and alpha as of `solve_dual_v`. -inf where d visits
    what the data do not."""
    mdp, data = check_mdp(mdp), _check_data(mdp, data)
    _check_alpha(alpha)
    if np.shape(d) != data.shape:
        raise ValueError(f"the visitation has shape {np.shape(d)}: give {list(data.shape)}")
    inside = data > 0
    if (d[~inside] > 0).any():
        return -np.inf
    with jax.enable_x64(True):
        f = np.asarray(divergence.generator(jnp.asarray(d[inside] / data[inside])))
    return float(np.sum(d * mdp.rewards) - alpha * np.sum(data[inside] * f))


def solve_dual_v(
    mdp: TabularMDP, data: np.ndarray, divergence: Divergence, *, discount: float, alpha: float
) -> Solution:
    """min_V (1 - gamma) V(s_0) + alpha E_{d_O}[f_p*((r + gamma V(s') - V(s)) / alpha)].

    Total variation, whose f_p* is infinite above 1/2 and has kinks, is solved as a linear programme.

    Args:
      data: d_O [S, A], not negative, sums to 1. Pairs that it lacks are not visited.
      discount: gamma in [0, 1).
      alpha: weight of the divergence, above 0.

    Raises:
      ValueError: bad input, or no visitation lies within the data.
    """
    mdp, data = check_mdp(mdp), _check_data(mdp, data)
    _check_alpha(alpha)
    start, matrix = _start(mdp, discount), _residual_matrix(mdp, discount)
    solve = _total_variation if divergence is TOTAL_VARIATION else _newton
    return solve(mdp, start, matrix, data, divergence.positive_conjugate, discount, alpha)


def solve_dual_q(
    mdp: TabularMDP, policy: np.ndarray, data: np.ndarray, divergence: Divergence, *, discount: float, alpha: float
) -> Solution:
    """min_Q (1 - gamma) Q(s_0, pi) + alpha E_{d_O}[f*((r + gamma Q(s', pi) - Q(s, a)) / alpha)].

    It is the regularised value of the policy [S, A], which has one visitation alone; the best policy's is dual-V's.

    Args: as of `solve_dual_v`.

    Raises:
      ValueError: bad input, the policy goes where there are no data, or total variation: its conjugate is finite only
        on a bounded interval; `regularised_value` of the policy's visitation is the same number.
    """
    mdp, data, policy = check_mdp(mdp), _check_data(mdp, data), _stationary(mdp, policy)
    _check_alpha(alpha)
    if divergence is TOTAL_VARIATION:
        raise ValueError("dual-Q of total variation is not differentiable: use regularised_value of visitation(policy)")
    start = (_start(mdp, discount)[:, None] * policy).ravel()
    after = discount * _successors(mdp)  # [S A, S]
    matrix = (after[:, :, None] * policy).reshape(len(after), -1) - np.eye(len(after))
    return _newton(mdp, start, matrix, data, divergence.conjugate, discount, alpha)


# Both duals are min_x start . x + alpha sum(data f((r + matrix x) / alpha)), with x the multipliers.


def _newton(
    mdp: TabularMDP, start: np.ndarray, matrix: np.ndarray, data: np.ndarray, conjugate: Function, discount: float,
    alpha: float,
) -> Solution:
    """The minimum of a smooth dual, by damped Newton steps, from a large alpha down to the one asked for."""
    inside, rewards = data.ravel() > 0, mdp.rewards.astype(np.float64).ravel()
    matrix, rewards, weights = matrix[inside], rewards[inside], data.ravel()[inside]
    arguments = start, matrix, rewards, weights
    # The values of the data's own policy: no alpha changes them, and the residuals are its advantages.
    x = np.linalg.lstsq(matrix.T @ (weights[:, None] * matrix), -matrix.T @ (weights * rewards))[0]
    now = max(alpha, 2.0 * np.abs(rewards + matrix @ x).max())  # residuals / now are at most 1/2: in every domain
    with jax.enable_x64(True):
        while True:
            x, d, flow_error = _descend(x, now, arguments, conjugate)
            if now == alpha or not flow_error <= FLOW_ERROR:
                break
            highest = (rewards + matrix @ x).max() / now
            now = max(alpha, ALPHA_STEP * now)
            # V + c lowers each residual by (1 - gamma) c at least, so that none leaves the domain.
            x = x + max(0.0, (rewards + matrix @ x).max() - now * max(highest, 0.0)) / (1.0 - discount)
        value = float(_dual(x, now, *arguments, conjugate=conjugate)[0])
    _check_found(flow_error)
    shape = mdp.rewards.shape if len(start) == data.size else (len(start),)
    found = np.zeros(data.size)
    found[inside] = d
    return Solution(value, x.reshape(shape), found.reshape(data.shape))


def _descend(
    x: np.ndarray, alpha: float, arguments: tuple[np.ndarray, ...], conjugate: Function
) -> tuple[np.ndarray, np.ndarray, float]:
    """(the minimum, d there, by how much d breaks the flow)."""
    damping, (value, gradient, hessian, d) = 1e-12, map(np.asarray, _dual(x, alpha, *arguments, conjugate=conjugate))
    for _ in range(MOST_NEWTON_STEPS):
        if np.abs(gradient).max() <= 1e-3 * FLOW_ERROR or damping > 1e12:
            break
        scale = max(np.trace(hessian) / len(x), 1e-300)
        step = np.linalg.solve(hessian + damping * scale * np.eye(len(x)), -gradient)
        tried = tuple(map(np.asarray, _dual(x + step, alpha, *arguments, conjugate=conjugate)))
        falls = tried[0] <= value + 0.1 * gradient @ step
        # Near the minimum the value's differences are lost to rounding, and the gradient still falls.
        if falls or tried[0] <= value + 1e-14 * abs(value) and np.abs(tried[1]).max() < 0.5 * np.abs(gradient).max():
            x, (value, gradient, hessian, d), damping = x + step, tried, max(0.1 * damping, 1e-12)
        else:
            damping *= 10.0
    return x, d, float(np.abs(gradient).max())


@functools.partial(jax.jit, static_argnames="conjugate")
def _dual(
    x: jax.Array, alpha: jax.Array, start: jax.Array, matrix: jax.Array, rewards: jax.Array, weights: jax.Array, *,
    conjugate: Function,
) -> tuple[jax.Array, jax.Array, jax.Array, jax.Array]:
    """(value, gradient, Hessian, d of the pairs in the data)."""
    y = (rewards + matrix @ x) / alpha
    d = weights * jax.vmap(jax.grad(conjugate))(y)
    curvatures = weights * jax.vmap(jax.grad(jax.grad(conjugate)))(y) / alpha
    return start @ x + alpha * weights @ conjugate(y), start + matrix.T @ d, (matrix.T * curvatures) @ matrix, d


def _total_variation(
    mdp: TabularMDP, start: np.ndarray, matrix: np.ndarray, data: np.ndarray, conjugate: Function, discount: float,
    alpha: float,
) -> Solution:
    """The same with f_p*(y) = max(y, -1/2) for y <= 1/2, as a linear programme in V and z >= f_p*(y)."""
    del conjugate, discount
    inside, rewards = data.ravel() > 0, mdp.rewards.astype(np.float64).ravel()
    matrix, rewards, weights = matrix[inside] / alpha, rewards[inside] / alpha, data.ravel()[inside]
    pairs, states = matrix.shape
    result = _linear_programme(
        np.concatenate([start, alpha * weights]),
        np.block([[matrix, -np.eye(pairs)], [matrix, np.zeros((pairs, pairs))]]),
        np.concatenate([-rewards, 0.5 - rewards]), [(None, None)] * states + [(-0.5, None)] * pairs,
    )
    d = np.zeros(data.size)
    d[inside] = -result.ineqlin.marginals.reshape(2, pairs).sum(0) / alpha
    return Solution(float(result.fun), result.x[:states], d.reshape(data.shape))


def _linear_programme(
    costs: np.ndarray, matrix: np.ndarray, bounds: np.ndarray, limits: list | tuple = (None, None)
) -> scipy.optimize.OptimizeResult:
    """Least costs . x with matrix x <= bounds, and x within its limits."""
    result = scipy.optimize.linprog(costs, A_ub=matrix, b_ub=bounds, bounds=limits, method="highs")
    _check_found(0.0 if result.success else np.inf)
    return result


def _check_found(flow_error: float) -> None:
    """Raises ValueError where the dual has no minimum, or a search has not found it."""
    if not flow_error <= FLOW_ERROR:
        raise ValueError(
            f"the dual has no minimum, or it was not found (the flow is broken by {flow_error:.3g}): where the data "
            "lead, they must hold an action to go on with, and every one that the policy takes; or raise alpha"
        )


def _successors(mdp: TabularMDP) -> np.ndarray:
    """P [S A, S], 0 where an action ends the episode."""
    following = mdp.transitions.ravel()
    return (following[:, None] == np.arange(mdp.num_states)) * (following != TERMINAL)[:, None].astype(np.float64)


def _residual_matrix(mdp: TabularMDP, discount: float) -> np.ndarray:
    """[S A, S], by which V gives gamma V(s') - V(s)."""
    if not 0.0 <= discount < 1.0:
        raise ValueError(f"discount is {discount}: give a number from 0 to below 1")
    return discount * _successors(mdp) - np.repeat(np.eye(mdp.num_states), mdp.num_actions, 0)


def _start(mdp: TabularMDP, discount: float) -> np.ndarray:
    """(1 - gamma) d_0 [S]."""
    return (1.0 - discount) * (np.arange(mdp.num_states) == 0)


def _stationary(mdp: TabularMDP, policy: np.ndarray) -> np.ndarray:
    """The policy, [S, A] float64; errors as those of `check_policy`."""
    if np.ndim(policy) != 2:
        raise ValueError(f"policy has shape {np.shape(policy)}: give {list(mdp.rewards.shape)}, the same at every step")
    return check_policy(mdp, policy)[0].astype(np.float64)


def _check_data(mdp: TabularMDP, data: np.ndarray) -> np.ndarray:
    """The data, [S, A] float64."""
    data = np.asarray(data, np.float64)
    if data.shape != mdp.rewards.shape:
        raise ValueError(f"data has shape {data.shape}: give the share of each pair, {list(mdp.rewards.shape)}")
    if not (data >= 0.0).all() or not abs(data.sum() - 1.0) <= 1e-6:
        raise ValueError(
            f"data has {data.min():.3g} as its least share and sums to {data.sum():.6g}: give shares that sum to 1"
        )
    return data


def _check_alpha(alpha: float) -> None:
    if not alpha > 0.0:
        raise ValueError(f"alpha is {alpha}: give a number above 0")
