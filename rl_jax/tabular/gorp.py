"""GORP, greedy over random policy, in deterministic tabular MDPs: the algorithm, and a bound on the steps it needs.

Laidlaw, Russell and Dragan 2023, "Bridging RL Theory and Practice with the Effective Horizon", arXiv 2304.09853.

For each step of the horizon GORP tries every sequence of k actions after the actions already fixed, goes on at random,
takes the mean return of m episodes each and fixes the first action of the best sequence: T^2 A^k m steps in all. The
bound is the least m for which a proof gives it a chance of one half: for each pair of a time and a state on optimal
paths, how likely is each sequence to win, from the binomial distribution itself where rewards allow it, from Berry and
Esseen's theorem, Bernstein's and Bennett's inequalities otherwise (`compute_gorp_bounds.jl` of the authors).
"""

import math
from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from scipy import special

from rl_jax.envs.tabular import TabularMDP, check_mdp, with_terminal
from rl_jax.evaluation.planning import REWARD_PRECISION, check_policy

RESOLUTION = 100  # parts in which a distribution is cut
MAX_SEQUENCES = 100  # beyond which only Bennett's inequality is used
MAX_BINOMIAL = 1_000_000  # episodes beyond which the binomial distribution is not used
MAX_RETURNS = 10_000  # different returns beyond which Berry and Esseen's theorem is not used
MOST_EPISODES = 10**100  # a sequence; where these are too few, k does not work
FAILURE = 0.5


class GorpRun(NamedTuple):
    """R runs of GORP.

    Attributes:
      actions: int32 [R, T].
      returns: float32 [R], of the actions found.
      steps: int64 [R], environment steps taken; at most T^2 A^k m, less where episodes end early.
    """

    actions: np.ndarray
    returns: np.ndarray
    steps: np.ndarray


def gorp(mdp: TabularMDP, keys: jax.Array, *, k: int, episodes: int, policy: np.ndarray | None = None) -> GorpRun:
    """Runs GORP once for each key.

    Args:
      keys: [R].
      k: length of the action sequences tried; A^k of them at each step.
      episodes: m, of each sequence at each step.
      policy: exploration policy [T, S, A]; uniform without it.
    """
    mdp = check_mdp(mdp)
    if k < 1 or episodes < 1:
        raise ValueError(f"k is {k} and episodes {episodes}: give at least 1 of each")
    width = mdp.num_actions**k * episodes
    if width * mdp.horizon >= 2**31:
        raise ValueError(
            f"{mdp.num_actions}^{k} sequences x {episodes} episodes x {mdp.horizon} steps do not run at once: "
            "give fewer episodes or a smaller k"
        )
    logits = None if policy is None else np.log(np.maximum(check_policy(mdp, policy), 1e-30)).astype(np.float32)
    sequences = np.stack(np.unravel_index(np.arange(mdp.num_actions**k), (mdp.num_actions,) * k), -1)
    actions, returns, steps = _gorp(
        mdp.transitions, mdp.rewards, logits, sequences.astype(np.int32), keys, horizon=mdp.horizon, episodes=episodes
    )
    return GorpRun(np.asarray(actions), np.asarray(returns), np.asarray(steps, np.int64).sum(-1))


