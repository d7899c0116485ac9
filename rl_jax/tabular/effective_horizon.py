"""The effective horizon of a deterministic tabular MDP, with and without sticky actions: for how many steps of
look-ahead on the random policy's values acting greedily is optimal, and how many samples that takes.

Laidlaw, Russell and Dragan 2023, "Bridging RL Theory and Practice with the Effective Horizon", arXiv 2304.09853, and
Laidlaw et al. 2023, "The Effective Horizon Explains Deep RL Performance in Stochastic Environments", arXiv 2312.08369.

Everything comes out of one backward recursion over the horizon that keeps one time step: an array of values for each
state. What is asked of the states that a policy reaches (does it fail, how many samples, which gap) is itself a value
that the recursion backs up. It runs in float64 because greedy actions are compared exactly: gaps of 1e-11 decide.

Shapes are those of `planning`, with K numbers of look-ahead steps k = 1..K in the columns.
"""

import math
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import psutil

from rl_jax.envs.environment import check_sticky
from rl_jax.tabular.mdp import TabularMDP, check_mdp, with_terminal
from rl_jax.tabular.planning import REWARD_PRECISION, Dynamics, check_policy, reachable_states

TIE = 1e-12  # Q values of a state that differ by less than this share of the largest are equal (least gaps alone)
FIRST_KS = 16  # how many k the adaptive search starts with


class SimpleBound(NamedTuple):
    """The simple bound on the effective horizon (arXiv 2304.09853, appendix; `compute_simple_effective_horizon`).

    Attributes:
      ks: the numbers of look-ahead steps that work, in order.
      ms: sample sizes, whole numbers as floats: the largest over the states that GORP may reach.
      variances, gaps: there; the gap is inf where no action is suboptimal.
      effective_horizon: least k + log_A m, at most T.
    """

    ks: tuple[int, ...]
    ms: tuple[float, ...]
    variances: tuple[float, ...]
    gaps: tuple[float, ...]
    effective_horizon: float


class Analysis(NamedTuple):
    """What `analyze` finds. Returns are those of an episode from the start state, undiscounted.

    Attributes:
      random_return, best_return, worst_return: of the exploration policy, of the best and of the worst one.
      greedy_returns: [K], of the policy greedy on Q^k that breaks its ties in the worst way.
      min_k: least k of which no greedy policy takes a suboptimal action in a state that it may reach, however unlikely
        it is (`calculate_minimum_k`; what that costs on average, `greedy_returns` tells); None if none of the K does.
      effective_planning_window: the same where Q^1 is the immediate reward.
      least_gaps: [K], Delta_k, the least difference between the largest Q^k and the next one, over all pairs of a time
        and a state that can be reached; inf if all actions are equal everywhere.
      stochastic_effective_horizon: least k + log_A(1 / Delta_k^2) over those of the K that work (k itself where
        Delta_k is inf), inf if none works. It depends on the unit of reward.
      simple_bound: of deterministic MDPs; None with sticky actions.
      reachable_states: how many states, with sticky actions how many pairs of a state and the action executed before,
        an episode of T steps can act in. The terminal one counts, as in the authors' figures.
    """

    random_return: float
    best_return: float
    worst_return: float
    greedy_returns: tuple[float, ...]
    min_k: int | None
    effective_planning_window: int | None
    least_gaps: tuple[float, ...]
    stochastic_effective_horizon: float
    simple_bound: SimpleBound | None
    reachable_states: int


def analyze(
    mdp: TabularMDP, *, sticky: float = 0.0, exploration_policy: np.ndarray | None = None, max_k: int | None = None
) -> Analysis:
    """All figures of an MDP.

    Args:
      sticky: probability that the previous executed action is executed again, never at the first step.
      exploration_policy: [T, S, A], or [S, A] the same at every step; rows sum to 1. Uniform without it.
      max_k: K. Without it the search begins with 16 and doubles until min_k, the effective planning window and the
        simple bound are known; K = T always is enough, for Q^T is the optimal Q.

    Raises:
      MemoryError: with the estimate and the remedy, before anything is computed.
    """
    mdp = check_mdp(mdp)
    check_sticky(sticky)
    if max_k is not None and max_k < 1:
        raise ValueError(f"max_k is {max_k}: give at least 1")
    if exploration_policy is not None:
        exploration_policy = check_policy(mdp, exploration_policy)
        exploration_policy = np.broadcast_to(exploration_policy, (mdp.horizon, *mdp.rewards.shape))
    num_ks = min(max_k or FIRST_KS, mdp.horizon)
    while True:
        check_memory(mdp, num_ks, sticky > 0, exploration_policy is not None)
        analysis, settled = _analyze(mdp, sticky, exploration_policy, num_ks)
        if settled or max_k is not None or num_ks == mdp.horizon:
            return analysis
        num_ks = min(2 * num_ks, mdp.horizon)


