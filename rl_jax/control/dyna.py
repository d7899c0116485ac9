"""Dyna: PPO learns in a model that is fitted to few steps of the real environment, again and again.

Sutton 1991; Zolman et al. 2024 (SINDy-RL), arXiv 2403.09110, algorithm 1. One step of the program is one round: what
the feed brings of the real environment is remembered, the model is fitted to all of it, and PPO makes
`config.policy_updates` updates inside the model. Data, model and the model's episodes are part of the state.
"""

import functools
from collections.abc import Callable, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from ml_collections import ConfigDict

from rl_jax.agents.online import OnlineAgent, Steps
from rl_jax.agents.ppo import ppo
from rl_jax.control.dynamics import Dynamics, Rows, fit_reward, make_dynamics, reward_terms
from rl_jax.control.real_steps import Simulators, samples, steps_on_device, taken
from rl_jax.control.tasks import Task, judge_in
from rl_jax.core.mesh import gather
from rl_jax.core.program import Evaluate, Evaluation, Feed, Key, Metrics, Program, PyTree, TrainState
from rl_jax.envs.gym_pool import EnvPool
from rl_jax.envs.surrogate import World, surrogate
from rl_jax.evaluation.episodes import episode_returns
from rl_jax.losses.sparse_regression import Term, features

STARTS = 256  # observations at which the surrogate's episodes begin


class Fitted(NamedTuple):
    """What a surrogate is made of, all of it arrays.

    Attributes:
      model: of the dynamics.
      reward: coefficients [P, 1]; unused where the reward is known.
      low, high: the box, [O].
    """

    model: PyTree
    reward: jax.Array
    low: jax.Array
    high: jax.Array


class Real(NamedTuple):
    """The real environment, open: where episodes start [K, O], and, for a policy, its steps and its judgement."""

    starts: np.ndarray
    feed: Callable[[OnlineAgent], Feed]
    judge: Callable[[OnlineAgent], Evaluate]


def open_real(config: ConfigDict, world: World) -> Real:
    """The pure-JAX environment of a world, or its simulators.

    Raises:
      MissingExtraError: the simulator is not installed.
    """
    if world.environment is not None:
        environment = world.environment._replace(horizon=config.horizon)
        keys = jax.random.split(jax.random.key(0), STARTS)
        starts = np.asarray(jax.vmap(environment.reset)(keys)[1])

        def judge(agent: OnlineAgent) -> Evaluate:
            def act(run: TrainState, observations: jax.Array, time: jax.Array) -> jax.Array:
                del time
                return agent.act(run.params, observations, jax.random.key(0), 0.0)

            returns = episode_returns(environment, act, config.eval_episodes)
            return lambda state, resident, key: Evaluation(outcomes={"return": returns(state, key)})

        return Real(starts, lambda agent: steps_on_device(environment, agent.act, config.real), judge)
    task = Task(world.env_id)
    open_pool = functools.partial(task.open, config.num_seeds, savable=True)
    simulators = functools.cache(lambda: Simulators(open_pool(), config.seed, config.real))
    with EnvPool(world.env_id, 1) as one:
        starts = np.concatenate([one.reset(np.array([seed])) for seed in range(STARTS)]).astype(np.float32)
    judged = judge_in(task, config)
    return Real(
        starts, lambda agent: simulators().feed(lambda policy, *inputs: agent.act(policy[0], *inputs)),
        lambda agent: judged(lambda policy, *inputs: agent.act(policy[0], *inputs), None),
    )


def reward_of(config: ConfigDict, world: World, coefficients: jax.Array) -> Callable[..., jax.Array]:
    """The known reward, or the fitted one."""
    if config.reward == "known":
        return world.reward
    terms = reward_terms(config.model, world)
    return lambda observations, actions: (features(terms, observations, actions) @ coefficients)[..., 0]


def agent_in(config: ConfigDict, world: World, dynamics: Dynamics, made: Fitted, starts: jax.Array) -> OnlineAgent:
    """PPO in the surrogate of a fitted model."""
    predict, reward = functools.partial(dynamics.predict, made.model), reward_of(config, world, made.reward)
    return ppo(config.agent, surrogate(world, predict, reward, starts, (made.low, made.high), config.horizon))


def start_fitted(config: ConfigDict, world: World, dynamics: Dynamics, key: Key) -> Fitted:
    """A model that is not fitted yet."""
    size = len(world.variables)
    low, high = world.box or (np.full(size, -np.inf), np.full(size, np.inf))
    rewards = jnp.zeros((len(reward_terms(config.model, world)), 1))
    return Fitted(dynamics.init(key), rewards, jnp.asarray(low, jnp.float32), jnp.asarray(high, jnp.float32))


def fit_all(
    config: ConfigDict, world: World, dynamics: Dynamics, made: Fitted, rows: Rows, key: Key
) -> tuple[Fitted, Metrics]:
    """Dynamics, the reward where it is not known, and the box where it is that of the data, half as wide again."""
    model_key, reward_key = jax.random.split(key)
    model, metrics = dynamics.fit(made.model, rows, model_key)
    made = made._replace(model=model)
    if config.reward == "fitted":
        made = made._replace(reward=fit_reward(config.model, world, rows, reward_key))
    if not world.box:
        seen = [jnp.where(rows.valid[:, None], rows.next_observations, end) for end in (jnp.inf, -jnp.inf)]
        low, high = jnp.min(seen[0], 0), jnp.max(seen[1], 0)
        made = made._replace(low=low - 0.25 * (high - low), high=high + 0.25 * (high - low))
    return made, metrics