@partial(jax.jit, static_argnames=("horizon", "episodes"))
def _gorp(
    transitions: jax.Array, rewards: jax.Array, logits: jax.Array | None, sequences: jax.Array, keys: jax.Array, *,
    horizon: int, episodes: int,
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Actions [R, T], returns [R] and steps by iteration [R, T]; sequences [A^k, k]."""
    num_sequences, k = sequences.shape
    num_states, num_actions = transitions.shape
    following = with_terminal(transitions)
    rewards = jnp.concatenate([rewards, jnp.zeros((1, num_actions))])
    tried = jnp.repeat(sequences, episodes, 0)  # [A^k m, k]

    def explore(key: jax.Array, time: jax.Array, states: jax.Array) -> jax.Array:
        if logits is None:
            return jax.random.randint(key, states.shape, 0, num_actions)
        at_time = logits[time] if logits.shape[0] > 1 else logits[0]
        return jax.random.categorical(key, at_time[jnp.minimum(states, num_states - 1)])

    def iteration(actions: jax.Array, key_and_number: tuple) -> tuple[jax.Array, jax.Array]:
        key, number = key_and_number

        def step(carry: tuple, time: jax.Array) -> tuple[tuple, None]:
            states, returns, steps = carry
            planned = tried[:, jnp.clip(time - number, 0, k - 1)]
            random = explore(jax.random.fold_in(key, time), time, states)
            chosen = jnp.where(time < number, actions[time], jnp.where(time < number + k, planned, random))
            steps += (states != num_states).sum(dtype=jnp.int32)
            return (following[states, chosen], returns + rewards[states, chosen], steps), None

        start = (jnp.zeros(tried.shape[0], jnp.int32), jnp.zeros(tried.shape[0]), jnp.zeros((), jnp.int32))
        (_, returns, steps), _ = jax.lax.scan(step, start, jnp.arange(horizon))
        best = jnp.argmax(returns.reshape(num_sequences, episodes).mean(-1))
        return actions.at[number].set(sequences[best, 0]), steps

    def run(key: jax.Array) -> tuple[jax.Array, jax.Array, jax.Array]:
        numbers = jnp.arange(horizon)
        actions, steps = jax.lax.scan(
            iteration, jnp.zeros(horizon, jnp.int32), (jax.random.split(key, horizon), numbers)
        )

        def follow(state: jax.Array, action: jax.Array) -> tuple[jax.Array, jax.Array]:
            return following[state, action], rewards[state, action]

        _, earned = jax.lax.scan(follow, jnp.zeros((), jnp.int32), actions)
        return actions, earned.sum(), steps

    return jax.lax.map(run, keys)


class GorpBound(NamedTuple):
    """The bound on GORP's need.

    Attributes:
      episodes: m by k, those k that work alone.
      horizons: k + log_A m by k.
      steps: T^2 A^k m by k.
      effective_horizon, sample_complexity: the least of these two; inf if no k works.
    """

    episodes: dict[int, int]
    horizons: dict[int, float]
    steps: dict[int, int]
    effective_horizon: float
    sample_complexity: float


def gorp_bound(mdp: TabularMDP, *, max_k: int | None = None, exploration_policy: np.ndarray | None = None) -> GorpBound:
    """Bounds the effective horizon by bisecting m for each k, as `compute_gorp_bounds.jl` does.

    m is found to one per cent. Memory grows with T S, time with T S A^{2k}.

    Args:
      max_k: largest k; without it the largest with A^k <= 1000.
      exploration_policy: [T, S, A]; uniform without it.
    """
    mdp = check_mdp(mdp)
    if exploration_policy is not None:
        exploration_policy = check_policy(mdp, exploration_policy)
    if max_k is None:
        max_k = max(1, int(math.log(1000) / math.log(max(mdp.num_actions, 2))))
    plan = _Plan.of(mdp, exploration_policy)
    episodes = {}
    for k in range(1, max_k + 1):
        most, least = MOST_EPISODES, 0
        if plan.failure_probability(k, most) > FAILURE:
            continue
        while most > least + 1 and (most - least) / most > 1e-2:
            middle = math.isqrt(most * (least + 1))
            if plan.failure_probability(k, middle) <= FAILURE:
                most = middle
            else:
                least = middle
        episodes[k] = most
    num_actions = mdp.num_actions
    horizons = {k: k + (math.log(m) / math.log(num_actions) if m > 1 else 0.0) for k, m in episodes.items()}
    steps = {k: num_actions**k * m * mdp.horizon**2 for k, m in episodes.items()}
    return GorpBound(
        episodes, horizons, steps, min(horizons.values(), default=math.inf), min(steps.values(), default=math.inf)
    )


def failure_probability(
    mdp: TabularMDP, k: int, episodes: int, exploration_policy: np.ndarray | None = None
) -> float:
    """A bound on the probability that GORP with k and m = `episodes` misses the optimum."""
    mdp = check_mdp(mdp)
    if exploration_policy is not None:
        exploration_policy = check_policy(mdp, exploration_policy)
    return _Plan.of(mdp, exploration_policy).failure_probability(k, episodes)


class _Values(NamedTuple):
    """Of n action sequences in each of N states: [N, n], or by time and state, [T + 1, S + 1]."""

    explored: np.ndarray
    best: np.ndarray
    worst: np.ndarray
    variance: np.ndarray  # of the return under the exploration policy; nan where unknown
    third: np.ndarray  # its third absolute central moment

    def map(self, function: Callable[[np.ndarray], np.ndarray]) -> "_Values":
        return _Values(*map(function, self))


class _Plan(NamedTuple):
    """What the bound reads of an MDP; times 0 to T, states 0 to S, the last the terminal one.

    Attributes:
      following, rewards: [S + 1, A]; rewards in a unit of which every one is about a multiple.
      values: by time and state.
      binomial: every episode earns all or nothing, and all is 1.
    """

    following: np.ndarray
    rewards: np.ndarray
    values: _Values
    binomial: bool

    @classmethod
    def of(cls, mdp: TabularMDP, policy: np.ndarray | None) -> "_Plan":
        num_states, num_actions = mdp.rewards.shape
        following = np.asarray(with_terminal(mdp.transitions))
        rewards = np.concatenate([mdp.rewards, np.zeros((1, num_actions), np.float32)])
        positive = rewards[rewards > 0]
        # As the authors: the precision of 1e-4 is meant for rewards of 1 and more.
        rewards = (rewards * np.float32(round(1.0 / min(1.0, positive.min(initial=1.0))))).astype(np.float64)
        probabilities = np.full((1, num_states, num_actions), 1.0 / num_actions) if policy is None else policy
        last = np.full((1, num_actions), 1.0 / num_actions)

        explored, best, worst = np.zeros((3, mdp.horizon + 1, num_states + 1))
        for time in reversed(range(mdp.horizon)):
            q, q_best, q_worst = (rewards + values[time + 1][following] for values in (explored, best, worst))
            weights = np.concatenate([probabilities[time % len(probabilities)].astype(np.float64), last])
            best[time], worst[time] = q_best.max(-1), q_worst.min(-1)
            mean = q.sum(-1) / num_actions if policy is None else (q * weights).sum(-1)
            explored[time] = np.clip(mean, worst[time], best[time])
        reachable = np.zeros((mdp.horizon, num_states + 1), bool)
        reachable[0, 0] = True
        for time in range(1, mdp.horizon):
            reachable[time, following[reachable[time - 1]]] = True
        largest = best[:-1][reachable].max()
        binomial = bool(np.isin(rewards, (0.0, largest)).all()) and best[0, 0] > 0.0
        unit = best[0, 0] if binomial else 1.0
        rewards = rewards / unit
        moments = _moments(following, rewards, probabilities, mdp.horizon)
        return cls(following, rewards, _Values(explored / unit, best / unit, worst / unit, *moments), binomial)

    def failure_probability(self, k: int, episodes: int) -> float:
        """See the function of this name."""
        if k < 1 or episodes < 1:
            raise ValueError(f"k is {k} and episodes {episodes}: give at least 1 of each")
        horizon, best = self.values.best.shape[0] - 1, self.values.best
        optimal = []  # by time: the states that optimal actions reach
        states = np.zeros(1, np.int64)
        for time in range(horizon):
            optimal.append(states)
            good = self._q(best, time, states) > best[time, states][:, None] - REWARD_PRECISION
            states = np.unique(self.following[states][good])
        failure = np.zeros(best.shape[1])
        for time in reversed(range(horizon)):
            states = optimal[time]
            suboptimal = self._q(best, time, states) < best[time, states][:, None] - REWARD_PRECISION
            by_action = np.where(suboptimal, 1.0, failure[self.following[states]] if time < horizon - 1 else 0.0)
            here = np.zeros(len(states))
            open_ = by_action.max(-1) > 0.0  # elsewhere nothing can go wrong
            if open_.any():
                sequences = self._after_sequences(time, states[open_], k)
                here[open_] = self._fails(sequences, by_action[open_], k, episodes)
            failure = np.zeros(best.shape[1])
            failure[states] = here
        return float(failure[0])

    def _q(self, values: np.ndarray, time: int, states: np.ndarray) -> np.ndarray:
        return self.rewards[states] + values[time + 1][self.following[states]]

    def _after_sequences(self, time: int, states: np.ndarray, k: int) -> _Values:
        """Of all sequences of k actions, the first action slowest: [N, A^k]."""
        if time >= self.values.best.shape[0] - 1:
            return _Values(*np.zeros((5, len(states), self.rewards.shape[1] ** k)))
        following, rewards = self.following[states], self.rewards[states]
        if k == 1:
            found = self.values.map(lambda values: values[time + 1][following])
        else:
            found = self._after_sequences(time + 1, following.reshape(-1), k - 1)
            found = found.map(lambda values: values.reshape(*following.shape, -1))
            rewards = rewards[..., None]
        earned = (rewards + values for values in found[:3])
        return _Values(*earned, *found[3:]).map(lambda values: values.reshape(len(states), -1))

    def _fails(self, sequences: _Values, by_action: np.ndarray, k: int, episodes: int) -> np.ndarray:
        """[N], the least of what the methods give; by_action [N, A] is the probability to fail after each action."""
        after = np.repeat(by_action, sequences.best.shape[1] // by_action.shape[1], -1)
        few = sequences.best.shape[1] <= MAX_SEQUENCES
        methods = [_bennett]
        if self.binomial and k == 1 and episodes <= MAX_BINOMIAL:
            methods.append(_binomial)
        if few and np.isfinite(sequences.variance).all():
            methods.append(_berry_esseen)
        if few:
            methods.append(_bernstein)
        least, floor = np.ones(len(after)), after.min(-1)
        for method in methods:
            rows = np.flatnonzero(least > floor + 1e-12)  # the others cannot get better
            bounds = method(sequences.map(lambda values: values[rows]), episodes)
            least[rows] = np.minimum(least[rows], _worst_case(*bounds, after[rows]))
        return least


def _moments(
    following: np.ndarray, rewards: np.ndarray, policy: np.ndarray, horizon: int
) -> tuple[np.ndarray, np.ndarray]:
    """Variance and third absolute central moment of the explored return, [T + 1, S + 1] each.

    From the distribution of the returns itself, on the lattice on which they lie to a precision of 1e-4; nan where it
    has too many points.
    """
    whole = np.round(rewards / REWARD_PRECISION).astype(np.int64)
    unit = max(1, int(np.gcd.reduce(whole, axis=None)))
    whole //= unit
    num_states, num_actions = following.shape
    lows, highs = np.zeros((2, horizon + 1, num_states), np.int64)
    for time in reversed(range(horizon)):
        lows[time] = (whole + lows[time + 1][following]).min(-1)
        highs[time] = (whole + highs[time + 1][following]).max(-1)
    variance, third = np.zeros((2, horizon + 1, num_states))
    low, width = lows.min(), highs.max() - lows.min() + 1
    if width > MAX_RETURNS or width * num_states > 10**8:
        return np.full_like(variance, np.nan), np.full_like(third, np.nan)
    points = (low + np.arange(width)) * unit * REWARD_PRECISION
    distribution = np.zeros((num_states, width))
    distribution[:, -low] = 1.0
    last = np.full((1, num_actions), 1.0 / num_actions)
    for time in reversed(range(horizon)):
        weights = np.concatenate([policy[time % len(policy)].astype(np.float64), last])
        before = np.zeros_like(distribution)
        for reward in np.unique(whole):
            for action in range(num_actions):
                states = np.flatnonzero(whole[:, action] == reward)
                earlier = distribution[following[states, action]] * weights[states, action, None]
                # No return lies outside of the lattice, so what is rolled around is zero.
                before[states] += np.roll(earlier, reward, -1)
        distribution = before
        centred = points - (distribution @ points)[:, None]
        variance[time] = (distribution * centred**2).sum(-1)
        third[time] = (distribution * np.abs(centred) ** 3).sum(-1)
    return variance, third


Bounds = tuple[np.ndarray, np.ndarray]  # lower and upper, of the probability that each sequence wins: [N, n]


def _worst_case(lower: np.ndarray, upper: np.ndarray, after: np.ndarray) -> np.ndarray:
    """[N], the largest probability to fail that the bounds allow; after [N, n], the probability to fail of each.

    The linear program max p . after, lower <= p <= upper, sum p = 1 fills up from where failing is likeliest.
    """
    missing = 1.0 - upper.sum(-1, keepdims=True)
    upper = np.where(missing > 0, np.minimum(1.0, upper + missing), upper)
    low = (lower * after).sum(-1)
    high = np.minimum((upper * after).sum(-1), after.max(-1))
    order = np.argsort(-after, axis=-1)
    lower, upper, sorted_after = (np.take_along_axis(values, order, -1) for values in (lower, upper, after))
    room = np.maximum(upper - lower, 0.0)
    left = np.maximum(1.0 - lower.sum(-1, keepdims=True), 0.0)
    extra = np.clip(left - (np.cumsum(room, -1) - room), 0.0, room)
    filled = ((lower + extra) * sorted_after).sum(-1)
    return np.where(high - low > 1e-2, filled, high)


def _race(
    points: tuple[np.ndarray, np.ndarray], mass: np.ndarray, below: tuple[Callable, Callable]
) -> Bounds:
    """Bounds of P(sequence i wins): it lies between two points with some mass, all others lie below.

    Args:
      points: lower and upper ones, [N, n, Q] each.
      mass: between them, [N, n, Q].
      below: functions (x [M, 1], rows [M] of the N) -> [M, n], bounds of the probability that each sequence lies
        below x.
    """
    found = np.zeros((2, *mass.shape[:2]))
    for i in range(mass.shape[1]):
        rows, parts = np.nonzero(mass[:, i])
        for wins, ends, bound in zip(found, points, below, strict=True):
            factors = bound(ends[rows, i, parts][:, None], rows)
            factors[:, i] = mass[rows, i, parts]
            wins[:, i] = np.bincount(rows, factors.prod(-1), len(mass))
    return found[0], found[1]


def _normal_quantile(mean: np.ndarray, deviation: np.ndarray, probability: np.ndarray) -> np.ndarray:
    """Inverse distribution function, infinite at 0 and 1 also where the deviation is 0."""
    z = special.ndtri(probability)
    return mean + np.where(np.isinf(z), z, np.where(np.isinf(z), 0.0, z) * deviation)


def _normal_cdf(mean: np.ndarray, deviation: np.ndarray, x: np.ndarray) -> np.ndarray:
    with np.errstate(divide="ignore", invalid="ignore"):
        z = (x - mean) / deviation
    return special.ndtr(np.where(np.isnan(z), np.inf, z))  # 0 / 0: all of the mass is at x


def _binomial(sequences: _Values, episodes: int) -> Bounds:
    """Where an episode earns 0 or 1 the sum of m is binomial; cut at its quantiles, from 30 on at the normal ones."""
    p = np.clip(sequences.explored, 0.0, 1.0)[..., None]
    cuts = np.arange(RESOLUTION + 1) / RESOLUTION
    if episodes >= 30:
        quantiles = _normal_quantile(p * episodes, np.sqrt(episodes * p * (1.0 - p)), cuts)
        quantiles = np.floor(np.clip(quantiles, 0, episodes))
    else:
        # Rounded outwards: the last count whose distribution function is below the cut under one half, the first
        # whose is not below it from there on.
        cdf = special.bdtr(np.arange(episodes + 1.0), episodes, p)[..., None, :]
        cut = cuts[:, None]
        floor = np.maximum((cdf <= cut).sum(-1) - 1, 0)
        ceil = np.minimum((cdf < cut).sum(-1), episodes)
        quantiles = np.where(cuts < 0.5, floor, ceil).astype(np.float64)
        quantiles[..., 0], quantiles[..., -1] = 0, episodes
        quantiles = np.where((cuts <= (1.0 - p) ** episodes) & (cuts < 1.0), 0.0, quantiles)

    def below(x: np.ndarray, rows: np.ndarray) -> np.ndarray:
        return special.bdtr(x, episodes, p[rows, :, 0])

    at = special.bdtr(quantiles, episodes, p)
    return _race((quantiles[..., :-1], quantiles[..., 1:]), np.diff(at), (below, below))


def _berry_esseen(sequences: _Values, episodes: int) -> Bounds:
    """Means of m returns are nearly normal, with Shevtsova's constants (2013)."""
    cubed = sequences.variance**1.5
    with np.errstate(divide="ignore", invalid="ignore"):
        error = np.minimum(
            0.33554 * (sequences.third + 0.415 * cubed), 0.3328 * (sequences.third + 0.429 * cubed)
        ) / (cubed * math.sqrt(episodes))
    error = np.where(sequences.variance == 0.0, 0.0, error)
    mean, deviation = sequences.explored, np.sqrt(sequences.variance / float(episodes))
    cuts = np.arange(1, RESOLUTION + 1) / RESOLUTION
    ends = mean[..., None], deviation[..., None]
    upper = _normal_quantile(*ends, np.minimum(1.0, cuts + error[..., None]))
    lower = _normal_quantile(*ends, np.maximum(0.0, cuts - 1.0 / RESOLUTION - error[..., None]))

    def surely_below(x: np.ndarray, rows: np.ndarray) -> np.ndarray:
        return np.maximum(0.0, _normal_cdf(mean[rows], deviation[rows], x - 1e-8) - error[rows])

    def perhaps_below(x: np.ndarray, rows: np.ndarray) -> np.ndarray:
        return np.minimum(1.0, _normal_cdf(mean[rows], deviation[rows], x) + error[rows])

    mass = np.full(upper.shape, 1.0 / RESOLUTION)
    return _race((lower, upper), mass, (surely_below, perhaps_below))


def _bernstein(sequences: _Values, episodes: int) -> Bounds:
    """Bernstein's inequality for the mean of m returns between the worst and the best."""
    mean, m = sequences.explored, float(episodes)
    variance = (sequences.best - mean) * (mean - sequences.worst)
    bound = sequences.best - sequences.worst

    def tail(distance: np.ndarray, rows: np.ndarray) -> np.ndarray:
        with np.errstate(invalid="ignore", divide="ignore", over="ignore"):
            exponent = -(distance**2) * m / 2.0 / (variance[rows] + bound[rows] * distance / 3.0)
        return np.where(distance <= 0.0, 1.0, np.where(np.isposinf(distance), 0.0, np.exp(np.minimum(exponent, 0.0))))

    def surely_below(x: np.ndarray, rows: np.ndarray) -> np.ndarray:
        return 1.0 - tail(x - mean[rows], rows)

    def perhaps_below(x: np.ndarray, rows: np.ndarray) -> np.ndarray:
        return tail(mean[rows] - x, rows)

    def inverse(probability: np.ndarray) -> np.ndarray:
        with np.errstate(divide="ignore", invalid="ignore"):
            logs = -np.log(probability)
            b, v = bound[..., None], variance[..., None]
            found = (b * logs / m + np.sqrt(18.0 * v / m * logs + (b * logs / m) ** 2)) / 3.0
        return np.where((b == 0.0) | (v == 0.0), 0.0, found)

    cuts = np.arange(1, RESOLUTION + 1) / RESOLUTION
    upper = mean[..., None] + inverse(1.0 - cuts)
    lower = mean[..., None] - inverse(np.arange(RESOLUTION) / RESOLUTION)
    mass = np.full(upper.shape, 1.0 / RESOLUTION)
    return _race((lower, upper), mass, (surely_below, perhaps_below))


def _bennett(sequences: _Values, episodes: int) -> Bounds:
    """Bennett's inequality: a sequence wins only if it or all of the best lie beyond a threshold between them."""
    q = sequences.explored
    best = q.max(-1, keepdims=True)
    second = np.where(q < best - REWARD_PRECISION, q, -np.inf).max(-1, keepdims=True)
    alone = np.isneginf(second)
    threshold = (best + np.where(alone, best, second)) / 2.0
    bound = sequences.best - sequences.worst

    def tail(variance: np.ndarray, distance: np.ndarray) -> np.ndarray:
        with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
            u = bound * distance / variance
            found = np.exp(-float(episodes) * variance / bound**2 * ((1.0 + u) * np.log1p(u) - u))
        return np.where(distance <= 0.0, 1.0, np.where(variance == 0.0, 0.0, found))

    # The best have (q - worst)(best - worst) for their variance, the others (q - worst)(best - q), as in the authors'
    # code.
    all_below = np.where(q == best, tail((q - sequences.worst) * bound, q - threshold), 1.0).prod(-1, keepdims=True)
    above = tail((q - sequences.worst) * (sequences.best - q), threshold - q)
    upper = np.where(alone, 1.0, 1.0 - (1.0 - above) * (1.0 - all_below))
    return np.zeros_like(upper), upper