def lookahead_q(mdp: TabularMDP, max_k: int) -> np.ndarray:
    """Q^1..Q^K of a deterministic MDP at every step, float64 [K, T, S, A]: what `analyze` compares and does not keep.

    Q^1 is the Q of the random policy, and Q^{k+1}_t(s, a) = r(s, a) + max_a' Q^k_{t+1}(s', a'). Q^T is the optimal Q.
    """
    mdp = check_mdp(mdp)
    if not 1 <= max_k <= mdp.horizon:
        raise ValueError(f"max_k is {max_k}: give 1 to the horizon, {mdp.horizon}")
    following = np.asarray(with_terminal(mdp.transitions))
    rewards = np.concatenate([mdp.rewards, np.zeros((1, mdp.num_actions))])
    q = np.zeros((max_k, mdp.horizon, *rewards.shape))
    after = np.zeros((max_k, len(rewards)))  # whose backups Q^1..Q^K are: the random policy's value, then max Q^k
    for time in reversed(range(mdp.horizon)):
        q[:, time] = rewards + after[:, following]
        after = np.concatenate([q[:1, time].mean(-1), q[:-1, time].max(-1)])
    return q[:, :, :-1]


def _analyze(mdp: TabularMDP, sticky: float, policy: np.ndarray | None, num_ks: int) -> tuple[Analysis, bool]:
    """The figures for k = 1..num_ks, and whether more of them could change any."""
    with jax.enable_x64(True):
        arrays = (mdp.transitions, mdp.rewards.astype(np.float64), policy, np.float64(sticky))
        found = jax.device_get(_backward(*arrays, horizon=mdp.horizon, num_ks=num_ks, is_sticky=sticky > 0))
    ks = np.arange(1, num_ks + 1)
    works = ~found.random.fails
    stochastic = [
        k + (2.0 * _log(1.0 / gap, mdp.num_actions) if np.isfinite(gap) else 0.0)
        for k, gap in zip(ks[works], found.gap[works], strict=True)
    ]
    simple, simple_settled = None, True
    if found.samples is not None:
        simple, simple_settled = _simple_bound(found.samples, mdp.horizon, mdp.num_actions)
    min_k, window = (int(ks[ok][0]) if ok.any() else None for ok in (works, ~found.immediate.fails))
    best, worst = found.values.tolist()
    analysis = Analysis(
        float(found.random.best[0]), best, worst, tuple(found.worst_return.tolist()), min_k, window,
        tuple(found.gap.tolist()), float(min(stochastic, default=math.inf)), simple,
        reachable_states(mdp, sticky > 0),
    )
    return analysis, min_k is not None and window is not None and simple_settled


def _log(x: float, base: int) -> float:
    """log_base(x); 0 for x = 1 also where there is one action."""
    return math.log(x) / math.log(base) if x != 1.0 else 0.0


def _simple_bound(samples: "Samples", horizon: int, num_actions: int) -> tuple[SimpleBound, bool]:
    """The bound from what the recursion found for each k, and whether the k it has were enough."""
    effective, kept, k = float(horizon), [], 1
    while k < effective and k <= len(samples.fails):
        if not samples.fails[k - 1]:
            kept.append(k - 1)
            effective = min(effective, k + _log(float(samples.needed[k - 1]), num_actions))
        k += 1
    columns = (tuple(column[kept].tolist()) for column in (samples.needed, samples.variance, samples.gap))
    return SimpleBound(tuple(index + 1 for index in kept), *columns, effective), k >= effective


def estimate_bytes(mdp: TabularMDP, num_ks: int, is_sticky: bool, has_policy: bool = False) -> int:
    """Bytes that `analyze` holds at its peak, about: what the compiled recursion allocates, from its largest arrays."""
    rows = (mdp.num_states + 1) * mdp.num_actions
    arrays = 10 + num_ks * (4 * mdp.num_actions if is_sticky else 9)
    return 8 * rows * (arrays + (2 * mdp.horizon if has_policy else 0))