def remembered(off: Rows, on: Rows, batch: Steps, is_first: jax.Array, later: int) -> tuple[Rows, Rows]:
    """Random steps and the policy's, with what the feed brought, `Steps` [T, N, ...]: all of it is the first where
    `is_first`; of the second it is `later` steps, for which the oldest make room."""
    rows = jax.tree.map(lambda x: x.reshape(-1, *x.shape[2:]), batch)  # in the order of time
    new = Rows(
        rows.observations, jnp.clip(rows.actions, -1.0, 1.0), rows.rewards, rows.next_observations,
        jnp.ones(len(rows.rewards), bool),
    )
    moved = jax.tree.map(lambda x, new: jnp.concatenate([x, new[:later]])[-len(x):], on, new)
    off = jax.tree.map(lambda old, new: jnp.where(is_first, new[: len(old)], old), off, new)
    return off, jax.tree.map(lambda old, new: jnp.where(is_first, old, new), on, moved)


def dyna_program(config: ConfigDict, world: World, real: Real) -> Program:
    """SINDy-RL, or the same with networks for a model.

    Outcomes: "return" [S, E] of the policy's mode in the real environment; "samples" [S, 1], steps taken there so far;
    "surrogate_return" [S, 1], of the last episodes in the model.

    Raises:
      ValueError: the reward is not known, or neither "known" nor "fitted".
    """
    if config.reward not in ("known", "fitted") or config.reward == "known" and world.reward is None:
        raise ValueError(f"config.reward={config.reward!r}: choose known, where {config.world} has one, or fitted")
    dynamics = make_dynamics(config.model, world)
    sizes = len(world.variables), len(world.actions)
    first, later = (config.real.num_envs * count for count in taken(config.real))

    def nothing(count: int) -> Rows:
        observations = jnp.zeros((count, sizes[0]))
        return Rows(
            observations, jnp.zeros((count, sizes[1])), jnp.zeros(count), jnp.copy(observations), jnp.zeros(count, bool)
        )

    def init(key: Key, resident: PyTree) -> TrainState:
        model_key, agent_key = jax.random.split(key)
        made = start_fitted(config, world, dynamics, model_key)
        state = agent_in(config, world, dynamics, made, resident).init(agent_key)
        data = {"off": nothing(first), "on": nothing(config.real.capacity)}
        return state.replace(extra={**state.extra, **data, "fitted": made})

    def step(state: TrainState, resident: PyTree, batch: Steps, key: Key) -> tuple[TrainState, Metrics]:
        fit_key, learn_key = jax.random.split(key)
        off, on = remembered(state.extra["off"], state.extra["on"], batch, state.step == 0, later)
        rows = jax.tree.map(lambda *x: jnp.concatenate(x), off, on)
        made, fit_metrics = fit_all(config, world, dynamics, state.extra["fitted"], rows, fit_key)
        agent = agent_in(config, world, dynamics, made, resident)
        state = state.replace(extra={**state.extra, "off": off, "on": on, "fitted": made})
        state, metrics = jax.lax.scan(agent.step, state, jax.random.split(learn_key, config.policy_updates))
        return state, jax.tree.map(jnp.mean, metrics) | fit_metrics

    agent = agent_for_its_policy(config, world, real)
    judge = real.judge(agent)

    def evaluate(state: TrainState, resident: PyTree, key: Key) -> Evaluation:
        found = with_samples(judge(state, resident, key), config, state)
        inside = np.asarray(gather(state.extra["copies"].last_return), np.float64)
        return found._replace(outcomes={**found.outcomes, "surrogate_return": inside[:, None]})

    return Program(init, step, evaluate, jnp.asarray(real.starts), real.feed(agent))


def model_free_program(config: ConfigDict, world: World, real: Real) -> Program:
    """PPO that learns from the real environment alone; the same outcomes, but for those of a model."""
    agent = agent_for_its_policy(config, world, real)
    judge = real.judge(agent)

    def step(state: TrainState, resident: PyTree, batch: Steps, key: Key) -> tuple[TrainState, Metrics]:
        del resident
        return agent.learn(state, batch, key)

    def evaluate(state: TrainState, resident: PyTree, key: Key) -> Evaluation:
        return with_samples(judge(state, resident, key), config, state)

    return Program(lambda key, resident: agent.init(key), step, evaluate, (), real.feed(agent))


def agent_for_its_policy(config: ConfigDict, world: World, real: Real) -> OnlineAgent:
    """PPO that stands still in its environment: for acting and learning elsewhere."""
    ends = np.full(len(world.variables), np.inf, np.float32)
    still = surrogate(
        world, lambda observation, action: observation, lambda observation, action: jnp.zeros(()),
        jnp.asarray(real.starts), (-ends, ends), config.horizon,
    )
    return ppo(config.agent, still)


def with_samples(found: Evaluation, config: ConfigDict, state: TrainState) -> Evaluation:
    """The evaluation, with the real environment's steps so far."""
    runs = len(next(iter(found.outcomes.values())))
    spent = np.full((runs, 1), samples(config.real, int(state.step)), np.float64)
    return found._replace(outcomes={**found.outcomes, "samples": spent})


def equations_of(coefficients: np.ndarray, world: World, terms: Sequence[Term], base: float) -> np.ndarray:
    """The coefficients [P, O] of d/dt of each observation, by the difference quotient of what was fitted.

    Args:
      coefficients: [P, O] of the control-affine terms.
      base: 1 where differences were fitted, 0 where next observations were.
    """
    found = np.array(coefficients, np.float64)
    for number in range(len(world.variables)):
        found[terms.index((number,)), number] -= 1.0 - base
    return found / world.seconds