def check_memory(mdp: TabularMDP, num_ks: int, is_sticky: bool, has_policy: bool = False) -> None:
    """Raises MemoryError where the analysis does not fit what the machine has free."""
    needed, free = estimate_bytes(mdp, num_ks, is_sticky, has_policy), psutil.virtual_memory().available
    if needed > free:
        raise MemoryError(
            f"an analysis of {mdp.num_states} states x {mdp.num_actions} actions with k up to {num_ks} needs about "
            f"{needed / 2**30:.3g} GiB and {free / 2**30:.3g} GiB are free: give a smaller max_k, merge states that "
            "behave alike (rl_jax/tabular/explore.py, minimise), or use a machine with more memory"
        )


class Greedy(NamedTuple):
    """Of policies greedy on Q^1..Q^K, by state; from the start alone without the first axis.

    Attributes:
      best: [(S + 1) P, K + 1], max_a Q^k from k = 1 on. In the first column, for k = 0, stands the value whose backup
        Q^1 is: that of the exploration policy, or 0 where Q^1 is the immediate reward.
      fails: bool [(S + 1) P, K], one of the policies takes a suboptimal action in a state that it may reach.
    """

    best: jax.Array
    fails: jax.Array


class Samples(NamedTuple):
    """Of GORP with k = 1..K look-ahead steps, by state: [(S + 1) P, K]."""

    fails: jax.Array  # bool: in a state that it may reach, a suboptimal action's Q^k is as high as the best
    needed: jax.Array  # the largest m
    gap: jax.Array  # there
    variance: jax.Array  # there
    spread: jax.Array  # the bound on the variance at this state, max_a


class Found(NamedTuple):
    """What the recursion carries, by state, and what it gives, of the start state.

    Attributes:
      values: [(S + 1) P, 2], of the best and of the worst policy.
      random, immediate: where Q^1 is the exploration policy's Q, and where it is the reward.
      worst_return: [(S + 1) P, K], of policies greedy on Q^k, with the worst tie-break.
      gap: [(S + 1) P, K], least gap of what any actions reach.
      samples: None with sticky actions.
    """

    values: jax.Array
    random: Greedy
    immediate: Greedy
    worst_return: jax.Array
    gap: jax.Array
    samples: Samples | None


@partial(jax.jit, static_argnames=("horizon", "num_ks", "is_sticky"))
def _backward(
    transitions: jax.Array, rewards: jax.Array, policy: jax.Array | None, sticky: jax.Array, *, horizon: int,
    num_ks: int, is_sticky: bool,
) -> Found:
    """The recursion, from the last step to the first."""
    dynamics = Dynamics.of(transitions, rewards, is_sticky=is_sticky)
    num_actions = transitions.shape[1]
    logs = jnp.log(2.0 * horizon) + jnp.arange(1, num_ks + 1) * jnp.log(float(num_actions))  # of 2 T A^k
    zeros, never = dynamics.zeros(num_ks), dynamics.zeros(num_ks, bool)
    greedy = Greedy(dynamics.zeros(num_ks + 1), never)
    samples = None if is_sticky else Samples(never, zeros + 1.0, zeros + jnp.inf, zeros, zeros)
    after_the_last = Found(dynamics.zeros(2), greedy, greedy, zeros, zeros + jnp.inf, samples)

    def step(after: Found, time_and_policy: tuple) -> tuple[Found, None]:
        time, at_time = time_and_policy
        stays = jnp.where(time == 0, 0.0, sticky)  # there is no previous action at the first step

        def q_of(values: jax.Array) -> jax.Array:
            return dynamics.mixed(dynamics.earned(values), stays)

        q_extreme, q, q_immediate = q_of(after.values), q_of(after.random.best), q_of(after.immediate.best)
        best, worst, explored = q_extreme[..., 0], q_extreme[..., 1], q[..., 0]
        best_value, worst_value = best.max(-1).reshape(-1), worst.min(-1).reshape(-1)
        # Rounding may put a mean outside of what it is the mean of.
        value = jnp.clip(dynamics.expected(explored, at_time), worst_value, best_value)
        suboptimal = (best < best.max(-1, keepdims=True) - REWARD_PRECISION)[..., None]
        q, q_immediate = q[..., :num_ks], q_immediate[..., :num_ks]
        samples = after.samples
        if samples is not None:
            spread = (explored - worst) * (best - worst)
            samples = _count_samples(dynamics, samples, q[:, 0], suboptimal[:, 0], spread[:, 0], logs)
        found = Found(
            jnp.stack([best_value, worst_value], -1),
            _act_greedily(dynamics, after.random, q, value, suboptimal, stays),
            _act_greedily(dynamics, after.immediate, q_immediate, jnp.zeros_like(value), suboptimal, stays),
            _flat(_worst_of_greedy(q, q_of(after.worst_return))),
            _flat(jnp.minimum(_gap(q), dynamics.joined(dynamics.after(after.gap), stays, jnp.minimum).min(2))),
            samples,
        )
        return found, None

    found, _ = jax.lax.scan(step, after_the_last, (jnp.arange(horizon), policy), reverse=True)
    return jax.tree.map(lambda values: values[0], found)


def _flat(values: jax.Array) -> jax.Array:
    """[S + 1, P, C] -> [(S + 1) P, C]."""
    return values.reshape(-1, values.shape[-1])


def _act_greedily(
    dynamics: Dynamics, after: Greedy, q: jax.Array, value: jax.Array, suboptimal: jax.Array, sticky: jax.Array
) -> Greedy:
    """One step back; q [S + 1, P, A, K], value [(S + 1) P], suboptimal [S + 1, P, A, 1].

    Greedy is who is not below the largest, exactly: see the module.
    """
    best = q.max(2)
    fails = suboptimal | dynamics.joined(dynamics.after(after.fails), sticky, jnp.logical_or)
    fails = ((q >= best[:, :, None]) & fails).any(2)
    return Greedy(jnp.concatenate([value[:, None], _flat(best)], -1), _flat(fails))


def _worst_of_greedy(q: jax.Array, returns: jax.Array) -> jax.Array:
    """[S + 1, P, K], the least of the returns [S + 1, P, A, K] of actions whose Q is largest.

    One action after the other, so that one is greedy even where a compiler computes Q again beside the largest Q and
    rounds otherwise.
    """
    best, worst = q[:, :, 0], returns[:, :, 0]
    for action in range(1, q.shape[2]):
        own, value = q[:, :, action], returns[:, :, action]
        worst = jnp.where(own > best, value, jnp.where(own == best, jnp.minimum(worst, value), worst))
        best = jnp.maximum(best, own)
    return worst


def _gap(q: jax.Array) -> jax.Array:
    """[S + 1, P, K], between the largest Q [S + 1, P, A, K] of a state and the next; inf if all are equal."""
    best = q.max(2, keepdims=True)
    # Rounding makes equal values differ, and a difference of rounding is no gap.
    below = jnp.where(q < best - TIE * jnp.abs(q).max(2, keepdims=True), q, -jnp.inf).max(2)
    return best[:, :, 0] - below


def _count_samples(
    dynamics: Dynamics, after: Samples, q: jax.Array, suboptimal: jax.Array, spread: jax.Array, logs: jax.Array
) -> Samples:
    """One step back of the simple bound; q [S + 1, A, K], suboptimal [S + 1, A, 1], spread [S + 1, A], logs [K].

    Source: `compute_simple_effective_horizon`. Of states with equal m the authors report the variance and the gap of
    the one with the smallest number, here it is the earliest on the way from the start.
    """
    best = q.max(1)
    best_suboptimal = jnp.where(suboptimal, q, -jnp.inf).max(1)
    gap = best - best_suboptimal
    spreads = jnp.concatenate([spread[..., None], dynamics.after(after.spread[:, :-1])], -1).max(1)
    followed = q > best_suboptimal[:, None]
    fails = (best == best_suboptimal) | (followed & dynamics.after(after.fails)).any(1)
    needed = jnp.maximum(1.0, jnp.ceil(16.0 * spreads / jnp.square(gap) * logs))
    here = (needed, gap, spreads)
    there = [dynamics.after(values) for values in (after.needed, after.gap, after.variance)]
    for action in range(q.shape[1]):
        more = followed[:, action] & (there[0][:, action] > here[0])
        here = tuple(jnp.where(more, of[:, action], own) for of, own in zip(there, here, strict=True))
    return Samples(fails, *here, spreads)
